"""Which presence holds when several workers apply one person's messages, each in an order of its own.

An MQTT broker deals a share group's messages out: what a device said first may be applied last.
"""

import asyncio
import random
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import pytest

from broker.core.grid import filed, place_of
from broker.store import Partitions, Store, Update, open_partitions
from broker.store.kernel.keys import Keys
from schemas.messages import Availability
from services import routes
from services.presence import worth_applying
from tests.core.samples import north
from tests.store.samples import NOW_MS

PRESENCE_S = 900
FIRST_MS = NOW_MS - 60_000
HERE, NEAR = (place_of(one.lat, one.lon) for one in (north(0), north(400)))
FAR = next(  # in another partition, of two
    place
    for place in (place_of(north(metres).lat, north(metres).lon) for metres in count(0, 1_000))
    if Keys(0, 2).owns(place) != Keys(0, 2).owns(HERE)
)
PLACES = [HERE, NEAR, FAR]


class Said(NamedTuple):
    """What a device says: a place of `PLACES`, or None to hide; at so many seconds."""

    place: int | None
    at: int

    def update(self, user: str) -> Update:
        at_ms = FIRST_MS + self.at * 1000
        if self.place is None:
            return Update(user, None, Availability.MUTED, at_ms)
        return Update(user, PLACES[self.place], Availability.AVAILABLE, at_ms)


Batches = list[list[Said]]


def drawn(chance: random.Random, workers: int) -> list[Batches]:
    """What each worker is given of what one device has said, in batches."""

    def batch() -> list[Said]:
        return [
            Said(chance.choice([None, 0, 1, 2]), chance.randrange(6))
            for _ in range(chance.randint(1, 3))
        ]

    return [[batch() for _ in range(chance.randint(1, 3))] for _ in range(workers)]


async def where(stores: Partitions, user: str, workers: Sequence[Batches]) -> int | None:
    """Return the place in effect after all batches, each worker applying its own at the same time."""

    async def work(mine: Batches) -> None:
        for batch in mine:
            updates = worth_applying([one.update(user) for one in batch], NOW_MS)
            await stores.update(updates, now_ms=NOW_MS, presence_s=PRESENCE_S)

    await asyncio.gather(*map(work, workers))
    cells = [filed(place)[0] for place in PLACES]
    people = [one for store in stores for one in await store.presence.near(cells)]
    held = [one.place for one in people if one.user == user]
    assert len(held) <= 1, f"an old place stays somewhere after {workers}"
    return PLACES.index(held[0]) if held else None


def newest(some: Sequence[Said], *, hidden: bool) -> int:
    """When the newest place, or withdrawal, was said; -1: there is none."""
    return max((one.at for one in some if (one.place is None) == hidden), default=-1)


@pytest.mark.parametrize("parts", [1, 2])
async def test_no_order_brings_back_a_place_that_is_not_newer_than_every_withdrawal(
    redis_url: str, parts: int
) -> None:
    async def check(stores: Sequence[Store], seed: int) -> None:
        chance = random.Random(seed)
        workers = drawn(chance, chance.randint(1, 3))
        everything = [one for batches in workers for batch in batches for one in batch]

        place = await where(stores, f"user-{seed}", workers)

        placed, hid = newest(everything, hidden=False), newest(everything, hidden=True)
        if place is None:
            assert hid >= 0, workers  # nobody is forgotten who never withdrew
        else:
            assert placed > hid, workers  # at equal times the withdrawal holds
            assert Said(place, placed) in everything, workers  # of places the newest

    async with open_partitions(redis_url, parts, routes=routes()) as stores:
        await asyncio.gather(*(check(stores, seed) for seed in range(300)))


@pytest.mark.parametrize("parts", [1, 2])
async def test_a_place_that_is_newer_than_all_and_comes_after_every_withdrawal_is_in_effect(
    redis_url: str, parts: int
) -> None:
    async def check(stores: Sequence[Store], seed: int) -> None:
        [batches] = drawn(random.Random(seed), 1)
        last = Said(1, 6)
        assert await where(stores, f"user-{seed}", [[*batches, [last]]]) == last.place, batches

    async with open_partitions(redis_url, parts, routes=routes()) as stores:
        await asyncio.gather(*(check(stores, seed) for seed in range(100)))
