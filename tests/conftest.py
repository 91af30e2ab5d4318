"""What all tests share: a real MQTT broker, a real Redis, accounts, and the data beside the repo.

The servers are plain child processes started by synchronous code, so that no event loop owns
them and each test may have its own. Under CI a missing server or data set fails; elsewhere it
skips, with the reason.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import redis
import structlog
from hypothesis import settings

from nabij.local.embedded import (
    Account,
    EmbeddedMqtt,
    EmbeddedRedis,
    MqttEngine,
    RedisEngine,
    find_program,
)
from schemas.roles import Role
from tests.times import Times

# On a machine with other work an example takes as long as it takes; and CI repeats what it tells.
settings.register_profile("nabij", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("nabij")

# Tracebacks as the services log them. Rich's show every local, which takes a handler's failure up to
# twenty seconds: so long the event loop of all that runs in the test stands still.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

REPOSITORY = Path(__file__).parents[1]
ZONES = ("gent", "kortrijk", "maaseik", "unassigned")
PARTICIPANTS = (*(f"p-{number}" for number in range(1, 41)), "ann", "bob", "cleo", "dirk", "eva")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mqtt-engine", type=MqttEngine, default=MqttEngine.EDGE)
    parser.addoption("--redis-engine", type=RedisEngine, default=RedisEngine.AUTO)
    parser.addoption("--partitions", type=int, default=1, help="of the services' tests")
    parser.addoption("--times", action="store_true", help="print CPU and wall seconds by file")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: tests wait as long as they compute, so one worker more than cores."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--times"):
        config.pluginmanager.register(Times())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was skipped and why: green is not the whole truth."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    terminalreporter.write_line(f"{len(skipped)} tests skipped: {told}", yellow=True)


def missing(what: str) -> NoReturn:
    """Fail under CI, where nothing may be missing; skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"no {what}: under CI it may not be missing")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """The path of the first of these programs that is installed: `program("redis-server")`."""

    def path_of(*names: str) -> str:
        path = find_program(*names)
        if path is None:
            missing(f"{' or '.join(names)} on the PATH")
        return path

    return path_of


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="session")
def accounts() -> dict[str, Account]:
    """By username: `nabij` (the services), participants, and `desk-<zone>` for each zone."""
    everyone = [
        Account("nabij", "service-secret", Role.SERVICE),
        *(Account(name, f"secret-of-{name}", Role.PARTICIPANT) for name in PARTICIPANTS),
        *(Account(f"desk-{zone}", f"secret-of-{zone}", Role.POLICE_DESK, zone) for zone in ZONES),
    ]
    return {account.username: account for account in everyone}


@pytest.fixture(scope="session")
def mqtt_engine(request: pytest.FixtureRequest) -> MqttEngine:
    """Our own MQTT broker, unless Mosquitto is asked for."""
    engine: MqttEngine = request.config.getoption("--mqtt-engine")
    return engine


@pytest.fixture(scope="session")
def partitions(request: pytest.FixtureRequest) -> int:
    """In how many partitions the services' tests file everything."""
    count: int = request.config.getoption("--partitions")
    return count


@pytest.fixture(scope="session")
def redis_engine(request: pytest.FixtureRequest) -> RedisEngine:
    engine: RedisEngine = request.config.getoption("--redis-engine")
    return engine


@pytest.fixture(scope="session")
def mqtt_server(
    tmp_path_factory: pytest.TempPathFactory,
    accounts: dict[str, Account],
    mqtt_engine: MqttEngine,
) -> Iterator[EmbeddedMqtt]:
    """One MQTT broker for the whole run: leave no retained messages behind in it."""
    data_dir = tmp_path_factory.mktemp("mqtt")
    server = EmbeddedMqtt(data_dir, list(accounts.values()), engine=mqtt_engine).start()
    yield server
    server.stop()


@pytest.fixture
async def own_mqtt(
    data_dir: Path, accounts: dict[str, Account], mqtt_engine: MqttEngine
) -> AsyncIterator[EmbeddedMqtt]:
    """An MQTT broker for this test alone, to be killed and restarted."""
    if mqtt_engine is MqttEngine.MOSQUITTO and not find_program("mosquitto"):
        missing("mosquitto on the PATH")
    async with EmbeddedMqtt(data_dir, list(accounts.values()), engine=mqtt_engine) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(
    tmp_path_factory: pytest.TempPathFactory, redis_engine: RedisEngine
) -> Iterator[EmbeddedRedis]:
    """One Redis for the whole run; tests take `redis_url`."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), engine=redis_engine).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The run's Redis, emptied for this test."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.script_flush()
    return redis_server.url


@pytest.fixture
async def own_redis(data_dir: Path, redis_engine: RedisEngine) -> AsyncIterator[EmbeddedRedis]:
    """A Redis for this test alone, to be killed and restarted."""
    async with EmbeddedRedis(data_dir, engine=redis_engine) as server:
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """The path of a data set beside the repository, as in `shared_data("geo/zones.geojson")`."""

    def path_of(name: str) -> Path:
        path = REPOSITORY.parent / "shared" / "data" / name
        if not path.exists():
            missing(f"../shared/data/{name}")
        return path

    return path_of
