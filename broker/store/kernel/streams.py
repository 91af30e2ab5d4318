"""The streams between services, one for each reader; entries of dead workers are taken over."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from broker.core import changes
from broker.core.changes import Event, Routes
from broker.errors import UnavailableError
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction

_CLAIMED_MS = 1_000
_FORGOTTEN_MS = 3_600_000  # a reader asks each second


class StreamEntry(NamedTuple):
    """One entry of the stream; `event` is None when `data` cannot be read.

    `replay_of` is the dead letter that was put back on the stream, if it is a replay.
    """

    id: str
    event: Event | None
    data: bytes
    replay_of: UUID | None = None


class Events:
    """The streams of one partition. Each has one consumer group, named as its service."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def ensure_groups(self) -> None:
        """Create the consumer groups that do not exist yet, from the beginning of the stream."""
        for reader in _needed(self._redis.routes).readers:
            stream = self._keys.events(reader)
            try:
                await self._redis.call("XGROUP", "CREATE", stream, reader, "0", "MKSTREAM")
            except UnavailableError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def put(self, several: Sequence[Event]) -> None:
        """Put events on their readers' streams, all or none."""
        transaction = Transaction(self._redis)
        for event in several:
            emit(transaction, event)
        await transaction.run()

    async def replay(self, group: str, data: bytes, replay_of: UUID) -> None:
        """Put a dead letter's event back on its stream; the letter is deleted once it has worked."""
        stream = self._keys.events(group)
        await self._redis.call("XADD", stream, "*", "e", data, "replay", str(replay_of))

    async def read(
        self, group: str, consumer: str, *, count: int, block_ms: int = 0
    ) -> list[StreamEntry]:
        """Return up to `count` new entries for `group`; waits at most `block_ms` for the first."""
        words = ("XREADGROUP", "GROUP", group, consumer, "COUNT", count)
        stream = ("STREAMS", self._keys.events(group), ">")
        if block_ms:
            answer = await self._redis.blocking(
                consumer, block_ms, *words, "BLOCK", block_ms, *stream
            )
        else:
            answer = await self._redis.call(*words, *stream)
        return _entries(answer[0][1]) if answer else []

    async def own_pending(self, group: str, consumer: str, *, count: int) -> list[StreamEntry]:
        """Return entries that `consumer` was given before and has not acknowledged."""
        answer = await self._redis.call(
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            self._keys.events(group),
            "0",
        )
        return _entries(answer[0][1]) if answer else []

    async def take_over(
        self, group: str, consumer: str, *, idle_ms: int, count: int
    ) -> list[StreamEntry]:
        """Take over and return entries that a consumer has not acknowledged for `idle_ms`."""
        answer = await self._redis.call(
            "XAUTOCLAIM", self._keys.events(group), group, consumer, idle_ms, "0", "COUNT", count
        )
        return _entries(answer[1])

    async def take_over_from(
        self, group: str, consumer: str, gone: Collection[str], *, count: int
    ) -> list[StreamEntry]:
        """Take over entries that workers which are gone have left unacknowledged, and return them.

        `gone` are instances; a consumer's name is its instance and a number. Consumers without
        entries are deleted, and those that have been idle for `_FORGOTTEN_MS`.
        """
        stream = self._keys.events(group)
        for row in await self._redis.call("XINFO", "CONSUMERS", stream, group):
            about = dict(zip(row[::2], row[1::2], strict=True))
            name = about[b"name"].decode()
            is_gone = name.rpartition("-")[0] in gone
            if not about[b"pending"] and (is_gone or about[b"idle"] > _FORGOTTEN_MS):
                await self._redis.script("forget", [stream], [group, name])
            if not about[b"pending"] or not is_gone:
                continue
            left = await self._redis.call("XPENDING", stream, group, "-", "+", count, name)
            claim = ("XCLAIM", stream, group, consumer, _CLAIMED_MS)  # a second claimant gets none
            claimed = await self._redis.call(*claim, *(one[0] for one in left)) if left else ()
            if entries := _entries([one for one in claimed if one]):
                return entries
        return []

    async def consumers(self, group: str) -> list[str]:
        """Return the names of all consumers of `group` that still exist."""
        rows = await self._redis.call("XINFO", "CONSUMERS", self._keys.events(group), group)
        return [row[row.index(b"name") + 1].decode() for row in rows]

    async def acknowledge(self, group: str, identifiers: Sequence[str]) -> None:
        """Acknowledge and remove these entries, whose effects are done."""
        if not identifiers:
            return
        transaction = Transaction(self._redis)
        transaction.call("XACK", self._keys.events(group), group, *identifiers)
        transaction.call("XDEL", self._keys.events(group), *identifiers)
        await transaction.run()

    async def backlog(self, group: str) -> tuple[int, int]:
        """Return how many entries are not done, and how many of those a worker is handling."""
        stream = self._keys.events(group)
        length, pending = await self._redis.calls([("XLEN", stream), ("XPENDING", stream, group)])
        return int(length), int(pending[0])

    async def length(self, group: str) -> int:
        """Return how many entries are not done."""
        return int(await self._redis.call("XLEN", self._keys.events(group)))


def _entries(rows: Sequence[Any]) -> list[StreamEntry]:
    return [_entry(identifier, fields) for identifier, fields in rows if fields is not None]


def _entry(identifier: bytes, fields: Sequence[bytes]) -> StreamEntry:
    data = fields[1] if len(fields) > 1 else b""
    try:
        event: Event | None = changes.decode(data)
    except msgspec.MsgspecError:
        event = None
    replay_of = UUID(fields[3].decode()) if len(fields) > 3 else None
    return StreamEntry(identifier.decode(), event, data, replay_of)


def emit(transaction: Transaction, event: Event) -> None:
    """Put `event` on its readers' streams with the commit of `transaction`."""
    data = changes.encode(event)
    for reader in _needed(transaction.routes).readers_of(event):
        transaction.call("XADD", transaction.keys.events(reader), "*", "e", data)


def _needed(routes: Routes | None) -> Routes:
    """Return the routes. An event that is written without them would silently reach no reader."""
    if routes is None:
        raise RuntimeError("this store was opened without routes: it cannot write events")
    return routes
