"""When Redis cannot serve, it is said as ours to mend, and nothing is left half-written."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis
from msgspec.structs import replace

from broker.core.changes import WalkedIn
from broker.core.health import Severity, stops
from broker.errors import UnavailableError
from broker.store import OutboxMessage, Reader, Store, Update
from nabij.local.embedded import EmbeddedRedis
from schemas.ids import new_id
from schemas.messages import AlertReason, Availability
from services import routes
from tests.core.samples import START, placed, report
from tests.store.samples import NOW_MS, TIMERS, commit, open_incident, opened

Question = Callable[[Store], Awaitable[object]]
QUESTIONS: dict[str, Question] = {
    "ping": lambda store: store.ping(),
    "neighbourhood": lambda store: store.incidents.neighbourhood(placed(report())),
    "get": lambda store: store.incidents.get(new_id()),
    "near": lambda store: store.presence.near([1]),
    "update": lambda store: store.presence.update(
        [Update("ann", None, Availability.AWAY, NOW_MS)], now_ms=NOW_MS, presence_s=9
    ),
    "sweep": lambda store: store.presence.sweep(now_ms=NOW_MS, presence_s=9),
    "put": lambda store: store.events.put([WalkedIn(incident=new_id(), users=())]),
    "read": lambda store: store.events.read("alerting", "1", count=1, block_ms=100),
    "due": lambda store: store.deadlines.due(NOW_MS),
    "outbox": lambda store: store.outbox.take(NOW_MS),
    "confirm": lambda store: store.outbox.confirm({Reader("police", "gent"): {"x"}}, now_ms=0),
    "zones": lambda store: store.zones.load(),
    "claim": lambda store: store.alerts.claim(
        opened(report()), ["ann"], reason=AlertReason.NEARBY, now=START, retention_s=9
    ),
}


async def test_every_question_is_refused_as_unavailable_when_redis_is_gone(
    own_redis: EmbeddedRedis,
) -> None:
    async with Store(own_redis.url, routes=routes()) as store:
        await store.events.ensure_groups()
        reading = asyncio.create_task(store.events.read("alerting", "1", count=1, block_ms=30_000))
        await store.ping()
        await asyncio.to_thread(own_redis.stop)

        with pytest.raises(UnavailableError):
            await asyncio.wait_for(reading, 5)
        for question in QUESTIONS.values():
            with pytest.raises(UnavailableError):
                await asyncio.wait_for(question(store), 5)


async def test_store_serves_again_when_redis_is_back_with_everything_committed(
    own_redis: EmbeddedRedis,
) -> None:
    async with Store(own_redis.url, routes=routes()) as store:
        await store.events.ensure_groups()
        incident = await open_incident(store, report())
        await own_redis.kill()
        await own_redis.restart()

        for question in QUESTIONS.values():
            await _served_within(question, store, attempts=3)
        filed = await store.incidents.get(incident.id)

    assert filed is not None
    assert filed.incident == incident


async def test_a_worker_that_starts_has_as_much_patience_with_a_slow_redis_as_one_that_runs(
    redis_url: str, client: "redis.Redis[str]"
) -> None:
    client.execute_command("CLIENT", "PAUSE", 1_300, "ALL")
    began = time.monotonic()

    async with Store(redis_url, routes=routes()) as store:
        await store.events.ensure_groups()

    assert time.monotonic() - began > 1.2


async def _served_within(question: Question, store: Store, *, attempts: int) -> object:
    """As the services do: Unavailable is tried again."""
    for _ in range(attempts - 1):
        try:
            return await question(store)
        except UnavailableError:
            continue
    return await question(store)


async def test_connecting_to_nothing_is_unavailable(tmp_path: Path) -> None:
    for url in ("redis://127.0.0.1:1/0", f"unix://{tmp_path}/no.sock"):
        with pytest.raises(UnavailableError, match="Redis"):
            async with Store(url, routes=routes()):
                pass


async def test_wrong_password_is_unavailable_and_not_repeated(own_redis: EmbeddedRedis) -> None:
    url = own_redis.url.replace("redis://:", "redis://:wrong-")

    with pytest.raises(UnavailableError) as refused:
        async with Store(url, routes=routes()):
            pass

    assert "wrong-" not in str(refused.value)


async def test_commit_without_memory_is_refused_and_nothing_half_written(
    own_redis: EmbeddedRedis,
) -> None:
    client = redis.Redis.from_url(own_redis.url)
    async with Store(own_redis.url, routes=routes()) as store:
        await store.events.ensure_groups()
        one, two = report(), report()
        seen = await store.incidents.neighbourhood(placed(two))
        other = replace(one, location=replace(one.location, lat=52.0))
        incident = await open_incident(store, other)
        before = {key: client.dump(key) for key in client.scan_iter()}
        client.config_set("maxmemory", "1mb")
        posted = OutboxMessage(id="p", topic="t", payload=b"x", made_ms=NOW_MS, due_ms=NOW_MS)

        with pytest.raises(UnavailableError, match="OOM"):
            await commit(store, two, opened(two), seen=seen, posted=posted)
        with pytest.raises(UnavailableError, match="OOM"):
            await store.presence.update(
                [Update("ann", 0x8A1FA4A24C2FFFF, Availability.AVAILABLE, NOW_MS)],
                now_ms=NOW_MS,
                presence_s=TIMERS.presence_s,
            )
        with pytest.raises(UnavailableError, match="OOM"):
            await store.alerts.claim(
                incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=9
            )

        assert {key: client.dump(key) for key in client.scan_iter()} == before
        client.config_set("maxmemory", "0")
        assert await commit(store, two, opened(two), seen=seen, posted=posted) == 2
    client.close()


async def test_every_setting_that_may_lose_something_is_named_with_what_mends_it(
    own_redis: EmbeddedRedis,
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        async with Store(own_redis.url, routes=routes()) as store:
            assert await store.server.unsafe() == []
            assert await store.server.disk() == []
            client.config_set("appendfsync", "everysec")
            client.config_set("appendonly", "no")
            client.config_set("maxmemory-policy", "allkeys-lru")

            unsafe = await store.server.unsafe()
            assert [cause.what.partition(":")[0] for cause in unsafe] == [
                "Redis has appendonly no",
                "Redis has appendfsync everysec",
                "Redis has maxmemory-policy allkeys-lru",
            ]
            assert "CONFIG SET appendonly yes" in unsafe[0].mend
            assert stops(unsafe)


async def test_a_server_that_refuses_config_says_in_info_what_it_has_and_the_rest_is_a_note(
    own_redis: EmbeddedRedis,
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        async with Store(own_redis.url, routes=routes()) as store:
            client.acl_setuser("default", commands=["-config"])
            [note] = await store.server.unsafe()
            assert (note.code, note.severity) == ("redis_unchecked", Severity.NOTE)
            assert "appendfsync" in note.what
            assert "appendonly" not in note.what
            client.acl_setuser("default", commands=["+config"])
            client.config_set("appendonly", "no")
            client.config_set("maxmemory-policy", "volatile-ttl")
            client.acl_setuser("default", commands=["-config"])
            lost, evicts, _ = await store.server.unsafe()
            assert "appendonly no" in lost.what
            assert "volatile-ttl" in evicts.what

            client.acl_setuser("default", commands=["-info"])
            [note] = await store.server.unsafe()
            assert all(name in note.what for name in ("appendonly", "appendfsync", "maxmemory"))


async def test_the_servers_write_tells_its_clock(redis_url: str) -> None:
    async with Store(redis_url, routes=routes()) as store:
        assert abs(await store.server.write() - time.time()) < 60
