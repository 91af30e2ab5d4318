"""The migration to schema version 3: what was a group of an incident for the police alone is none.

Before, all reporters of such an incident were one group under its id, and read each other. Now each
report has a conversation of its own (`broker/store/conversations.py`). The words of one reporter
are with that reporter, the desk's with everybody who was told them.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from uuid import UUID

import msgspec
from msgspec.structs import replace

from broker.core.membership import DESK_NAMES, reporter
from broker.errors import UnavailableError
from broker.store.deadline_queue import Deadlines
from broker.store.incident_store import IncidentStore, add_reply
from broker.store.kernel.isolation import each, readable
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from broker.store.stored_incident import (
    StoredIncident,
    StoredReport,
    decode_group_event,
    decode_report,
)
from schemas.messages import GroupEvent

_ENCODE = msgspec.json.Encoder().encode

_Log = Sequence[tuple[int, GroupEvent]]  # each with its place


async def split_conversations(redis: RedisConnection) -> AsyncIterator[None]:
    """2 to 3: each reporter of an incident without a group speaks with the desk alone."""
    async for page in Deadlines(redis).incidents():
        await each(page, partial(_split, redis), what="the conversations of an incident")
        yield


async def _split(redis: RedisConnection, identifier: UUID) -> None:
    filed = await IncidentStore(redis).get(identifier)
    if filed is None or filed.incident.has_group:
        return
    told = await _log(redis, identifier)
    rows = await redis.call("HVALS", redis.keys.reports(identifier))
    reports = sorted(readable(rows, decode_report, what="a report"), key=lambda one: one.report.id)
    transaction = Transaction(redis)
    transaction.require_field(redis.keys.incident(identifier), "v", filed.incident.version)
    keeps: set[str] = set()
    for one in reports:
        if filed.incident.conversation_of(one.report) == identifier:
            keeps.add(one.user)
        else:
            own = filed.incident.conversation_of(one.report)
            if not await redis.call("EXISTS", redis.keys.incident(own)):
                await _give_own(transaction, redis, filed, one, told=told)
    _take_from_group(transaction, filed, keeps, told)
    if await transaction.run() is None:
        raise UnavailableError("Redis: an incident changed while it was migrated")


async def _log(redis: RedisConnection, identifier: UUID) -> _Log:
    """Return the group events of an incident, each with its place."""
    rows = await redis.call("LRANGE", redis.keys.group_log(identifier), 0, -1)
    return [
        *readable(
            enumerate(rows), lambda row: (row[0], decode_group_event(row[1])), what="a group event"
        )
    ]


async def _give_own(
    transaction: Transaction,
    redis: RedisConnection,
    filed: StoredIncident,
    one: StoredReport,
    *,
    told: _Log,
) -> None:
    """File a conversation for a report: what its reporter said, and what the desk told them."""
    keys, incident, user = redis.keys, filed.incident, one.user
    own, me = incident.conversation_of(one.report), reporter({}, user)
    name = filed.people[user].name if user in filed.people else me.name
    transaction.call(
        "HSET", keys.incident(own), "of", str(incident.id), "report", str(one.report.id)
    )
    transaction.call("HSET", keys.people(own), user, _ENCODE(me))
    mine = (event for _, event in told if event.member in {name, *DESK_NAMES})
    for sequence, event in enumerate(mine, 1):
        member = me.name if event.member == name else event.member
        known = replace(event, incident=own, sequence=sequence, member=member, members=1)
        add_reply(transaction, own, user=user, member=None, event=known)
    since_ms = await redis.call("ZSCORE", keys.involved(user), str(incident.id))
    if since_ms is not None:  # else it is forgotten with what they were in
        transaction.call("ZADD", keys.involved(user), since_ms, str(own))
    # What their device sends under the id that it knows.
    transaction.call("HSET", keys.incident(incident.id), f"conversation:{user}", str(own))


def _take_from_group(
    transaction: Transaction, filed: StoredIncident, keeps: set[str], told: _Log
) -> None:
    """Leave in the group of before whose conversation it is now, and no word of anybody else.

    The events keep their numbers: devices know them by these.
    """
    keys, incident, people = transaction.keys, filed.incident.id, filed.people
    for user in people.keys() - keeps:
        transaction.call("HDEL", keys.people(incident), user)
        transaction.call("ZREM", keys.involved(user), str(incident))
    names = {*DESK_NAMES, *(people[user].name for user in keeps & people.keys())}
    for place, event in told:
        left = replace(event, members=1, text=event.text if event.member in names else None)
        if left != event:
            transaction.call("LSET", keys.group_log(incident), place, _ENCODE(left))
