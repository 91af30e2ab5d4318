"""Deadlines fire once, messages in the outbox go out until recorded, zones are replaced at once."""

import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

import redis
from msgspec.structs import replace

from broker.core.zones import Zone, ZoneKind
from broker.store import Deadline, DeadlineKind, Posted, Store, fire, schedule
from broker.store.outbox import post
from schemas.ids import new_id
from tests.core.samples import START, at, report
from tests.store.samples import KEYS, NOW_MS, TIMERS, open_incident

ZONES = {kind: [Zone(id=f"{kind}-{n}", name=f"Zône {n}", kind=kind, cells=(n, 2**60 + n))
                for n in range(40)] for kind in ZoneKind}  # fmt: skip


async def scheduled(store: Store, kind: DeadlineKind, incident: UUID, minutes: float) -> None:
    transaction = store.transaction()
    schedule(transaction, incident, {kind: at(minutes)})
    await transaction.run()


async def test_deadlines_come_when_due_the_longest_overdue_first(store: Store) -> None:
    several = [new_id() for _ in range(3)]
    for minutes, identifier in zip((3, 1, 2), several, strict=True):
        await scheduled(store, DeadlineKind.WIDEN, identifier, minutes)

    assert await store.deadlines.due(NOW_MS + 59_999) == []
    assert [one.incident for one in await store.deadlines.due(NOW_MS + 120_000)] == [
        several[1], several[2],
    ]  # fmt: skip
    assert len(await store.deadlines.due(NOW_MS + 10**9, limit=2)) == 2


async def test_deadline_fires_once_under_two_workers(store: Store, other_store: Store) -> None:
    incident = await open_incident(store, report())
    fired: list[DeadlineKind] = []

    async def work(of: Store) -> None:
        for _ in range(5):
            for deadline in await of.deadlines.due(NOW_MS + 10**9):
                filed = await of.incidents.get(deadline.incident)
                assert filed is not None
                transaction = store.transaction()
                fire(transaction, deadline)
                after = replace(filed.incident, version=filed.incident.version + 1)
                if await of.incidents.change(
                    filed.incident, after, active_at=START, timers=TIMERS, transaction=transaction
                ):
                    fired.append(deadline.kind)

    await asyncio.gather(work(store), work(other_store))

    assert sorted(fired) == sorted([DeadlineKind.WIDEN, DeadlineKind.OVERDUE, DeadlineKind.SILENCE])
    assert await store.incidents.version(incident.id) == 4
    assert await store.deadlines.due(NOW_MS + 10**9) == []


async def test_deadline_set_anew_is_neither_dropped_nor_postponed_by_who_read_the_old_one(
    store: Store,
) -> None:
    incident = new_id()
    await scheduled(store, DeadlineKind.SILENCE, incident, 1)
    (old,) = await store.deadlines.due(NOW_MS + 60_000)
    await scheduled(store, DeadlineKind.SILENCE, incident, 5)

    await store.deadlines.drop(old)
    await store.deadlines.postpone(old, at(99))

    (new,) = await store.deadlines.due(NOW_MS + 10**9)
    assert new == Deadline(DeadlineKind.SILENCE, incident, NOW_MS + 300_000)
    await store.deadlines.postpone(new, at(99))
    (later,) = await store.deadlines.due(NOW_MS + 10**9)
    assert later.due_ms == NOW_MS + 99 * 60_000
    await store.deadlines.drop(later)
    assert await store.deadlines.due(NOW_MS + 10**9) == []


async def test_postponed_deadline_keeps_to_the_millisecond(store: Store) -> None:
    incident = new_id()
    await scheduled(store, DeadlineKind.WIDEN, incident, 0)
    (deadline,) = await store.deadlines.due(NOW_MS)
    await store.deadlines.postpone(deadline, START + timedelta(milliseconds=1))

    assert await store.deadlines.due(NOW_MS) == []
    assert len(await store.deadlines.due(NOW_MS + 1)) == 1


# -- outbox --------------------------------------------------------------------------------------


async def posted(store: Store, *messages: Posted) -> None:
    transaction = store.transaction()
    for message in messages:
        post(transaction, message)
    await transaction.run()


def message(number: int, due_ms: int = NOW_MS) -> Posted:
    return Posted(id=f"m-{number}", topic="a/b", payload=b"\0\xff{}", retain=True, due_ms=due_ms)


async def take(store: Store, now_ms: int, lease_ms: int = 0) -> list[Posted]:
    return await store.outbox.take(now_ms, lease_ms=lease_ms)


async def test_what_one_took_nobody_else_is_given_for_a_while(store: Store) -> None:
    await posted(store, message(1), message(2, NOW_MS + 1))

    both = await asyncio.gather(*(take(store, NOW_MS + 1, 500) for _ in range(4)))
    assert sorted(one.id for some in both for one in some) == ["m-1", "m-2"]
    assert await take(store, NOW_MS + 500) == []
    assert [one.id for one in await take(store, NOW_MS + 501)] == ["m-1", "m-2"]


async def test_a_message_that_cannot_be_read_holds_up_no_other(
    store: Store, client: redis.Redis
) -> None:
    await posted(store, message(1), message(2))
    client.hset("nabij:{p0}:outbox-messages", "m-1", b"\xc1")

    assert await take(store, NOW_MS) == [message(2)]
    assert await store.outbox.size() == 2


async def test_message_waits_in_the_outbox_until_it_is_recorded(store: Store) -> None:
    late, soon = message(1, NOW_MS + 5), message(2)
    await posted(store, late, soon)

    assert await take(store, NOW_MS - 1) == []
    assert await take(store, NOW_MS) == [soon]
    assert await take(store, NOW_MS + 5) == [soon, late]
    await store.outbox.published("m-2")
    assert await take(store, NOW_MS + 5) == [late]
    await store.outbox.published("m-1", "m-2", "unknown")
    assert await store.outbox.size() == 0


async def test_message_posted_twice_goes_out_once(store: Store, client: redis.Redis) -> None:
    await posted(store, message(1), message(1))

    assert await take(store, NOW_MS) == [message(1)]
    await store.outbox.published("m-1")
    assert await store.outbox.size() == 0
    await store.outbox.forget(int(time.time() * 1000) + 1)
    assert client.keys("nabij:{p0}:outbox*") == []


async def test_what_was_published_lately_can_be_published_again(store: Store) -> None:
    await posted(store, message(1), message(2))
    await store.outbox.published("m-1")
    now_ms = int(time.time() * 1000)

    assert await store.outbox.repeat(now_ms - 60_000, NOW_MS) == 1
    assert not await store.outbox.has_again(NOW_MS - 1)
    assert await store.outbox.has_again(NOW_MS)
    assert await store.outbox.forget(now_ms + 1) == 0
    assert await store.outbox.next_again(NOW_MS, 10) == 1
    assert await store.outbox.next_again(NOW_MS, 10) == 0
    assert {one.id for one in await take(store, NOW_MS)} == {"m-1", "m-2"}
    assert await store.outbox.forget(now_ms + 1) == 0


async def test_the_last_that_was_published_is_the_first_to_be_published_again(
    store: Store, client: redis.Redis
) -> None:
    several = [message(number) for number in range(1_200)]
    await posted(store, *several)
    await store.outbox.published(*(one.id for one in several))
    client.zadd("nabij:{p0}:outbox-sent", {one.id: NOW_MS + n for n, one in enumerate(several)})

    assert await store.outbox.repeat(NOW_MS + 100, NOW_MS) == 1_100
    assert await store.outbox.next_again(NOW_MS + 5_000, 3) == 3
    assert {one.id for one in await take(store, NOW_MS + 5_000)} == {"m-1199", "m-1198", "m-1197"}
    while await store.outbox.next_again(NOW_MS + 5_000, 500):
        pass
    assert await store.outbox.size() == 1_100


async def test_what_is_published_again_is_not_kept_any_longer_for_that(store: Store) -> None:
    """Else outages that come often would have everything published again for ever."""
    await posted(store, message(1))
    await store.outbox.published("m-1")
    first_ms = int(time.time() * 1000)

    assert await store.outbox.repeat(0, first_ms) == 1
    assert await store.outbox.forget(first_ms + 1) == 0  # it waits to be published again
    assert await store.outbox.next_again(first_ms, 1) == 1
    assert await take(store, first_ms) == [message(1)]
    await store.outbox.published("m-1")
    assert await store.outbox.repeat(first_ms + 1, first_ms) == 0
    assert await store.outbox.forget(first_ms + 1) == 1


async def test_what_was_forgotten_just_as_it_was_to_be_repeated_does_not_wait_for_ever(
    store: Store, client: redis.Redis
) -> None:
    await posted(store, message(1), message(2))
    client.hdel("nabij:{p0}:outbox-messages", "m-1")

    assert await take(store, NOW_MS) == [message(2)]
    assert await store.outbox.size() == 1


async def test_what_nobody_took_is_tried_again_later_and_ever_later(store: Store) -> None:
    await posted(store, message(1), message(2))
    young = message(1).due_ms

    await store.outbox.settle([message(1), message(2)], [False, True], now_ms=young)
    assert await take(store, young + 1_999) == []
    assert [one.id for one in await take(store, young + 2_000)] == ["m-1"]
    old = young + 3_600_000
    await store.outbox.settle([message(1)], [False], now_ms=old)
    assert await take(store, old + 299_999) == []
    assert [one.id for one in await take(store, old + 300_000)] == ["m-1"]


async def test_many_are_struck_off_at_once_by_many(store: Store, client: redis.Redis) -> None:
    several = [message(n) for n in range(2_500)]
    await posted(store, *several)

    await asyncio.gather(*(store.outbox.published(one.id) for one in several[:2_400]))

    assert await store.outbox.size() == 100
    await store.outbox.forget(int(time.time() * 1000) + 1)
    assert client.hlen("nabij:{p0}:outbox-messages") == 100
    await store.outbox.published(*(one.id for one in several))
    assert await store.outbox.size() == 0


async def test_published_that_is_cancelled_still_strikes_off_for_the_others(store: Store) -> None:
    await posted(store, *(message(n) for n in range(20)))
    tasks = [asyncio.create_task(store.outbox.published(f"m-{n}")) for n in range(20)]
    await asyncio.sleep(0)
    tasks[0].cancel()

    await asyncio.gather(*tasks, return_exceptions=True)

    assert await store.outbox.size() == 0


# -- zones ---------------------------------------------------------------------------------------


async def test_zones_are_loaded_as_they_were_saved(store: Store) -> None:
    assert (await store.zones.load(), await store.zones.version()) == ([], 0)
    await store.zones.save(ZoneKind.POLICE, ZONES[ZoneKind.POLICE])

    assert await store.zones.load() == sorted(ZONES[ZoneKind.POLICE], key=lambda zone: zone.id)
    assert await store.zones.version() == 1


async def test_import_replaces_the_zones_of_its_kind_and_no_other(store: Store) -> None:
    for kind in ZoneKind:
        await store.zones.save(kind, ZONES[kind])

    await store.zones.save(ZoneKind.POLICE, ZONES[ZoneKind.POLICE][:1])

    found = await store.zones.load()
    assert [zone for zone in found if zone.kind is ZoneKind.POLICE] == ZONES[ZoneKind.POLICE][:1]
    assert len([zone for zone in found if zone.kind is ZoneKind.MUNICIPALITY]) == 40
    assert await store.zones.version() == 3


async def test_two_imports_of_different_kinds_at_once_both_stand(
    store: Store, other_store: Store
) -> None:
    for _ in range(5):
        await asyncio.gather(
            store.zones.save(ZoneKind.POLICE, ZONES[ZoneKind.POLICE]),
            other_store.zones.save(ZoneKind.MUNICIPALITY, ZONES[ZoneKind.MUNICIPALITY]),
        )
        assert len(await store.zones.load()) == 80


async def test_incidents_come_open_ones_first_the_newest_before_and_each_once(
    store: Store, client: redis.Redis
) -> None:
    names = [uuid4() for _ in range(700)]
    client.zadd("nabij:{p0}:open-incidents", {str(name): n for n, name in enumerate(names[:300])})
    kinds = ("silence", "erase")
    client.zadd("nabij:{p0}:deadlines", {f"{kind} {name}": 1 for name in names for kind in kinds})

    found = [name async for some in store.deadlines.incidents() for name in some]

    assert found[:300] == names[299::-1]
    assert set(found) == set(names)
    assert len(found) == len(names)


async def test_a_deadline_of_another_version_is_kept_and_stands_before_no_other(
    store: Store, client: redis.Redis
) -> None:
    incident = await open_incident(store, report())
    client.zadd(KEYS.deadlines, {f"surprise {incident.id}": 1})
    now_ms = NOW_MS + 10**10

    due = await store.deadlines.due(now_ms)

    assert {deadline.incident for deadline in due} == {incident.id}
    assert client.zscore(KEYS.deadlines, f"surprise {incident.id}") == now_ms + 60_000
    pages = [page async for page in store.deadlines.incidents()]
    assert {name for page in pages for name in page} == {incident.id}
