"""Messages that must reach their reader: added with the commit, removed when the reader confirms.

The service that commits also publishes at once. The reader is a desk, or a user who was asked. What
it has not confirmed by id in time the relay service sends again, each time a little later. A PUBACK
changes nothing: an MQTT broker gives it if any client has subscribed. Readers drop repeats by id.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Self
from uuid import UUID

import msgspec
import structlog

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from schemas.taxonomy import Desk

_log = structlog.get_logger()

LAST_RETRY_MS = 300_000
_FIRST_RETRY_MS = 2_000
_AT_ONCE = 1_000  # Lua's unpack has a limit
_GRACE_MS = 3_000  # how long the reader may take to confirm what was just published


class Reader(NamedTuple):
    """The reader that must confirm a message: the desk of a zone or municipality, or a user."""

    kind: str
    name: str

    @classmethod
    def of(cls, topic: str) -> Self:
        """Return the reader of messages on `topic`: its two levels after the root."""
        _, _, kind, name, _ = topic.split("/", 4)
        return cls(kind, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reader whose `str` is `text`."""
        kind, name = text.split("/")
        return cls(kind, name)

    @property
    def is_desk(self) -> bool:
        """Whether it is a desk, not a user."""
        return self.kind in (Desk.POLICE, Desk.CITY)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the outbox: committed at `made_ms`, to be sent again from `due_ms` on.

    `attended`: the duty desk has it, so no alarm is raised for it; it still waits for its own desk.
    """

    id: str
    topic: str
    payload: bytes
    made_ms: int
    due_ms: int
    attended: bool = False

    @property
    def reader(self) -> Reader:
        """The reader that must confirm it."""
        return Reader.of(self.topic)

    def __str__(self) -> str:
        return self.id  # its content must not be logged


def posted(identifier: UUID, topic: str, payload: bytes, *, now_ms: int) -> OutboxMessage:
    """Return a message that its maker publishes at once: it is due after the time to confirm it."""
    due_ms = now_ms + _GRACE_MS
    return OutboxMessage(
        id=str(identifier), topic=topic, payload=payload, made_ms=now_ms, due_ms=due_ms
    )


def again_after_ms(late_ms: int) -> int:
    """Return the delay before a message that is overdue by so much is sent again.

    `late_ms` is negative if the clock went back.
    """
    return min(LAST_RETRY_MS, max(_FIRST_RETRY_MS, abs(late_ms) // 2))


class Undelivered(NamedTuple):
    """How many messages a desk has not confirmed, and when the oldest was committed."""

    reader: Reader
    messages: int
    oldest_ms: int

    def merged(self, other: "Undelivered | None") -> "Undelivered":
        """Return the sum of two partitions' counts for the same desk."""
        if other is None:
            return self
        oldest_ms = min(self.oldest_ms, other.oldest_ms)
        return Undelivered(self.reader, self.messages + other.messages, oldest_ms)


class Outbox:
    """The outbox of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    # -- sending again ----------------------------------------------------------------------------

    async def take(self, now_ms: int, *, limit: int = 1_000) -> list[OutboxMessage]:
        """Return messages that are due by `now_ms`, oldest first; those for desks are undelivered.

        No other worker gets them until they are due again; the older they are, the later that is.
        """
        while limit:
            rows = await self._redis.call(
                "ZRANGE", self._keys.outbox, 0, now_ms, "BYSCORE", "LIMIT", 0, limit, "WITHSCORES"
            )
            if not rows:
                return []
            scores = {
                name.decode(): int(float(score))
                for name, score in zip(rows[::2], rows[1::2], strict=True)
            }
            found = await self._bodies(scores)
            waits_ms = {
                message.id: again_after_ms(now_ms - due_ms)
                for message, due_ms in await self._due(found.values(), now_ms)
            }
            if await self._postpone(scores, found, now_ms, waits_ms):
                return [message for body in found.values() if (message := _decoded(body))]
            limit //= 4  # other workers took some, or readers confirmed them: try fewer
        return []

    async def _bodies(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the bodies of those of `names` that exist."""
        asked = list(names)
        parts = [asked[first : first + _AT_ONCE] for first in range(0, len(asked), _AT_ONCE)]
        answers = await self._redis.calls(
            ("HMGET", self._keys.outbox_messages, *part) for part in parts
        )
        bodies = [body for answer in answers for body in answer]
        return {name: body for name, body in zip(asked, bodies, strict=True) if body}

    async def _due(self, bodies: Iterable[bytes], now_ms: int) -> list[tuple[OutboxMessage, int]]:
        """Return each message and when it was due (ms), by the present clock.

        An adopted jump of the clock makes nothing older: what is a second old is sent within
        seconds.
        """
        jump = await self._redis.call("GET", self._keys.jump)
        until_ms, by_ms = map(int, jump.split()) if jump else (0, 0)

        def is_before(due_ms: int) -> bool:
            return due_ms <= until_ms + _GRACE_MS if by_ms > 0 else due_ms > now_ms

        return [
            (message, message.due_ms + by_ms if is_before(message.due_ms) else message.due_ms)
            for body in bodies
            if (message := _decoded(body))
        ]

    async def _postpone(
        self,
        scores: Mapping[str, int],
        found: Mapping[str, bytes],
        now_ms: int,
        waits_ms: Mapping[str, int],
    ) -> bool:
        """Set messages for later; False if one of them has changed since it was read."""
        transaction = Transaction(self._redis)
        for name, score in scores.items():
            transaction.require_score(self._keys.outbox, name, score)
            if name not in found:
                transaction.call("ZREM", self._keys.outbox, name)
                transaction.call("HDEL", self._keys.outbox_tries, name)
                continue
            transaction.call("HINCRBY", self._keys.outbox_tries, name, 1)
            message = _decoded(found[name])
            wait_ms = waits_ms.get(name, LAST_RETRY_MS)
            transaction.call("ZADD", self._keys.outbox, now_ms + wait_ms, name)
            if message is not None and message.reader.is_desk and not message.attended:
                transaction.require_field(self._keys.outbox_messages, name, found[name])
                self._add_undelivered(transaction, message)
        return await transaction.run() is not None

    async def tries(self, messages: Sequence[OutboxMessage]) -> list[int]:
        """Return how often each message was taken for sending."""
        names = [message.id for message in messages]
        parts = [names[first : first + _AT_ONCE] for first in range(0, len(names), _AT_ONCE)]
        answers = await self._redis.calls(
            ("HMGET", self._keys.outbox_tries, *part) for part in parts
        )
        return [int(count or 0) for answer in answers for count in answer]

    def _add_undelivered(self, transaction: Transaction, message: OutboxMessage) -> None:
        reader = str(message.reader)
        key = self._keys.undelivered(reader)
        transaction.call("ZADD", key, "NX", message.made_ms, message.id)
        transaction.call("HSET", self._keys.undelivered_readers, reader, "")

    async def send_again(self, reader: Reader, now_ms: int, *, but: Collection[str]) -> int:
        """Make all that `reader` has not confirmed due now, except `but`; return how many."""
        some = await self._redis.calls(
            ("ZRANGE", key, 0, -1) for key in self._waiting_for(str(reader))
        )
        names = [name.decode() for part in some for name in part if name.decode() not in but]
        transaction = Transaction(self._redis)
        for name in names:
            transaction.call("ZADD", self._keys.outbox, "XX", now_ms, name)
        if names:
            await transaction.run()
        return len(names)

    # -- the reader's word ------------------------------------------------------------------------

    async def confirm(
        self, said: Mapping[Reader, Collection[str]], *, duty: Reader | None = None
    ) -> list[OutboxMessage]:
        """Remove and return what its reader confirms; ids of other readers' messages are ignored.

        What the `duty` desk confirms of another desk's messages is attended from now on.
        """
        found = await self._bodies({name for names in said.values() for name in names})
        delivered, attended = [], []
        for reader, names in said.items():
            for name in names:
                message = _decoded(found[name]) if name in found else None
                if message is None:
                    continue
                if message.reader == reader:
                    delivered.append(message)
                elif reader == duty and message.reader.kind == reader.kind:
                    attended.append(message)
        if delivered:
            await self.remove(delivered)
        for message in attended:
            await self._attend(message, found[message.id])
        return delivered

    async def remove(self, messages: Sequence[OutboxMessage]) -> None:
        """Remove messages for good."""
        transaction = Transaction(self._redis)
        names = [message.id for message in messages]
        for first in range(0, len(names), _AT_ONCE):
            part = names[first : first + _AT_ONCE]
            transaction.call("ZREM", self._keys.outbox, *part)
            transaction.call("HDEL", self._keys.outbox_messages, *part)
            transaction.call("HDEL", self._keys.outbox_tries, *part)
        for message in messages:
            if message.reader.is_desk:
                for key in self._waiting_for(str(message.reader)):
                    transaction.call("ZREM", key, message.id)
        await transaction.run()

    async def _attend(self, message: OutboxMessage, body: bytes) -> None:
        transaction = Transaction(self._redis)
        transaction.require_field(self._keys.outbox_messages, message.id, body)
        reader = str(message.reader)
        known = msgspec.msgpack.encode(msgspec.structs.replace(message, attended=True))
        transaction.call("HSET", self._keys.outbox_messages, message.id, known)
        transaction.call("ZREM", self._keys.undelivered(reader), message.id)
        transaction.call("ZADD", self._keys.attended(reader), message.made_ms, message.id)
        await transaction.run()  # otherwise its own desk has confirmed it

    def _waiting_for(self, reader: str) -> tuple[str, str]:
        return self._keys.undelivered(reader), self._keys.attended(reader)

    # -- what waits -------------------------------------------------------------------------------

    async def undelivered(self) -> list[Undelivered]:
        """Return which desks have not confirmed what the relay service has sent to them."""
        readers = [
            name.decode()
            for name in await self._redis.call("HKEYS", self._keys.undelivered_readers)
        ]
        keys = [self._keys.undelivered(reader) for reader in readers]
        answers = await self._redis.calls(
            command
            for key in keys
            for command in (("ZCARD", key), ("ZRANGE", key, 0, 0, "WITHSCORES"))
        )
        found = []
        for reader, count, oldest in zip(readers, answers[::2], answers[1::2], strict=True):
            if oldest:
                found.append(Undelivered(Reader.parse(reader), count, int(float(oldest[1]))))
            else:
                await self._forget_reader(reader)
        return found

    async def _forget_reader(self, reader: str) -> None:
        transaction = Transaction(self._redis)
        transaction.require_absent(self._keys.undelivered(reader))
        transaction.call("HDEL", self._keys.undelivered_readers, reader)
        await transaction.run()

    async def get(self, identifier: UUID) -> OutboxMessage | None:
        """Return a message that its reader has not confirmed; None when there is none."""
        body = await self._redis.call("HGET", self._keys.outbox_messages, str(identifier))
        return _decoded(body) if body else None

    async def late(self, now_ms: int) -> int:
        """Return how many messages are overdue to be sent again."""
        return int(await self._redis.call("ZCOUNT", self._keys.outbox, 0, now_ms))

    async def size(self) -> int:
        """Return how many messages are waiting."""
        return int(await self._redis.call("ZCARD", self._keys.outbox))


def _decoded(body: bytes) -> OutboxMessage | None:
    """Return a message, or log one that cannot be read: it stays, and holds up no other."""
    try:
        return msgspec.msgpack.decode(body, type=OutboxMessage)
    except msgspec.MsgspecError as error:
        # Without its content: it may have what a sender said, and where.
        _log.error("a message in the outbox cannot be read", why=str(error), size=len(body))
        return None


def post(transaction: Transaction, message: OutboxMessage) -> None:
    """Add `message` with the commit of `transaction`."""
    transaction.call("ZADD", transaction.keys.outbox, message.due_ms, message.id)
    transaction.call(
        "HSET", transaction.keys.outbox_messages, message.id, msgspec.msgpack.encode(message)
    )
