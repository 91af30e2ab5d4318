"""What one participant may have missed: read for a sync, in a round trip or two.

After the loss of the MQTT broker every device asks at once: the script takes less of Redis's time
than to read its commands one by one would, and holds up what others commit no longer than a commit.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from broker.core.groups import Member
from broker.core.incidents import Incident
from broker.store import keys
from broker.store.alerts import Claimed, claimed, confirm
from broker.store.incidents import decode_group_event, decode_incident, decode_member
from broker.store.moments import milliseconds
from broker.store.redis import Connection
from broker.store.transaction import Transaction
from schemas.messages import GroupEvent

_TAIL = 20  # group events that are read of every incident


class Missed(NamedTuple):
    """One incident of a participant; `alert` is theirs, if they were sent one.

    `events` are at least those since the moment asked for that concern them.
    """

    incident: Incident
    member: Member
    alert: Claimed | None
    confirmed: bool
    events: Sequence[GroupEvent]


class MissedStore:
    """What the participants of one partition may have missed."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis

    async def since(
        self, user: str, since: datetime, at_most: int, *, told_before: timedelta = timedelta()
    ) -> list[Missed]:
        """Return the newest incidents of `user` in which they may have missed something.

        Those whose group was told something since, to which they were alerted since, or more than
        `told_before` before, without a word of their device so far. A device that comes back is in
        hundreds, and to read each was most of what `groups` did.
        """
        since_ms, told_ms = milliseconds(since), milliseconds(since - told_before)
        rows = await self._redis.script(
            "missed",
            [keys.involved(user)],
            [keys.PREFIX, user, since_ms, told_ms, at_most, _TAIL],
        )
        found = [
            Missed(
                incident=decode_incident(version, incident),
                member=decode_member(member),
                alert=claimed(user, alert) if alert else None,
                confirmed=bool(delivered),
                events=[decode_group_event(event) for event in events],
            )
            for version, incident, member, alert, delivered, events in rows
            if member
        ]
        return await self._with_all_events(found, since)

    async def _with_all_events(self, found: Sequence[Missed], since: datetime) -> list[Missed]:
        """Read the whole log of a group that has said more since than its last events."""
        long = [
            one.incident.id for one in found
            if one.member.in_group and len(one.events) == _TAIL and one.events[0].at >= since
        ]  # fmt: skip
        logs = await self._redis.calls(("LRANGE", keys.group_log(name), 0, -1) for name in long)
        whole = dict(zip(long, logs, strict=True))
        return [
            one._replace(events=[decode_group_event(event) for event in whole[one.incident.id]])
            if one.incident.id in whole
            else one
            for one in found
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
