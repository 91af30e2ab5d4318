"""What one participant may have missed: seen at a glance for a sync, and read where it is new.

After the loss of the MQTT broker every device asks at once, and was in a hundred incidents since; to
read each of them whole was most of what `groups` did.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from broker.core.groups import Member
from broker.core.incidents import Incident
from broker.isolation import readable
from broker.store.alerts import Claimed, claimed, confirm
from broker.store.incidents import (
    decode_group_event,
    decode_incident,
    decode_member,
    decode_question,
)
from broker.store.moments import milliseconds, moment_of
from broker.store.redis import Connection
from broker.store.transaction import Transaction
from schemas.messages import GroupEvent, Question


class Glimpse(NamedTuple):
    """What is seen of an incident; `alert` is theirs, if they were sent one.

    Of its group, how many events there were and when the last was.
    """

    incident: UUID
    member: Member
    alert: Claimed | None
    confirmed: bool
    events: int
    told_at: datetime
    is_open: bool


class Missed(NamedTuple):
    """An incident with all that its group was told."""

    incident: Incident
    events: Sequence[GroupEvent]


def _glimpse(user: str, row: Sequence[Any]) -> Glimpse:
    name, told, alert, delivered, member, events, is_open = row
    return Glimpse(
        incident=UUID(name.decode()),
        member=decode_member(member),
        alert=claimed(user, alert) if alert else None,
        confirmed=bool(delivered),
        events=events,
        told_at=moment_of(told),
        is_open=bool(is_open),
    )


def _missed(row: tuple[UUID, Sequence[bytes], Sequence[bytes]]) -> tuple[UUID, Missed]:
    name, incident, events = row
    told = [*readable(events, decode_group_event, what="a group event")]
    return name, Missed(decode_incident(*incident), told)


class MissedStore:
    """What the participants of one partition may have missed."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def since(
        self, user: str, since: datetime, at_most: int, *, told_before: timedelta = timedelta()
    ) -> list[Glimpse]:
        """Return the newest incidents of `user` in which they may have missed something.

        Those whose group was told something since, to which they were alerted since, or more than
        `told_before` before, without a word of their device so far.
        """
        since_ms, told_ms = milliseconds(since), milliseconds(since - told_before)
        rows = await self._redis.script(
            "missed",
            [self._keys.involved(user), self._keys.open_incidents],
            [self._keys.prefix, user, since_ms, told_ms, at_most],
        )
        return [*readable(rows, partial(_glimpse, user), what="an incident of a sync")]

    async def questions(self, user: str, since: datetime) -> list[Question]:
        """Return what `user` was asked since, for as long as a question is kept."""
        names = await self._redis.call(
            "ZRANGE", self._keys.asked(user), milliseconds(since), "+inf", "BYSCORE"
        )
        rows = await self._redis.calls(
            ("HGET", self._keys.question(UUID(name.decode())), "question") for name in names
        )
        return [*readable(filter(None, rows), decode_question, what="a question")]

    async def read(self, incidents: Iterable[UUID]) -> dict[UUID, Missed]:
        """Return these incidents, as far as they are still there."""
        names = list(incidents)
        rows = await self._redis.calls(
            words
            for name in names
            for words in (
                ("HMGET", self._keys.incident(name), "v", "incident"),
                ("LRANGE", self._keys.group_log(name), 0, -1),
            )
        )
        there = [row for row in zip(names, rows[::2], rows[1::2], strict=True) if row[1][1]]
        return dict(readable(there, _missed, what="an incident of a sync"))

    async def confirm(self, incidents: Iterable[UUID], user: str, now: datetime) -> None:
        """Record that the device of `user` says it has the alerts of `incidents`.

        If one was erased meanwhile nothing is recorded: the next sync does it.
        """
        transaction = Transaction(self._redis)
        for incident in incidents:
            transaction.require_present(self._keys.incident(incident))
            confirm(transaction, incident, user, now)
        await transaction.run()
