"""What one participant may have missed: read for a sync, in two round trips however much it is."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from broker.core.groups import Member
from broker.core.incidents import Incident
from broker.store import keys
from broker.store.alerts import Claimed, claimed, confirm
from broker.store.incidents import decode_group_event, decode_incident, decode_member, milliseconds
from broker.store.redis import Connection
from broker.store.transaction import Transaction
from schemas.messages import GroupEvent


class Missed(NamedTuple):
    """One incident of a participant; `alert` is theirs, if they were sent one."""

    incident: Incident
    member: Member
    alert: Claimed | None
    confirmed: bool
    events: Sequence[GroupEvent]


class MissedStore:
    """What the participants of one partition may have missed."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis

    async def since(self, user: str, since: datetime, at_most: int) -> list[Missed]:
        """Return the newest incidents of `user` in which they may have missed something.

        Those that changed since, to which they were alerted since, or whose alerts await a word of
        a device: a device that comes back is in hundreds, and to read each was most of what
        `groups` did.
        """
        names = await self._names(user, since, at_most)
        transaction = Transaction()
        for name in names:
            transaction.call("HMGET", keys.incident(name), "v", "incident")
            transaction.call("HGET", keys.people(name), user)
            transaction.call("HGET", keys.alerts(name), user)
            transaction.call("HEXISTS", keys.delivered(name), user)
            transaction.call("LRANGE", keys.group_log(name), 0, -1)
        rows = await transaction.run(self._redis) if names else []
        assert rows is not None  # there are no guards
        return [
            Missed(
                incident=decode_incident(*incident),
                member=decode_member(member),
                alert=claimed(user, alert) if alert else None,
                confirmed=bool(delivered),
                events=[decode_group_event(event) for event in events],
            )
            for incident, member, alert, delivered, events in zip(*[iter(rows)] * 5, strict=True)
            if incident[1] and member
        ]

    async def _names(self, user: str, since: datetime, at_most: int) -> list[UUID]:
        rows = await self._redis.call("ZRANGE", keys.involved(user), -at_most, -1, "WITHSCORES")
        names = [UUID(name.decode()) for name in rows[::2]]
        alerted_ms = [int(float(score)) for score in rows[1::2]]
        transaction = Transaction()
        for name in names:
            transaction.call("HGET", keys.incident(name), "touched")
            transaction.call("ZSCORE", keys.UNCONFIRMED, str(name))
        results = await transaction.run(self._redis) if names else []
        assert results is not None  # there are no guards
        since_ms = milliseconds(since)
        return [
            name
            for name, at_ms, touched, unconfirmed in zip(
                names, alerted_ms, results[::2], results[1::2], strict=True
            )
            if at_ms >= since_ms or int(touched or 0) >= since_ms or unconfirmed
        ]

    async def confirm(self, incidents: Iterable[UUID], user: str, now: datetime) -> None:
        """Record that the device of `user` says it has the alerts of `incidents`.

        If one was erased meanwhile nothing is recorded: the next sync does it.
        """
        transaction = Transaction()
        for incident in incidents:
            transaction.require_present(keys.incident(incident))
            confirm(transaction, incident, user, now)
        await transaction.run(self._redis)
