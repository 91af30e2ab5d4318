"""Deadlines, in Redis and not in any process's memory."""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from broker.core.incidents import Incident
from broker.store.kernel.isolation import readable
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction

_PAGE = 100
_JUMP_KEPT_MS = 8 * 86_400_000  # longer than any incident may be silent
_POISON_MS = 60_000


class DeadlineKind(enum.StrEnum):
    """What is due."""

    WIDEN = "widen"
    OVERDUE = "overdue"
    SILENCE = "silence"
    CONVERSATION = "conversation"  # the silence of one reporter's conversation, under its id
    ERASE = "erase"


class Deadline(NamedTuple):
    """One passed deadline; `due_ms` guards that it fires once."""

    kind: DeadlineKind
    incident: UUID
    due_ms: int

    def __str__(self) -> str:
        return f"{self.kind} {self.incident}"


class Deadlines:
    """The deadlines of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._followed = 0

    async def due(self, now_ms: int, limit: int = 100) -> list[Deadline]:
        """Return deadlines that have passed, the longest overdue first."""
        rows = await self._redis.call(
            "ZRANGE", self._keys.deadlines, 0, now_ms, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES"
        )
        due = []
        for row in zip(rows[::2], rows[1::2], strict=True):
            read = [*readable([row], _deadline, what="a deadline")]
            if not read:  # another version may know it; it must not block the others
                await self._redis.call(
                    "ZADD", self._keys.deadlines, "XX", now_ms + _POISON_MS, row[0]
                )
            due += read
        return due

    async def follow(self, jumps: Sequence[tuple[float, float]]) -> bool:
        """Shift all deadlines by the jumps of the clock; return whether the last one went back.

        Durations stay: what was due in ten minutes is still due in ten minutes. `jumps` are all of
        this process, each with the end of the old time (Unix s) and the size of the jump (s).
        """
        new, self._followed = jumps[self._followed :], len(jumps)
        keys = self._keys
        for until_s, by_s in new:
            await self._redis.script(
                "rebase",
                [keys.jump, keys.deadlines, keys.unconfirmed, keys.outbox],
                [int(until_s * 1000), int(by_s * 1000), _JUMP_KEPT_MS],
            )
        return bool(new) and new[-1][1] < 0

    async def in_time_of_now(self, at: datetime) -> datetime:
        """Return a recorded time by the present clock, which has jumped ahead since."""
        jump = await self._redis.call("GET", self._keys.jump)
        if jump is None:
            return at
        until_ms, by_ms = map(int, jump.split())
        if by_ms <= 0 or milliseconds(at) > until_ms:
            return at
        return at + timedelta(milliseconds=by_ms)

    async def incidents(self) -> AsyncIterator[list[UUID]]:
        """Yield the incidents that are not erased, each once, page by page, open ones first."""
        yielded: set[UUID] = set()
        names = await self._redis.call("ZRANGE", self._keys.open_incidents, 0, -1, "REV")
        for first in range(0, len(names), _PAGE):
            some = [UUID(name.decode()) for name in names[first : first + _PAGE]]
            yielded.update(some)
            yield some
        cursor = b"0"
        while True:  # by ZSCAN, which misses no member that stays, even while others fire
            cursor, rows = await self._redis.call(
                "ZSCAN", self._keys.deadlines, cursor, "COUNT", _PAGE
            )
            read = readable(zip(rows[::2], rows[1::2], strict=True), _deadline, what="a deadline")
            found = dict.fromkeys(
                one.incident for one in read if one.kind is not DeadlineKind.CONVERSATION
            )
            yield [name for name in found if name not in yielded]
            yielded.update(found)
            if int(cursor) == 0:
                return

    async def drop(self, deadline: Deadline, of: Incident | None = None) -> None:
        """Remove an obsolete deadline, unless it was set again, or the incident has changed since.

        One that is overdue is not set again, since it is the sooner: so `of`, the incident by which
        it was judged, tells whether it is still obsolete. If not, the next turn judges it anew.
        """
        transaction = Transaction(self._redis)
        fire(transaction, deadline)
        if of is not None:
            transaction.require_field(self._keys.incident(of.id), "v", of.version)
        await transaction.run()

    async def postpone(self, deadline: Deadline, due: datetime) -> None:
        """Move a deadline, unless another worker has."""
        transaction = Transaction(self._redis)
        fire(transaction, deadline)
        schedule(transaction, deadline.incident, {deadline.kind: due})
        await transaction.run()


def fire(transaction: Transaction, deadline: Deadline) -> None:
    """Require that `deadline` is as it was read, and remove it."""
    member = f"{deadline.kind} {deadline.incident}"
    transaction.require_score(transaction.keys.deadlines, member, deadline.due_ms)
    transaction.call("ZREM", transaction.keys.deadlines, member)


def schedule(
    transaction: Transaction, incident: UUID, due: Mapping[DeadlineKind, datetime]
) -> None:
    """Set deadlines of an incident; one of each kind."""
    name = str(incident)
    scored = [word for kind, at in due.items() for word in (milliseconds(at), f"{kind} {name}")]
    transaction.call("ZADD", transaction.keys.deadlines, *scored)


def schedule_no_later(
    transaction: Transaction, incident: UUID, kind: DeadlineKind, at: datetime
) -> None:
    """Set a deadline of an incident, unless an earlier one is set."""
    member = f"{kind} {incident}"
    transaction.call("ZADD", transaction.keys.deadlines, "LT", milliseconds(at), member)


def unschedule(transaction: Transaction, incident: UUID, *kinds: DeadlineKind) -> None:
    """Remove deadlines."""
    members = [f"{kind} {incident}" for kind in kinds]
    transaction.call("ZREM", transaction.keys.deadlines, *members)


def _deadline(row: tuple[bytes, bytes]) -> Deadline:
    member, score = row
    kind, incident = member.decode().split()
    return Deadline(DeadlineKind(kind), UUID(incident), int(float(score)))
