"""The migration to schema version 3: incidents for the police alone have no group any more.

Before, all reporters of such an incident were one group under its id, and read each other. Now each
report has a conversation of its own (`broker/store/conversations.py`). What a reporter said is in
their own conversation; what the desk said is in that of each reporter who was told.
"""

import math
from collections.abc import AsyncIterator, Iterator, Sequence
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
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction
from broker.store.stored_incident import (
    StoredIncident,
    StoredReport,
    decode_group_event,
    decode_report,
)
from schemas.messages import GroupEvent

_ATTEMPTS = 10  # another migrating process is done after one

_ENCODE = msgspec.json.Encoder().encode

_Log = Sequence[tuple[int, GroupEvent]]  # each event with its index


async def split_conversations(redis: RedisConnection) -> AsyncIterator[None]:
    """2 to 3: each reporter of an incident without a group speaks with the desk alone."""
    async for page in Deadlines(redis).incidents():
        await each(page, partial(_split, redis), what="the conversations of an incident")
        yield


async def _split(redis: RedisConnection, identifier: UUID) -> None:
    """Split one incident, report by report, so that no commit is as large as the incident."""
    for _ in range(_ATTEMPTS):
        filed = await IncidentStore(redis).get(identifier)
        if filed is None or filed.incident.has_group:
            return
        rows = await redis.call("HVALS", redis.keys.reports(identifier))
        read = readable(rows, decode_report, what="a report")
        if await _split_as(redis, filed, sorted(read, key=lambda one: one.report.id)):
            return
    raise UnavailableError("Redis: an incident changed while it was migrated")


async def _split_as(
    redis: RedisConnection, filed: StoredIncident, reports: Sequence[StoredReport]
) -> bool:
    """Split an incident as it was read; False when it has changed since."""
    incident, keeps = filed.incident, set[str]()
    told = await _log(redis, incident.id)
    for one in reports:
        own = incident.conversation_of(one.report)
        if own == incident.id:
            keeps.add(one.user)
        elif not await redis.call("EXISTS", redis.keys.incident(own)) and not await _give_own(
            redis, filed, one, told=told
        ):
            return False
    transaction = _guarded(redis, filed)
    _take_from_group(transaction, filed, keeps, told)
    return await transaction.run() is not None


def _guarded(redis: RedisConnection, filed: StoredIncident) -> Transaction:
    transaction = Transaction(redis)
    key = redis.keys.incident(filed.incident.id)
    transaction.require_field(key, "v", filed.incident.version)
    return transaction


async def _log(redis: RedisConnection, identifier: UUID) -> _Log:
    """Return the group events of an incident, each with its index."""
    rows = await redis.call("LRANGE", redis.keys.group_log(identifier), 0, -1)
    return [
        *readable(
            enumerate(rows), lambda row: (row[0], decode_group_event(row[1])), what="a group event"
        )
    ]


async def _give_own(
    redis: RedisConnection, filed: StoredIncident, one: StoredReport, *, told: _Log
) -> bool:
    """File a conversation for a report: what its reporter said, and what the desk told them.

    Once, even if another process migrates too. The desk's events count from when the reporter
    joined.
    """
    keys, incident, user = redis.keys, filed.incident, one.user
    own, me = incident.conversation_of(one.report), reporter({}, user)
    name = filed.people[user].name if user in filed.people else me.name
    since_ms = await redis.call("ZSCORE", keys.involved(user), str(incident.id))
    transaction = _guarded(redis, filed)
    transaction.require_absent(keys.incident(own))
    transaction.call(
        "HSET", keys.incident(own), "of", str(incident.id), "report", str(one.report.id)
    )
    transaction.call("HSET", keys.people(own), user, _ENCODE(me))
    for sequence, event in enumerate(_theirs(told, name, since_ms), 1):
        member = me.name if event.member == name else event.member
        known = replace(event, incident=own, sequence=sequence, member=member, members=1)
        add_reply(transaction, own, user=user, member=None, event=known)
    if since_ms is not None:  # otherwise it is erased with the group's
        transaction.call("ZADD", keys.involved(user), since_ms, str(own))
    # For what their device sends under the old id.
    transaction.call("HSET", keys.incident(incident.id), f"conversation:{user}", str(own))
    return await transaction.run() is not None


def _theirs(told: _Log, name: str, since_ms: bytes | None) -> Iterator[GroupEvent]:
    """Return what `name` said, and what the desk said since they joined."""
    since = math.inf if since_ms is None else float(since_ms)
    for _, event in told:
        heard = event.member in DESK_NAMES and milliseconds(event.at) >= since
        if event.member == name or heard:
            yield event


def _take_from_group(
    transaction: Transaction, filed: StoredIncident, keeps: set[str], told: _Log
) -> None:
    """Remove from the old group all users but `keeps`, and what anyone but they and the desk said.

    The events keep their sequence numbers, by which devices know them.
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
