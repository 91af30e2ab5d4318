"""Where people are: batched updates, who is in these cells, and forgetting."""

import enum
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from broker.core.grid import centre_of, filed, removed
from broker.core.recipients import Located
from broker.store.kernel import keys
from broker.store.kernel.isolation import readable
from broker.store.kernel.msgpack import pack
from broker.store.kernel.redis_connection import RedisConnection, Word
from schemas.messages import Availability

_SHORT = {
    Availability.ON_DUTY: "d",
    Availability.AVAILABLE: "a",
    Availability.MUTED: "m",
    Availability.AWAY: "w",
}
_LONG = {short.encode(): availability for availability, short in _SHORT.items()}
_UPDATES_PER_CALL = 100  # where many incidents are open, each update looks at all of them
_CELLS_PER_CALL = 1_000  # a read of more cells would hold up every other client
_SWEEP_COUNT = 500
_AHEAD_MS = 300_000  # how far a withdrawal's clock may be ahead; later places are refused


class Update(NamedTuple):
    """A participant's new place (H3, resolution 10), or None to forget it (muted, away).

    `at_ms` is the Unix time that the device gave, ahead of ours or not. A user who `crossed` a
    border has a new place in another partition. With several MQTT brokers, `broker_index` is the
    one by which it came.
    """

    user: str
    place: int | None
    availability: Availability
    at_ms: int
    crossed: bool = False
    broker_index: int = 0


class Before(enum.Enum):
    """What else than a partition may have been before."""

    LATER = "later"  # a newer update has come, or this is a repeat: it changes nothing
    SAME = (
        "same"  # this is a repeat: who first had it in hand may have died before the old place went
    )


_BEFORE = {-1: None, -2: Before.LATER, -3: Before.SAME}


class Hit(NamedTuple):
    """A user who may have come into an open incident: `place` is to be measured."""

    user: str
    place: int
    incident: UUID
    lat: float
    lon: float
    radius_m: float


class PositionStore:
    """The people of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def update(self, updates: Sequence[Update], *, now_ms: int, presence_s: int) -> list[Hit]:
        """Apply a batch in order; return the users whom open incidents may now reach.

        A place that is older than the one in effect, or not newer than the last withdrawal, changes
        nothing. A withdrawal always counts, once: one with the same `at_ms` is a repeat.

        Calls are sent one after another: Redis answers everything from one connection before it
        turns to a report on another.
        """
        hits: list[Hit] = []
        for first in range(0, len(updates), _UPDATES_PER_CALL):
            part = updates[first : first + _UPDATES_PER_CALL]
            hits += await self._update(part, now_ms, presence_s)
        return hits

    async def _update(self, updates: Sequence[Update], now_ms: int, presence_s: int) -> list[Hit]:
        each: list[Word | float] = []
        for update in updates:
            if update.place is None:
                where, child, centre = ">" if update.crossed else "", "-", (0.0, 0.0)
            else:
                cell, number = filed(update.place)
                where, child, centre = f"{cell:x}", str(number), centre_of(update.place)
            how = f"{_SHORT[update.availability]}{update.broker_index or ''}"
            bucket = str(keys.where_bucket(update.user))
            each += (update.user, bucket, where, child, how, _at_ms(update, now_ms), update.at_ms)
            each += centre
        words = (self._keys.prefix, now_ms, presence_s * 1000, pack(each))
        rows = await self._redis.script("presence", [self._keys.open_incidents], words)
        return [*readable(rows, partial(_hit, updates), what="an open incident")]

    async def moved(
        self, moves: Sequence[tuple[Update, int | None]], *, now_ms: int, presence_s: int
    ) -> list[int | Before | None]:
        """Record the partition that each user has moved to (None: withdrawn); return the one before.

        For users who hash to this partition; their places may be in any.
        """
        found: list[int | Before | None] = []
        for first in range(0, len(moves), _UPDATES_PER_CALL):
            words: list[Word] = [self._keys.prefix, presence_s * 1000]
            for update, partition in moves[first : first + _UPDATES_PER_CALL]:
                bucket = keys.where_bucket(update.user)
                words += (update.user, bucket, "" if partition is None else partition)
                words += (_at_ms(update, now_ms), update.at_ms)
            rows = await self._redis.script("moved", [self._keys.home(0)], words)
            found += [_BEFORE.get(row, row) for row in rows]
        return found

    async def near(self, cells: Sequence[int]) -> list[Located]:
        """Return all users who are filed under these cells of resolution 9."""
        people: list[Located] = []
        for first in range(0, len(cells), _CELLS_PER_CALL):
            some = cells[first : first + _CELLS_PER_CALL]
            answer = await self._redis.script("near", [self._keys.at(cell) for cell in some], ())
            for position in range(0, len(answer), 2):
                cell, row = some[int(answer[position]) - 1], answer[position + 1]
                pairs = zip(row[::2], row[1::2], strict=True)
                people.extend(readable(pairs, partial(_located, cell), what="a place"))
        return people

    async def sweep(self, *, now_ms: int, presence_s: int) -> int:
        """Forget every place that is older than `presence_s`; return how many were forgotten."""
        oldest_ms = now_ms - presence_s * 1000
        families = (("at", 3), ("where", 4), ("home", 2))  # each with the index of its time
        return sum([await self._sweep(family, word, oldest_ms) for family, word in families])

    async def _sweep(self, family: str, time_at: int, oldest_ms: int) -> int:
        forgotten, cursor = 0, b"0"
        while True:
            cursor, found = await self._redis.call(
                "SCAN", cursor, "MATCH", f"{self._keys.prefix}{family}:*", "COUNT", _SWEEP_COUNT
            )
            for key in found:
                forgotten += await self._redis.script("sweep", [key.decode()], [time_at, oldest_ms])
            if int(cursor) == 0:
                return forgotten


def _at_ms(update: Update, now_ms: int) -> int:
    """Return the time that counts: a place's is never ahead of ours, a withdrawal's is bounded."""
    ahead_ms = _AHEAD_MS if update.place is None and not update.crossed else 0
    return max(0, min(update.at_ms, now_ms + ahead_ms))


def _located(cell: int, row: tuple[bytes, bytes]) -> Located:
    user, filed_as = row
    child, how, at_ms = filed_as.split(b" ")
    availability = _LONG.get(how)
    if availability is not None:  # the only MQTT broker, or the first of several
        return Located(user.decode(), removed(cell, int(child)), int(at_ms), availability)
    return Located(
        user.decode(), removed(cell, int(child)), int(at_ms), _LONG[how[:1]], int(how[1:])
    )


def _hit(updates: Sequence[Update], row: tuple[int, bytes, bytes, bytes]) -> Hit:
    number, incident, entry, place = row
    update = updates[int(number)]
    if place == b"new":
        assert update.place is not None
        where = update.place
    else:
        cell, child = place.split()
        where = removed(int(cell, 16), int(child))
    lat, lon, radius_m, _ = entry.decode().split(" ")
    return Hit(update.user, where, UUID(incident.decode()), float(lat), float(lon), float(radius_m))
