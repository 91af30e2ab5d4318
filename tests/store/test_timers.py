"""Deadlines fire once, zones are replaced at once."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import redis
from msgspec.structs import replace

from broker.core.zones import Zone, ZoneKind
from broker.store import Deadline, DeadlineKind, Store, fire, schedule
from schemas.ids import new_id
from tests.core.samples import START, at, report
from tests.store.samples import KEYS, NOW_MS, TIMERS, open_incident

ZONES = {
    kind: [
        Zone(id=f"{kind}-{n}", name=f"Zône {n}", kind=kind, cells=(n, 2**60 + n)) for n in range(40)
    ]
    for kind in ZoneKind
}


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
        several[1],
        several[2],
    ]
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
