"""Messages that must go out whoever dies: filed with the commit, struck off when published.

Whoever commits publishes at once and strikes off. What is still there when it is due is published by
the police service's sweep. What was struck off is kept for a while, since an MQTT broker that is
killed forgets what it had acknowledged: then it is published again. Readers drop repeats by id.
"""

import asyncio
import time

import msgspec

from broker.store import keys
from broker.store.redis import Connection
from broker.store.transaction import Transaction

_AT_ONCE = 1_000  # Lua's unpack has a limit


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the outbox."""

    id: str
    topic: str
    payload: bytes
    retain: bool = False
    due_ms: int


class Outbox:
    """The outbox of one partition."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._struck: set[str] = set()
        self._striking: asyncio.Task[None] | None = None

    async def due(self, now_ms: int, limit: int = 100) -> list[Posted]:
        """Return messages that nobody has recorded as published by `now_ms`, oldest first."""
        found = await self._redis.call(
            "ZRANGE", keys.OUTBOX, 0, now_ms, "BYSCORE", "LIMIT", 0, limit
        )
        if not found:
            return []
        bodies = await self._redis.call("HMGET", keys.OUTBOX_MESSAGES, *found)
        return [msgspec.msgpack.decode(body, type=Posted) for body in bodies if body]

    async def published(self, *identifiers: str) -> None:
        """Strike messages off, together with what others strike off at this moment."""
        self._struck.update(identifiers)
        while not self._struck.isdisjoint(identifiers):
            if self._striking is None:
                self._striking = asyncio.create_task(self._strike(), name="outbox strike")
            await asyncio.shield(self._striking)

    async def _strike(self) -> None:
        try:
            some = list(self._struck)
            now_ms = int(time.time() * 1000)
            for first in range(0, len(some), _AT_ONCE):
                part = some[first : first + _AT_ONCE]
                transaction = Transaction()
                transaction.call("ZREM", keys.OUTBOX, *part)
                scored = [word for one in part for word in (now_ms, one)]
                transaction.call("ZADD", keys.OUTBOX_SENT, *scored)
                await transaction.run(self._redis)
                self._struck.difference_update(part)
        finally:
            self._striking = None

    async def forget(self, before_ms: int) -> int:
        """Forget what was published before `before_ms`; return how many there were."""
        forgotten = 0
        while some := await self._redis.call(
            "ZRANGE", keys.OUTBOX_SENT, 0, before_ms, "BYSCORE", "LIMIT", 0, _AT_ONCE
        ):
            transaction = Transaction()
            transaction.call("ZREM", keys.OUTBOX_SENT, *some)
            transaction.call("HDEL", keys.OUTBOX_MESSAGES, *some)
            await transaction.run(self._redis)
            forgotten += len(some)
        return forgotten

    async def repeat(self, since_ms: int, due_ms: int) -> int:
        """Have what was published since `since_ms` published again; return how many there are."""
        repeated = 0
        while some := await self._redis.call(
            "ZRANGE", keys.OUTBOX_SENT, since_ms, "+inf", "BYSCORE", "LIMIT", 0, _AT_ONCE
        ):
            transaction = Transaction()
            transaction.call("ZREM", keys.OUTBOX_SENT, *some)
            scored = [word for one in some for word in (due_ms, one)]
            transaction.call("ZADD", keys.OUTBOX, *scored)
            await transaction.run(self._redis)
            repeated += len(some)
        return repeated

    async def postpone(self, *identifiers: str, due_ms: int) -> None:
        """Set messages that could not be published for later."""
        transaction = Transaction()
        for identifier in identifiers:
            transaction.call("ZADD", keys.OUTBOX, "XX", due_ms, identifier)
        await transaction.run(self._redis)

    async def size(self) -> int:
        """Return how many messages are waiting."""
        return int(await self._redis.call("ZCARD", keys.OUTBOX))


def post(transaction: Transaction, message: Posted) -> None:
    """File `message` with the commit of `transaction`."""
    transaction.call("ZADD", keys.OUTBOX, message.due_ms, message.id)
    transaction.call("HSET", keys.OUTBOX_MESSAGES, message.id, msgspec.msgpack.encode(message))
