"""Positions are forgotten when their time is over, and not before."""

import asyncio
import random
import time

import pytest
import redis

from broker.core.grid import filed
from broker.store import Store, Update, open_partitions
from schemas.messages import Availability
from services import routes
from tests.store.places import AROUND, MUTED, ON, PLACES, PRESENCE_S, assert_one_place_each, moved
from tests.store.samples import NOW_MS


async def test_sweep_forgets_who_is_stale_and_nobody_else_while_they_come_back(
    store: Store, other_store: Store, client: redis.Redis
) -> None:
    users = [f"u-{n}" for n in range(200)]
    now_ms = NOW_MS + PRESENCE_S * 1000
    old = [
        Update(user, PLACES[n % len(PLACES)], ON, NOW_MS - n % 2) for n, user in enumerate(users)
    ]
    await store.presence.update(old, now_ms=NOW_MS, presence_s=PRESENCE_S)
    back = [Update(user, PLACES[(n * 7) % len(PLACES)], ON, now_ms) for n, user in enumerate(users)]

    async def come_back() -> None:
        for update in back[::4]:
            await other_store.presence.update([update], now_ms=now_ms, presence_s=PRESENCE_S)

    await asyncio.gather(
        come_back(),
        *(store.presence.sweep(now_ms=now_ms, presence_s=PRESENCE_S) for _ in range(8)),
    )

    found = await store.presence.near(AROUND)
    assert {person.user for person in found} == {update.user for update in back[::4]}
    assert {person.seen_ms for person in found} == {now_ms}
    assert_one_place_each(client)


async def test_who_has_not_been_heard_of_is_forgotten_in_every_partition(
    redis_url: str, client: redis.Redis
) -> None:
    """Also in which partition they were: a bucket that others keep alive held it for ever."""
    stale, fresh = NOW_MS - PRESENCE_S * 1000, NOW_MS - 1_000
    async with open_partitions(redis_url, 2, routes=routes()) as stores:
        everywhere = stores
        updates = [
            Update("gone", PLACES[0], ON, stale),
            Update("hidden", None, MUTED, stale),
            Update("here", PLACES[0], ON, fresh),
        ]
        await everywhere.update(updates, now_ms=NOW_MS, presence_s=PRESENCE_S)
        for store in stores:
            await store.presence.sweep(now_ms=NOW_MS, presence_s=PRESENCE_S)

        assert [one.user for one in await everywhere.near(AROUND)] == ["here"]
    known = {
        user
        for key in client.scan_iter("nabij:*")
        if client.type(key) == "hash"
        for user in client.hkeys(key)
    }
    assert known & {"gone", "hidden", "here"} == {"here"}


async def test_place_one_millisecond_before_its_time_is_over_stays(store: Store) -> None:
    await moved(store, "ann", PLACES[0], NOW_MS)
    await moved(store, "bob", PLACES[0], NOW_MS + 1)

    forgotten = await store.presence.sweep(now_ms=NOW_MS + PRESENCE_S * 1000, presence_s=PRESENCE_S)

    assert forgotten == 2  # ann, in at: and in where:
    assert [person.user for person in await store.presence.near(AROUND)] == ["bob"]


async def test_positions_expire_by_themselves_and_are_no_coordinates(
    store: Store, client: redis.Redis
) -> None:
    await moved(store, "ann", PLACES[0], NOW_MS)
    kept = client.keys("nabij:{p0}:at:*") + client.keys("nabij:{p0}:where:*")

    assert len(kept) == 2
    assert all(0 < client.pttl(key) <= PRESENCE_S * 1200 for key in kept)
    assert "." not in "".join(str(client.hgetall(key)) for key in kept)


@pytest.mark.parametrize("seed", range(3))
async def test_no_key_ends_before_its_newest_entry_nor_much_later(
    store: Store, client: redis.Redis, seed: int
) -> None:
    chance = random.Random(seed)
    began_s, skipped_ms = time.monotonic(), 0

    def now_ms() -> int:  # Redis' clock cannot be turned: the model's runs beside it, and leaps
        return NOW_MS + skipped_ms + int((time.monotonic() - began_s) * 1_000)

    def newest_ms(key: str) -> int | None:
        place_in = 2 if ":at:" in key else 3
        entries: list[str] = client.hvals(key)
        return max((int(entry.split()[place_in]) for entry in entries), default=None)

    for _ in range(60):
        leap_ms = chance.choice([0, 1, 1_000, PRESENCE_S * 100, PRESENCE_S * 500])
        skipped_ms += leap_ms
        for key in client.scan_iter("nabij:{p0}:[aw]*"):
            left_ms, newest = client.pttl(key) - leap_ms, newest_ms(key)
            assert newest is None or left_ms > 0 or newest + PRESENCE_S * 1000 <= now_ms()
            client.pexpire(key, max(0, left_ms))
        for user in chance.sample(["ann", "bob", "carl", "dora"], 2):
            place = chance.choice([None, *PLACES[:3]])
            at_ms = now_ms() - chance.choice([0, 0, 5_000])
            update = Update(user, place, Availability.AVAILABLE, at_ms)
            await store.presence.update([update], now_ms=now_ms(), presence_s=PRESENCE_S)
        if chance.random() < 0.2:
            await store.presence.sweep(now_ms=now_ms(), presence_s=PRESENCE_S)
        for key in client.scan_iter("nabij:{p0}:[aw]*"):
            newest, left_ms = newest_ms(key), client.pttl(key)
            if newest is not None:  # else its end has just come
                assert newest + PRESENCE_S * 1000 - now_ms() - 10 <= left_ms <= PRESENCE_S * 1200


async def test_a_place_that_cannot_be_read_hides_nobody_else_and_is_swept(
    store: Store, client: redis.Redis
) -> None:
    await moved(store, "ann", PLACES[0], NOW_MS)
    cell, _ = filed(PLACES[0])
    client.hset(f"nabij:{{p0}}:at:{cell:x}", "eve", "nonsense")

    assert [person.user for person in await store.presence.near(AROUND)] == ["ann"]
    assert await store.presence.sweep(now_ms=NOW_MS, presence_s=PRESENCE_S) == 1
    assert client.hkeys(f"nabij:{{p0}}:at:{cell:x}") == ["ann"]
