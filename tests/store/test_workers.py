"""The registered workers: of several who want the same, one gets it."""

import asyncio

import redis
from msgspec.structs import replace

from broker.store import Store, WorkerSession, WorkerState


def a_session(name: str = "a-1", **fields: object) -> WorkerSession:
    session = WorkerSession(
        service="intake",
        instance=name,
        server=0,
        client_id=f"nabij-intake-{name}-secret",
        filters=("$share/g/t",),
        holder=f"process of {name}",
        state=WorkerState.RUNNING,
    )
    return replace(session, **fields)


async def test_a_worker_is_alive_as_long_as_it_gives_signs_of_life(
    store: Store, client: redis.Redis
) -> None:
    session = a_session()
    await store.workers.register(session)
    assert await store.workers.beat(session)
    [found] = await store.workers.of("intake")
    assert found.session == session
    assert found.is_alive
    assert not found.is_dead
    [(name, beat)] = client.hgetall(store.keys.worker_beats("intake")).items()
    client.hset(store.keys.worker_beats("intake"), name, int(beat) - 6_000)
    [found] = await store.workers.of("intake")
    assert found.is_dead
    assert await store.workers.of("groups") == []


async def test_of_several_who_claim_a_dead_workers_session_one_gets_it(
    store: Store, other_store: Store
) -> None:
    await store.workers.register(a_session())
    [found] = await store.workers.of("intake")
    claims = await asyncio.gather(
        *(
            each.workers.claim(found, holder=f"process {number}", by=f"b-{number}")
            for number, each in enumerate((store, other_store, store, other_store))
        )
    )
    [claimed] = [claim for claim in claims if claim]
    assert claimed.state is WorkerState.CLAIMED
    assert await store.workers.beat(claimed)
    assert not await store.workers.beat(a_session())


async def test_who_gives_a_sign_of_life_at_the_last_moment_is_not_claimed(store: Store) -> None:
    session = a_session()
    await store.workers.register(session)
    [found] = await store.workers.of("intake")
    while (await store.workers.of("intake"))[0].beat == found.beat:
        await store.workers.beat(session)
    assert await store.workers.claim(found, holder="x", by="b-1") is None
    assert await store.workers.beat(session)


async def test_of_two_last_workers_that_leave_at_once_one_stays(
    store: Store, other_store: Store
) -> None:
    sessions = [a_session("a-1"), a_session("b-1")]
    for session in sessions:
        await store.workers.register(session)
    a, b = sorted(await store.workers.of("intake"), key=lambda one: one.session.instance)
    left = await asyncio.gather(
        store.workers.leave(sessions[0], b), other_store.workers.leave(sessions[1], a)
    )
    assert sum(one is not None for one in left) == 1


async def test_a_session_that_has_ended_is_forgotten_a_day_later(
    store: Store, client: redis.Redis
) -> None:
    session = a_session()
    await store.workers.register(session)
    assert await store.workers.ended(session)
    for days, stays in ((0.5, True), (1.1, False)):
        [found] = await store.workers.of("intake")
        assert found.session.state is WorkerState.GONE
        assert not found.is_alive
        assert not found.is_dead
        claimed = await store.workers.claim(found, holder="x", by="b-1")
        assert claimed is not None
        ended_ms = int(claimed.ended_ms - days * 86_400_000)
        long_ago = replace(claimed, ended_ms=ended_ms)
        await store.workers.register(long_ago)
        await store.workers.still_ended(long_ago, found)
        assert bool(await store.workers.of("intake")) is stays
    assert client.hgetall(store.keys.worker_beats("intake")) == {}


async def test_a_record_of_a_version_to_come_is_left_alone(
    store: Store, client: redis.Redis
) -> None:
    client.hset(store.keys.workers("intake"), "x 0", '{"state": "hibernating"}')
    await store.workers.register(a_session())
    assert [one.session for one in await store.workers.of("intake")] == [a_session()]
