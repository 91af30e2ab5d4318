"""A store says by which layout it was written: older ones are migrated, newer ones refused."""

import asyncio
import signal
import sys
import time
from typing import Any

import msgspec
import pytest
import redis

from broker.errors import ConfigError
from broker.store import Opening, Reader, Store, WorkerSession, WorkerState, open_partitions
from broker.store.migrations import SCHEMA_VERSION
from schemas import topics
from services import routes
from tests.store.samples import NOW_MS

PREFIX = "nabij:{p0}:"
SCHEMA, LOCK = f"{PREFIX}schema-version", f"{PREFIX}migrating"
TOPIC = topics.ESCALATION.topic(zone="gent", priority="p1")
OPEN = """
import asyncio, sys
from broker.store import open_partitions
async def main():
    async with open_partitions(sys.argv[1]):
        print("open", flush=True)
asyncio.run(main())
"""


async def opened(url: str, opening: Opening = Opening.USE, count: int = 1) -> None:
    async with open_partitions(url, count, opening=opening):
        pass


def old_message(name: str) -> bytes:
    """As every release before schema versions has written it."""
    old: dict[str, Any] = {
        "id": name,
        "topic": TOPIC,
        "payload": b"{}",
        "retain": False,
        "due_ms": NOW_MS,
    }
    return msgspec.msgpack.encode(old)


def fill_as_version_1(client: redis.Redis, messages: int = 2) -> None:
    """Write what was in Redis then: the first message waits, the second had a PUBACK."""
    client.set(f"{PREFIX}sequence", 7)
    bodies = {f"m-{number}": old_message(f"m-{number}") for number in range(1, messages + 1)}
    client.hset(f"{PREFIX}outbox-messages", mapping=bodies)
    client.zadd(f"{PREFIX}outbox", {"m-1": NOW_MS})
    client.zadd(f"{PREFIX}outbox-sent", {"m-2": NOW_MS})
    client.zadd(f"{PREFIX}outbox-again", {"m-2": NOW_MS})


async def test_an_empty_redis_gets_todays_version_by_its_first_use_alone(
    redis_url: str, client: redis.Redis
) -> None:
    await opened(redis_url, Opening.READ)
    assert client.keys() == []

    await asyncio.gather(*(opened(redis_url) for _ in range(4)))
    assert client.get(SCHEMA) == str(SCHEMA_VERSION)
    assert not client.exists(LOCK)


async def test_old_messages_of_the_outbox_are_delivered_after_the_migration(
    redis_url: str, client: redis.Redis
) -> None:
    fill_as_version_1(client)

    await asyncio.gather(*(opened(redis_url) for _ in range(4)))

    assert client.get(SCHEMA) == str(SCHEMA_VERSION)
    assert not client.exists(f"{PREFIX}outbox-sent", f"{PREFIX}outbox-again", LOCK)
    async with open_partitions(redis_url, routes=routes()) as [store]:
        taken = await store.outbox.take(int(time.time() * 1000))
        assert [(one.id, one.topic, one.payload, one.made_ms) for one, *_ in taken] == [
            ("m-1", TOPIC, b"{}", NOW_MS),
            ("m-2", TOPIC, b"{}", NOW_MS),
        ]
        await store.outbox.confirm({Reader("police", "gent"): ["m-1", "m-2"]}, now_ms=NOW_MS)
        assert await store.outbox.size() == 0


async def test_every_partition_is_migrated(redis_url: str, client: redis.Redis) -> None:
    fill_as_version_1(client)
    client.set(f"{PREFIX}partitions", 2)
    client.hset("nabij:{p1}:outbox-messages", "m-9", old_message("m-9"))

    async with open_partitions(redis_url, 2, routes=routes()) as [_, second]:
        [due] = await second.outbox.take(int(time.time() * 1000))
    assert due.message.id == "m-9"


async def test_a_command_that_reads_migrates_nothing(redis_url: str, client: redis.Redis) -> None:
    fill_as_version_1(client)
    before = {key: client.dump(key) for key in client.scan_iter()}

    await opened(redis_url, Opening.READ)

    assert {key: client.dump(key) for key in client.scan_iter()} == before


@pytest.mark.parametrize("opening", Opening)
async def test_data_of_a_newer_release_is_refused_and_left_alone(
    redis_url: str, client: redis.Redis, opening: Opening
) -> None:
    client.set(SCHEMA, SCHEMA_VERSION + 1)
    client.set(f"{PREFIX}partitions", 1)

    with pytest.raises(
        ConfigError, match=f"version {SCHEMA_VERSION + 1}.* knows {SCHEMA_VERSION} .*install"
    ):
        await opened(redis_url, opening)
    assert sorted(client.keys()) == sorted([SCHEMA, f"{PREFIX}partitions"])


async def test_a_migration_that_is_killed_half_way_is_finished_by_the_next(
    redis_url: str, client: redis.Redis
) -> None:
    fill_as_version_1(client, 6_000)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, redis_url)
    while client.zcard(f"{PREFIX}outbox") < 500:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0)
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    assert client.get(SCHEMA) is None
    assert client.pttl(LOCK) > 0
    assert 500 <= client.zcard(f"{PREFIX}outbox") < 6_000

    client.delete(LOCK)  # as it is ten seconds later
    await opened(redis_url)

    assert client.get(SCHEMA) == str(SCHEMA_VERSION)
    assert client.zcard(f"{PREFIX}outbox") == 6_000
    async with Store(redis_url, routes=routes()) as store:
        bodies = await store.outbox._bodies(f"m-{number}" for number in range(1, 6_001))
    assert len(bodies) == 6_000


async def test_nothing_is_migrated_while_workers_of_an_older_release_run(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.migrations._WORKERS_STOP_S", 0.2)
    fill_as_version_1(client)
    session = WorkerSession(
        service="intake",
        instance="host-a-1",
        server=0,
        client_id="c",
        filters=(),
        holder="h",
        state=WorkerState.RUNNING,
    )
    async with Store(redis_url, routes=routes()) as store:
        await store.workers.register(session)

    with pytest.raises(ConfigError, match=r"intake host-a-1.*stop `nabij up` on every host"):
        await opened(redis_url)
    assert client.get(SCHEMA) is None
    assert not client.exists(LOCK)

    client.delete(f"{PREFIX}worker-beats:intake")
    await opened(redis_url)
    assert client.get(SCHEMA) == str(SCHEMA_VERSION)
