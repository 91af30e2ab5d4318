"""The stream between services: consumer groups, take-over from the dead, and trimming."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from broker import events
from broker.errors import UnavailableError
from broker.events import Event
from broker.store import keys
from broker.store.redis import Connection
from broker.store.transaction import Transaction

GROUPS = ("alerting", "groups", "police", "city")


class Entry(NamedTuple):
    """One entry of the stream; `event` is None when it is none of ours (`data` is kept for that)."""

    id: str
    event: Event | None
    data: bytes


class Events:
    """The stream of one partition."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis

    async def ensure_groups(self) -> None:
        """Create the consumer groups that do not exist yet, from the beginning of the stream."""
        for group in GROUPS:
            try:
                await self._redis.call("XGROUP CREATE", keys.EVENTS, group, "0", "MKSTREAM")
            except UnavailableError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def put(self, events: Sequence[Event]) -> None:
        """Put `events` on the stream, all or none."""
        transaction = Transaction()
        for event in events:
            emit(transaction, event)
        await transaction.run(self._redis)

    async def read(self, group: str, consumer: str, *, count: int, block_ms: int) -> list[Entry]:
        """Return up to `count` new entries for `group`; waits at most `block_ms` for the first."""
        answer = await self._redis.call(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", block_ms,
            "STREAMS", keys.EVENTS, ">",
        )  # fmt: skip
        return _entries(answer[0][1]) if answer else []

    async def own_pending(self, group: str, consumer: str, *, count: int) -> list[Entry]:
        """Return entries that `consumer` was given before and has not acknowledged."""
        answer = await self._redis.call(
            "XREADGROUP", "GROUP", group, consumer, "COUNT", count, "STREAMS", keys.EVENTS, "0"
        )
        return _entries(answer[0][1]) if answer else []

    async def take_over(
        self, group: str, consumer: str, *, idle_ms: int, count: int
    ) -> list[Entry]:
        """Return entries that some consumer has left unacknowledged for `idle_ms`, now ours."""
        answer = await self._redis.call(
            "XAUTOCLAIM", keys.EVENTS, group, consumer, idle_ms, "0", "COUNT", count
        )
        return _entries(answer[1])

    async def acknowledge(self, group: str, identifiers: Sequence[str]) -> None:
        """Record that the effects of these entries are done."""
        if identifiers:
            await self._redis.call("XACK", keys.EVENTS, group, *identifiers)

    async def trim(self) -> None:
        """Forget the entries that every group has acknowledged."""
        oldest: list[tuple[int, int]] = []
        for info in await self._redis.call("XINFO GROUPS", keys.EVENTS):
            fields = _fields(info)
            pending = await self._redis.call("XPENDING", keys.EVENTS, fields["name"])
            first = pending[1] if pending[0] else fields["last-delivered-id"]
            milliseconds, _, number = first.decode().partition("-")
            oldest.append((int(milliseconds), int(number)))
        if oldest:
            await self._redis.call("XTRIM", keys.EVENTS, "MINID", "{}-{}".format(*min(oldest)))


def _fields(info: Any) -> dict[str, Any]:
    if isinstance(info, dict):
        return {_text(key): value for key, value in info.items()}
    return {_text(info[i]): info[i + 1] for i in range(0, len(info), 2)}


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _entries(rows: Sequence[Any]) -> list[Entry]:
    return [_entry(identifier, fields) for identifier, fields in rows if fields is not None]


def _entry(identifier: bytes, fields: Sequence[bytes]) -> Entry:
    data = fields[1] if len(fields) > 1 else b""
    try:
        event: Event | None = events.decode(data)
    except msgspec.MsgspecError:
        event = None
    return Entry(identifier.decode(), event, data)


def emit(transaction: Transaction, event: Event) -> None:
    """Put `event` on the stream with the commit of `transaction`."""
    transaction.call("XADD", keys.EVENTS, "*", "e", events.encode(event))
