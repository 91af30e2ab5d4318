"""What one participant may have missed: a short row for each incident, and the events of new ones.

After the loss of the MQTT broker every device asks at once, and may have been in a hundred
incidents: reading each in full was most of the work of `groups`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from broker.core.incidents import Incident
from broker.core.membership import DESK_NAMES, Member
from broker.store.alert_states import Claimed, claimed, confirm
from broker.store.kernel.isolation import readable
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import milliseconds, moment_of
from broker.store.kernel.transaction import Transaction
from broker.store.questions import decode_question
from broker.store.stored_incident import decode_group_event, decode_incident, decode_member
from schemas.ids import alert_id
from schemas.messages import GroupEvent, GroupEventKind, Question, Sync


class SyncRow(NamedTuple):
    """An incident in short; `alert` is the user's, if they were sent one.

    It has the number of its group's events and the time of the last. `incident` is the id by which
    the user knows it.
    """

    incident: UUID
    partition: int
    member: Member
    alert: Claimed | None
    confirmed: bool
    events: int
    told_at: datetime
    is_open: bool

    def has_alert(self, request: Sync, sure: datetime) -> bool:
        """Whether the device has the alert: it names it, or the alert came before `sure`."""
        return self.alert is not None and (
            self._is_named(self.alert, request) or self.alert.at < sure
        )

    def lacks_any(self, request: Sync) -> bool:
        """Whether anything has to be sent to the device again."""
        return self.lacks_alert(request) or self.lacks_events(request)

    def lacks_alert(self, request: Sync) -> bool:
        """Whether there is an alert that the device does not name and that still matters."""
        if self.alert is None or not self.is_open or self.alert.at < request.since:
            return False
        return not self._is_named(self.alert, request)

    def _is_named(self, alert: Claimed, request: Sync) -> bool:
        return alert_id(self.incident, alert.wave) in request.alerts

    def lacks_events(self, request: Sync) -> bool:
        """Whether there are events since then that the device does not name."""
        if self.told_at < request.since:
            return False
        known = request.groups.get(self.incident, frozenset())
        if self.member.in_group:
            return not known.issuperset(range(self.member.hears_from, self.events + 1))
        return not self.is_open and self.events not in known  # the last is that it closed

    def lacks(self, event: GroupEvent, request: Sync) -> bool:
        """Whether `event` has to be sent again: none from before the user joined has."""
        if event.at < request.since or event.sequence in request.groups.get(self.incident, ()):
            return False
        in_time = self.member.in_group and event.sequence >= self.member.hears_from
        return in_time or event.kind is GroupEventKind.CLOSED


class SyncEvents(NamedTuple):
    """All events of a group, with the incident; without it for the user's own conversation."""

    incident: Incident | None
    events: Sequence[GroupEvent]

    def told_to(self, member: Member) -> Sequence[GroupEvent]:
        """Return the events that `member` may read: without a group, their own and the desk's.

        Before schema version 3 all reporters of such an incident had one log.
        """
        if self.incident is not None and self.incident.has_group:
            return self.events
        return [one for one in self.events if one.member in (member.name, *DESK_NAMES)]


def _sync_row(user: str, partition: int, row: Sequence[Any]) -> SyncRow:
    name, told, alert, delivered, member, events, is_open = row
    return SyncRow(
        incident=UUID(name.decode()),
        partition=partition,
        member=decode_member(member),
        alert=claimed(user, alert) if alert else None,
        confirmed=bool(delivered),
        events=events,
        told_at=moment_of(told),
        is_open=bool(is_open),
    )


def _missed(row: tuple[UUID, Sequence[bytes], Sequence[bytes]]) -> tuple[UUID, SyncEvents]:
    name, incident, events = row
    told = [*readable(events, decode_group_event, what="a group event")]
    return name, SyncEvents(decode_incident(*incident) if incident[1] else None, told)


class SyncStore:
    """What the participants of one partition may have missed."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def since(
        self, user: str, since: datetime, at_most: int, *, told_before: timedelta = timedelta()
    ) -> list[SyncRow]:
        """Return the newest incidents of `user` in which they may have missed something.

        Those with group events since then, those to which they were alerted since then, and older
        alerts (by more than `told_before`) that their device has not confirmed.
        """
        since_ms, told_ms = milliseconds(since), milliseconds(since - told_before)
        rows = await self._redis.script(
            "missed",
            [self._keys.involved(user), self._keys.open_incidents],
            [self._keys.prefix, user, since_ms, told_ms, at_most],
        )
        row = partial(_sync_row, user, self._keys.partition)
        return [*readable(rows, row, what="an incident of a sync")]

    async def questions(self, user: str, since: datetime) -> list[Question]:
        """Return the questions to `user` since then, as long as they are kept."""
        names = await self._redis.call(
            "ZRANGE", self._keys.asked(user), milliseconds(since), "+inf", "BYSCORE"
        )
        rows = await self._redis.calls(
            ("HGET", self._keys.question(UUID(name.decode())), "question") for name in names
        )
        return [*readable(filter(None, rows), decode_question, what="a question")]

    async def read(self, incidents: Iterable[UUID]) -> dict[UUID, SyncEvents]:
        """Return the group events of these incidents, without those that were erased."""
        names = list(incidents)
        rows = await self._redis.calls(
            words
            for name in names
            for words in (
                ("HMGET", self._keys.incident(name), "v", "incident"),
                ("LRANGE", self._keys.group_log(name), 0, -1),
            )
        )
        found = zip(names, rows[::2], rows[1::2], strict=True)
        there = [row for row in found if row[1][1] or row[2]]
        return dict(readable(there, _missed, what="an incident of a sync"))

    async def confirm(self, incidents: Iterable[UUID], user: str, now: datetime) -> None:
        """Record that the device of `user` has confirmed the alerts of `incidents`.

        If one of them has been erased, nothing is recorded; the next sync will do it.
        """
        transaction = Transaction(self._redis)
        for incident in incidents:
            transaction.require_present(self._keys.incident(incident))
            confirm(transaction, incident, user, now)
        await transaction.run()
