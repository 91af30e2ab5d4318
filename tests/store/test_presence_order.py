"""Which presence holds when several workers apply one person's messages, each in an order of its own.

An MQTT broker deals a share group's messages out: what a device said first may be applied last.
"""

import asyncio
import random
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import pytest

from broker.core.grid import filed, place_of
from broker.store import Partitions, Store, Update, open_partitions
from broker.store.kernel.keys import Keys
from broker.store.positions import Hit
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


@pytest.mark.parametrize("waits", [None, 0, 1])
@pytest.mark.parametrize("order", [(HERE, FAR), (FAR, HERE)])
async def test_of_two_places_of_one_time_on_both_sides_of_a_border_one_is_forgotten(
    redis_url: str, order: tuple[int, int], waits: int | None
) -> None:
    """Each by a worker of its own; in the partition `waits` the first worker comes last."""
    first, second = (Update("ann", place, Availability.AVAILABLE, NOW_MS) for place in order)
    async with open_partitions(redis_url, 2, routes=routes()) as stores:
        if waits is None:
            await applied(stores, first)
            await applied(stores, second)
        else:
            await applied_behind(stores, first, second, waits)
        await assert_one_place(stores)
        await applied(stores, first, repeated=True)
        await assert_one_place(stores)


async def test_who_died_before_the_old_place_was_forgotten_is_made_up_for_by_the_repeat(
    redis_url: str,
) -> None:
    old, new = (
        Update("ann", place, Availability.AVAILABLE, NOW_MS + seconds)
        for seconds, place in enumerate((FAR, HERE))
    )
    async with open_partitions(redis_url, 2, routes=routes()) as stores:
        await applied(stores, old)
        await stores._moved([new], NOW_MS + 1, PRESENCE_S)  # and dies

        await applied(stores, new)

        assert await assert_one_place(stores) == HERE


async def applied(stores: Partitions, update: Update, *, repeated: bool = False) -> None:
    """Apply an update, as a worker does."""
    for _ in range(1 + repeated):
        await stores.update([update], now_ms=NOW_MS + 1, presence_s=PRESENCE_S)


async def applied_behind(stores: Partitions, first: Update, second: Update, waits: int) -> None:
    """Apply both; in the partition `waits` what the first writes comes after all of the second."""
    store, done = stores[waits], asyncio.Event()
    honest = store.presence.update

    async def behind(updates: Sequence[Update], **more: Any) -> list[Hit]:
        if first in updates:
            await done.wait()
        return await honest(updates, **more)

    store.presence.update = behind  # type: ignore[method-assign]
    slow = asyncio.create_task(applied(stores, first))
    await asyncio.sleep(0.05)
    await applied(stores, second)
    done.set()
    await slow


async def assert_one_place(stores: Partitions) -> int:
    """Assert that one partition has one place of ann's, and return it."""
    cells = [filed(place)[0] for place in PLACES]
    people = [one for store in stores for one in await store.presence.near(cells)]
    [place] = [one.place for one in people]
    return place
