"""Messages that must go out whoever dies: filed with the commit, struck off when published.

Whoever commits publishes at once and strikes off. What is still there when it is due is published by
the police service's sweep. What was struck off is kept for a while, since an MQTT broker that is
killed forgets what it had acknowledged: then it is published again. Readers drop repeats by id.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import msgspec
import structlog

from broker.store.redis import Connection
from broker.store.transaction import Transaction

_log = structlog.get_logger()

_FIRST_RETRY_MS, _LAST_RETRY_MS = 2_000, 300_000
_AT_ONCE = 1_000  # Lua's unpack has a limit
_TOGETHER_S = 0.05  # so long what is published waits for more of it: one fsync strikes all off


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
        self._keys = redis.keys
        self._struck: set[str] = set()
        self._striking: asyncio.Task[None] | None = None

    async def take(self, now_ms: int, *, lease_ms: int, limit: int = 1_000) -> list[Posted]:
        """Return messages that nobody has recorded as published by `now_ms`, oldest first.

        Nobody else is given them for `lease_ms`; then they are due again, if they still stand.
        """
        while limit:
            rows = await self._redis.call(
                "ZRANGE", self._keys.outbox, 0, now_ms, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES"
            )
            if not rows:
                return []
            bodies = await self._lease(rows, now_ms + lease_ms)
            if bodies is not None:
                return [message for body in bodies if body and (message := _decoded(body))]
            limit //= 4  # others took some meanwhile, or recorded them: fewer are sooner ours
        return []

    async def _lease(self, rows: Sequence[bytes], until_ms: int) -> list[bytes] | None:
        """Return the bodies of messages that are ours until then; None if they have changed."""
        found = [name.decode() for name in rows[::2]]
        transaction = Transaction(self._redis)
        for name, score in zip(found, rows[1::2], strict=True):
            transaction.require_score(self._keys.outbox, name, int(float(score)))
            transaction.call("ZADD", self._keys.outbox, until_ms, name)
        for first in range(0, len(found), _AT_ONCE):
            transaction.call("HMGET", self._keys.outbox_messages, *found[first : first + _AT_ONCE])
        results = await transaction.run()
        if results is None:
            return None
        bodies = [body for some in results[len(found) :] for body in some]
        if gone := [name for name, body in zip(found, bodies, strict=True) if body is None]:
            await self._redis.call(
                "ZREM", self._keys.outbox, *gone
            )  # forgotten as they were repeated
        return bodies

    async def published(self, *identifiers: str) -> None:
        """Strike messages off, together with what others strike off at this moment."""
        self._struck.update(identifiers)
        while not self._struck.isdisjoint(identifiers):
            if self._striking is None:
                self._striking = asyncio.create_task(self._strike(), name="outbox strike")
            await asyncio.shield(self._striking)

    async def _strike(self) -> None:
        try:
            await asyncio.sleep(_TOGETHER_S)
            some = list(self._struck)
            now_ms = int(time.time() * 1000)
            for first in range(0, len(some), _AT_ONCE):
                part = some[first : first + _AT_ONCE]
                transaction = Transaction(self._redis)
                transaction.call("ZREM", self._keys.outbox, *part)
                scored = [word for one in part for word in (now_ms, one)]
                transaction.call("ZADD", self._keys.outbox_sent, "NX", *scored)
                await transaction.run()
                self._struck.difference_update(part)
        finally:
            self._striking = None

    async def forget(self, before_ms: int) -> int:
        """Forget what was first published before `before_ms`, and is not about to be again.

        Returns:
            How many there were.
        """
        forgotten = passed = 0
        while some := await self._redis.call(
            "ZRANGE", self._keys.outbox_sent, 0, before_ms, "BYSCORE", "LIMIT", passed, _AT_ONCE
        ):
            waiting = await self._redis.calls(
                ("ZSCORE", key, name)
                for name in some
                for key in (self._keys.outbox, self._keys.outbox_again)
            )
            done = [
                name
                for name, due, again in zip(some, waiting[::2], waiting[1::2], strict=True)
                if due is None and again is None
            ]
            if done:
                transaction = Transaction(self._redis)
                transaction.call("ZREM", self._keys.outbox_sent, *done)
                transaction.call("HDEL", self._keys.outbox_messages, *done)
                await transaction.run()
            forgotten += len(done)
            passed += len(some) - len(done)
        return forgotten

    async def repeat(self, since_ms: int, due_ms: int) -> int:
        """Have what was first published since `since_ms` published again, from `due_ms` on.

        The last that was published comes first: what had arrived is most probably older. It goes
        to the outbox by portions (`next_again`), so that what is new need not wait for it.

        Returns:
            How many there are.
        """
        repeated = 0
        while some := await self._redis.call(
            "ZRANGE", self._keys.outbox_sent, "+inf", since_ms, "BYSCORE", "REV",
            "LIMIT", repeated, _AT_ONCE,
        ):  # fmt: skip
            scored = [word for place, one in enumerate(some, repeated)
                      for word in (due_ms + place, one)]  # fmt: skip
            await self._redis.call("ZADD", self._keys.outbox_again, *scored)
            repeated += len(some)
        return repeated

    async def has_again(self, now_ms: int) -> bool:
        """Whether there is something to be published again by now."""
        return bool(await self._redis.call("ZCOUNT", self._keys.outbox_again, 0, now_ms))

    async def next_again(self, now_ms: int, most: int) -> int:
        """Put the next messages that are to be published again into the outbox; return how many."""
        some = await self._redis.call(
            "ZRANGE", self._keys.outbox_again, 0, now_ms, "BYSCORE", "LIMIT", 0, most
        )
        if some:
            transaction = Transaction(self._redis)
            scored = [word for one in some for word in (now_ms, one)]
            # What waits already, for whatever reason, waits on.
            transaction.call("ZADD", self._keys.outbox, "NX", *scored)
            transaction.call("ZREM", self._keys.outbox_again, *some)
            await transaction.run()
        return len(some)

    async def late(self, now_ms: int) -> int:
        """Return how many messages ought to have been published by now."""
        return int(await self._redis.call("ZCOUNT", self._keys.outbox, 0, now_ms))

    async def late_messages(self, now_ms: int) -> list[Posted]:
        """Return the messages that ought to have been published by now, some hundreds at most."""
        names = await self._redis.call(
            "ZRANGE", self._keys.outbox, 0, now_ms, "BYSCORE", "LIMIT", 0, _AT_ONCE
        )
        bodies = names and await self._redis.call("HMGET", self._keys.outbox_messages, *names)
        return [message for body in bodies if body and (message := _decoded(body))]

    async def give_up(self, identifiers: Sequence[str]) -> None:
        """Strike messages off that were never published."""
        transaction = Transaction(self._redis)
        transaction.call("ZREM", self._keys.outbox, *identifiers)
        transaction.call("HDEL", self._keys.outbox_messages, *identifiers)
        await transaction.run()

    async def get(self, identifier: UUID) -> Posted | None:
        """Return a message, published or not; None when it is not kept any more."""
        body = await self._redis.call("HGET", self._keys.outbox_messages, str(identifier))
        return _decoded(body) if body else None

    async def settle(self, posted: Sequence[Posted], taken: Sequence[bool], *, now_ms: int) -> None:
        """Strike off what was taken, and set the rest for later: the older, the longer."""
        if done := {one.id for one, was_taken in zip(posted, taken, strict=False) if was_taken}:
            await self.published(*done)
        transaction = Transaction(self._redis)
        for one in posted:
            if one.id not in done:
                wait_ms = (now_ms - one.due_ms) // 2
                again_ms = now_ms + min(_LAST_RETRY_MS, max(_FIRST_RETRY_MS, wait_ms))
                transaction.call("ZADD", self._keys.outbox, "XX", again_ms, one.id)
        if len(done) < len(posted):
            await transaction.run()

    async def size(self) -> int:
        """Return how many messages are waiting."""
        return int(await self._redis.call("ZCARD", self._keys.outbox))


def _decoded(body: bytes) -> Posted | None:
    """Return a message; one that cannot be read stays, told again and again, and holds up no other."""
    try:
        return msgspec.msgpack.decode(body, type=Posted)
    except msgspec.MsgspecError as error:
        # Nothing of it: it may hold what somebody said, and where.
        _log.error("a message in the outbox cannot be read", why=str(error), size=len(body))
        return None


def post(transaction: Transaction, message: Posted) -> None:
    """File `message` with the commit of `transaction`."""
    transaction.call("ZADD", transaction.keys.outbox, message.due_ms, message.id)
    transaction.call(
        "HSET", transaction.keys.outbox_messages, message.id, msgspec.msgpack.encode(message)
    )
