"""Messages that must reach their reader: added with the commit, removed when the reader confirms.

The service that commits also publishes at once. The reader is a desk, or a user who was asked. What
it has not confirmed by id in time the relay service sends again (`broker/core/resending.py`). A
PUBACK changes nothing: an MQTT broker gives it if any client has subscribed. Readers drop repeats
by id.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from uuid import UUID

import msgspec
import structlog

from broker.core.resending import GRACE_MS, LAST_RETRY_MS, NEW, Pacing, Progress
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from broker.store.outbox_messages import Due, DutyDesk, OutboxMessage, Reader, Turn, Undelivered

_log = structlog.get_logger()

_AT_ONCE = 1_000  # Lua's unpack has a limit
_ASKED_MS = 0  # due since ever: its reader lacks it


class Outbox:
    """The outbox of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    # -- sending again ----------------------------------------------------------------------------

    async def take(
        self, now_ms: int, *, duty: DutyDesk | None = None, limit: int = 1_000
    ) -> list[Due]:
        """Return messages to send by `now_ms`, oldest first; those for desks are undelivered.

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
            asked = {name for name, score in scores.items() if score == _ASKED_MS}
            due = await self._due(found.values(), asked, now_ms, duty)
            if await self._postpone(scores, found, due, now_ms):
                return [one for one in due.values() if one.is_sent]
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

    async def _due(
        self, bodies: Iterable[bytes], asked: Collection[str], now_ms: int, duty: DutyDesk | None
    ) -> dict[str, Due]:
        """Decide what is done with each message that can be read."""
        messages = [message for body in bodies if (message := _decoded(body))]
        desks = {one.reader for one in messages if one.reader.is_desk}
        progress, due_ms = await asyncio.gather(
            self._progress({*desks, duty.reader} if duty else desks),
            self._due_ms(messages, now_ms),
        )
        pacing = Pacing({str(desk): known for desk, known in progress.items()}, now_ms)
        turn = Turn(now_ms, pacing, duty)
        return {
            one.id: turn.decide(one, late_ms=now_ms - due_ms[one.id], is_asked=one.id in asked)
            for one in messages
        }

    async def _progress(self, desks: Collection[Reader]) -> dict[Reader, Progress]:
        """Return how far those of the desks are that ever confirmed a message."""
        if not desks:
            return {}
        known = await self._redis.call("HMGET", self._keys.desk_progress, *map(str, desks))
        return {desk: Progress.parse(text) for desk, text in zip(desks, known, strict=True) if text}

    async def _due_ms(self, messages: Iterable[OutboxMessage], now_ms: int) -> dict[str, int]:
        """Return when each message was due (ms), by the present clock.

        An adopted jump of the clock makes nothing older: what is a second old is sent within
        seconds.
        """
        jump = await self._redis.call("GET", self._keys.jump)
        until_ms, by_ms = map(int, jump.split()) if jump else (0, 0)

        def is_before(due_ms: int) -> bool:
            return due_ms <= until_ms + GRACE_MS if by_ms > 0 else due_ms > now_ms

        return {one.id: one.due_ms + by_ms * is_before(one.due_ms) for one in messages}

    async def _postpone(
        self,
        scores: Mapping[str, int],
        found: Mapping[str, bytes],
        due: Mapping[str, Due],
        now_ms: int,
    ) -> bool:
        """Set messages for later; False if one of them has changed since it was read."""
        transaction = Transaction(self._redis)
        for name, score in scores.items():
            transaction.require_score(self._keys.outbox, name, score)
            if name not in found:
                transaction.call("ZREM", self._keys.outbox, name)
                transaction.call("HDEL", self._keys.outbox_tries, name)
                continue
            one = due.get(name)
            wait_ms = one.wait_ms if one else LAST_RETRY_MS
            transaction.call("ZADD", self._keys.outbox, now_ms + wait_ms, name)
            if one is None:
                continue  # it cannot be read
            if one.is_sent:
                transaction.call("HINCRBY", self._keys.outbox_tries, name, 1)
            if one.message.reader.is_desk and not one.message.attended:
                transaction.require_field(self._keys.outbox_messages, name, found[name])
                self._add_undelivered(transaction, one.message)
            if one.message.reader.is_desk and (sent := one.sent(now_ms)) != one.message:
                self._rewrite(transaction, sent)
        return await transaction.run() is not None

    def _rewrite(self, transaction: Transaction, message: OutboxMessage) -> None:
        body = msgspec.msgpack.encode(message)
        transaction.call("HSET", self._keys.outbox_messages, message.id, body)

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

    async def send_again(self, reader: Reader, *, but: Collection[str]) -> int:
        """Have all sent now that `reader` has not confirmed, except `but`; return how many."""
        some = await self._redis.calls(
            ("ZRANGE", key, 0, -1) for key in self._waiting_for(str(reader))
        )
        names = [name.decode() for part in some for name in part if name.decode() not in but]
        transaction = Transaction(self._redis)
        for name in names:
            transaction.call("ZADD", self._keys.outbox, "XX", _ASKED_MS, name)
        if names:
            await transaction.run()
        return len(names)

    # -- the reader's word ------------------------------------------------------------------------

    async def confirm(
        self, said: Mapping[Reader, Collection[str]], *, now_ms: int, duty: Reader | None = None
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
        if delivered or attended:
            progress = await self._progress_after(delivered, attended, duty, now_ms)
            await self.remove(delivered, progress)
        for message in attended:
            await self._attend(message)
        return delivered

    async def _progress_after(
        self,
        delivered: Sequence[OutboxMessage],
        attended: Sequence[OutboxMessage],
        duty: Reader | None,
        now_ms: int,
    ) -> dict[Reader, Progress]:
        """Return how far the desks are that confirm these messages now."""
        for_desks = [message for message in delivered if message.reader.is_desk]
        desks = {message.reader for message in for_desks} | ({duty} if duty else set())
        tries, known = await asyncio.gather(self.tries(for_desks), self._progress(desks))
        sent: dict[Reader, list[int]] = defaultdict(list)
        once: dict[Reader, list[int]] = defaultdict(list)
        for message, count in zip(for_desks, tries, strict=True):
            first_ms = message.sent_ms or message.made_ms
            sent[message.reader].append(first_ms)
            once[message.reader] += [] if count else [first_ms]
        for message in attended:
            if duty and message.climbed_ms:
                sent[duty].append(message.climbed_ms)
        return {
            desk: known.get(desk, NEW).after(sent_ms, once[desk], now_ms)
            for desk, sent_ms in sent.items()
        }

    async def remove(
        self,
        messages: Sequence[OutboxMessage],
        progress: Mapping[Reader, Progress] = MappingProxyType({}),
    ) -> None:
        """Remove messages for good, and record how far their readers are: in one write."""
        transaction = Transaction(self._redis)
        for desk, known in progress.items():
            transaction.call("HSET", self._keys.desk_progress, str(desk), str(known))
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
        if messages or progress:
            await transaction.run()

    async def _attend(self, message: OutboxMessage) -> None:
        reader = str(message.reader)
        while body := await self._redis.call("HGET", self._keys.outbox_messages, message.id):
            known = _decoded(body)
            if known is None:
                return
            transaction = Transaction(self._redis)
            transaction.require_field(self._keys.outbox_messages, message.id, body)
            self._rewrite(transaction, msgspec.structs.replace(known, attended=True))
            transaction.call("ZREM", self._keys.undelivered(reader), message.id)
            transaction.call("ZADD", self._keys.attended(reader), message.made_ms, message.id)
            if await transaction.run() is not None:
                return

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
