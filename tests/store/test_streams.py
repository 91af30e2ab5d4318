"""Events reach the services that act on them, are gone once done, and not before."""

import asyncio

import pytest
import redis
from msgspec.structs import replace

from broker.core import changes
from broker.core.changes import Change, Erased, Informed, WalkedIn
from broker.store import Store
from broker.store.kernel import streams
from schemas.ids import new_id
from schemas.taxonomy import Desk
from services import routes
from tests.core.samples import START, incident
from tests.store.samples import changed

ONE = incident()
WALKED_IN = WalkedIn(incident=ONE.id, users=("ann", "bob"))


async def read(store: Store, consumer: str, count: int = 100) -> list[changes.Event | None]:
    entries = await store.events.read("alerting", consumer, count=count, block_ms=20)
    return [entry.event for entry in entries]


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("desk", Desk)
async def test_change_is_on_the_streams_of_its_readers_alone(
    store: Store, change: Change, desk: Desk
) -> None:
    event = replace(changed(ONE, change), desk=desk)
    await store.events.put([event])

    found = {name for name in routes().readers if await store.events.length(name)}

    assert found == set(routes().readers_of(event)) <= set(routes().readers)


@pytest.mark.parametrize(
    "event",
    [
        changed(ONE),
        WALKED_IN,
        Informed(incident=ONE.id, command=new_id(), text="é", at=START),
        Erased(incident=ONE.id, zone="gent"),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_event_arrives_as_it_was_put(store: Store, event: changes.Event) -> None:
    await store.events.put([event])

    for name in routes().readers_of(event):
        (entry,) = await store.events.read(name, "1", count=9, block_ms=20)
        assert entry.event == event
        assert changes.decode(entry.data) == event


async def test_a_store_that_was_opened_without_routes_writes_no_event_that_would_reach_nobody(
    redis_url: str,
) -> None:
    async with Store(redis_url) as store:
        with pytest.raises(RuntimeError, match="without routes"):
            await store.events.put([WALKED_IN])


async def test_blocking_read_wakes_when_something_comes(store: Store, other_store: Store) -> None:
    reading = asyncio.create_task(store.events.read("alerting", "1", count=9, block_ms=5_000))
    await other_store.ping()
    await other_store.events.put([WALKED_IN])

    (entry,) = await asyncio.wait_for(reading, 3)

    assert entry.event == WALKED_IN


async def test_others_are_served_while_one_blocks(store: Store) -> None:
    reading = asyncio.create_task(store.events.read("alerting", "1", count=9, block_ms=5_000))
    await asyncio.wait_for(asyncio.gather(*(store.ping() for _ in range(50))), 2)

    assert not reading.done()
    await store.events.put([WALKED_IN])
    assert len(await asyncio.wait_for(reading, 3)) == 1


async def test_cancelled_read_loses_nothing_and_leaves_no_answer_for_others(store: Store) -> None:
    reading = asyncio.create_task(store.events.read("alerting", "1", count=9, block_ms=400))
    await store.ping()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await store.events.put([WALKED_IN])

    again = await asyncio.wait_for(store.events.read("alerting", "1", count=9, block_ms=1_000), 5)
    entries = again or await store.events.own_pending("alerting", "1", count=9)

    assert [entry.event for entry in entries] == [WALKED_IN]
    await store.ping()


async def test_each_entry_is_for_one_consumer(store: Store, other_store: Store) -> None:
    several = [replace(WALKED_IN, users=(f"u-{n}",)) for n in range(40)]
    await store.events.put(several)

    one, other = await asyncio.gather(read(store, "1", 20), read(other_store, "2", 40))

    assert sorted(map(str, one + other)) == sorted(map(str, several))


async def test_what_the_dead_left_is_taken_over_and_by_one_alone(
    store: Store, other_store: Store
) -> None:
    await store.events.put([WALKED_IN, WALKED_IN])
    await read(store, "dead", 1)

    assert await store.events.take_over("alerting", "1", idle_ms=60_000, count=9) == []
    taken = await asyncio.gather(
        *(
            of.events.take_over("alerting", f"{n}", idle_ms=0, count=9)
            for n, of in enumerate((store, other_store))
        )
    )

    assert [entry.event for entries in taken[-1:] for entry in entries] == [WALKED_IN]
    assert len(await read(store, "1")) == 1  # the other was never read


async def test_own_entries_come_back_after_a_restart_until_acknowledged(store: Store) -> None:
    await store.events.put([WALKED_IN])
    (entry,) = await store.events.read("alerting", "1", count=9, block_ms=20)

    assert [own.id for own in await store.events.own_pending("alerting", "1", count=9)] == [
        entry.id
    ]
    await store.events.acknowledge("alerting", [entry.id])

    assert await store.events.own_pending("alerting", "1", count=9) == []
    assert await store.events.take_over("alerting", "2", idle_ms=0, count=9) == []


async def test_nothing_is_forgotten_before_it_is_acknowledged_by_each_reader(
    store: Store, client: redis.Redis
) -> None:
    await store.events.put([changed(ONE)] * 3)  # for alerting and police
    entries = await store.events.read("alerting", "1", count=9, block_ms=20)

    await store.events.acknowledge("alerting", [entry.id for entry in entries[:2]])

    assert (await store.events.length("alerting"), await store.events.length("police")) == (1, 3)
    left = await store.events.own_pending("alerting", "1", count=9)
    assert [entry.id for entry in left] == [entries[2].id]
    assert client.xpending("nabij:{p0}:events:alerting", "alerting")["pending"] == 1


async def test_entry_that_is_none_of_ours_is_handed_on_with_its_data(
    store: Store, client: redis.Redis
) -> None:
    client.xadd("nabij:{p0}:events:alerting", {"e": "{]"})
    client.xadd("nabij:{p0}:events:alerting", {"other": '{"type":"later_version"}'})

    entries = await store.events.read("alerting", "1", count=9, block_ms=20)

    assert [(entry.event, entry.data) for entry in entries] == [
        (None, b"{]"),
        (None, b'{"type":"later_version"}'),
    ]


async def test_groups_are_made_once_and_see_what_came_before_them(
    redis_url: str, client: redis.Redis
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        await store.events.put([WALKED_IN])
        await store.events.ensure_groups()
        await store.events.ensure_groups()

        assert await read(store, "1") == [WALKED_IN]
    assert len(client.keys("nabij:{p0}:events:*")) == len(routes().readers)


async def test_what_a_worker_that_is_gone_left_is_taken_over_once_and_nothing_of_others(
    store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_CLAIMED_MS", 0)
    await store.events.put([WALKED_IN] * 3)
    for consumer in ("gone-1-0", "gone-1-3", "gone-1-alive-0"):
        assert await read(store, consumer, count=1)

    taken: list[str] = []
    while entries := await other_store.events.take_over_from(
        "alerting", "b-1-0", {"gone-1"}, count=9
    ):
        taken += [entry.id for entry in entries]
        await other_store.events.acknowledge("alerting", [entry.id for entry in entries])

    assert len(taken) == len(set(taken)) == 2
    assert await store.events.length("alerting") == 1
    assert await store.events.own_pending("alerting", "gone-1-alive-0", count=9)
    assert await store.events.take_over_from("alerting", "b-1-0", (), count=9) == []


async def test_what_was_taken_over_a_moment_ago_is_not_taken_over_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.events.put([WALKED_IN])
    assert await read(store, "gone-1-0")
    monkeypatch.setattr(streams, "_CLAIMED_MS", 30_000)  # it was touched just now
    assert await store.events.take_over_from("alerting", "b-1-0", {"gone-1"}, count=9) == []
    assert await store.events.own_pending("alerting", "gone-1-0", count=9)


async def test_consumers_of_the_gone_are_deleted_once_nothing_of_theirs_is_left(
    store: Store, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.events.put([WALKED_IN])
    await read(store, "b-1-0")
    for consumer in ("a-1-0", "a-1-1", "unknown-1-0"):
        client.xgroup_createconsumer(store.keys.events("alerting"), "alerting", consumer)

    async def take_over() -> list[changes.Event | None]:
        gone = await store.events.take_over_from("alerting", "b-1-0", {"a-1"}, count=9)
        return [entry.event for entry in gone]

    monkeypatch.setattr(streams, "_CLAIMED_MS", 0)
    assert await store.events.consumers("alerting") == ["a-1-0", "a-1-1", "b-1-0", "unknown-1-0"]
    assert await take_over() == []  # the first who read has it in hand, and lives
    assert await store.events.consumers("alerting") == ["b-1-0", "unknown-1-0"]
    await store.events.take_over("alerting", "a-1-0", idle_ms=0, count=9)
    assert await take_over() == [WALKED_IN]
    assert "a-1-0" in await store.events.consumers("alerting")
    assert await take_over() == []
    assert await store.events.consumers("alerting") == ["b-1-0", "unknown-1-0"]
    monkeypatch.setattr(streams, "_FORGOTTEN_MS", -1)
    await take_over()
    assert await store.events.consumers("alerting") == ["b-1-0"]
