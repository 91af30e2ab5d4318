"""The services' fixtures: a system that a module's tests share, and the servers for one's own.

A module's tests run in the module's event loop: `pytestmark = pytest.mark.asyncio(loop_scope=
"module")`. Modules override `timers` and `workers`. Each test takes places of its own
(`system.place()`), so that the incidents of one test are no concern of another.
"""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis
from tests.conftest import PARTICIPANTS
from tests.services.client import Connect, connecting
from tests.services.logs import logged
from tests.services.system import APART_M, Servers, System, running

_NAMING = re.compile(  # a participant, or a place to ten metres
    rf"(?<![\w-])(?:{'|'.join(PARTICIPANTS)})(?![\w-])|\b5[01]\.\d{{4}}"
)


@pytest.fixture(scope="module", autouse=True)
def logs_name_nobody() -> Iterator[list[str]]:
    """All that a module's services log, whatever its tests send: it names no sender and no place."""
    with logged() as lines:
        yield lines
    naming = [line for line in lines if _NAMING.search(line)]
    assert not naming, "\n".join(naming)


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    """Timers other than the policy's."""
    return {}


@pytest.fixture(scope="module")
def policy_extra() -> str:
    """More settings of the policy."""
    return ""


@pytest.fixture(scope="module")
def workers() -> int:
    """Workers of each service."""
    return 1


@pytest.fixture(scope="module")
def apart_m() -> float:
    """How far apart `system.place()` gives places; modules whose radii grow need more."""
    return APART_M


@pytest.fixture(scope="module")
def servers(  # noqa: PLR0917 - fixtures
    mqtt_server: EmbeddedMqtt,
    redis_server: EmbeddedRedis,
    accounts: dict[str, Account],
    tmp_path_factory: pytest.TempPathFactory,
    partitions: int,
) -> Servers:
    """The run's servers, with Redis emptied for this module."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return Servers(
        mqtt=mqtt_server,
        redis_url=redis_server.url,
        accounts=accounts,
        directory=tmp_path_factory.mktemp("services"),
        partitions=partitions,
    )


@pytest.fixture
def own_servers(  # noqa: PLR0917 - fixtures
    own_mqtt: EmbeddedMqtt,
    own_redis: EmbeddedRedis,
    accounts: dict[str, Account],
    data_dir: Path,
    partitions: int,
) -> Servers:
    """Servers for this test alone, to be killed and restarted."""
    return Servers(
        mqtt=own_mqtt,
        redis_url=own_redis.url,
        accounts=accounts,
        directory=data_dir,
        partitions=partitions,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(  # noqa: PLR0917 - fixtures
    servers: Servers, timers: dict[str, int], policy_extra: str, workers: int, apart_m: float
) -> AsyncIterator[System]:
    """Every service, running for the whole module."""
    async with running(
        servers, timers=timers, policy_extra=policy_extra, workers=workers, apart_m=apart_m
    ) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def connect(servers: Servers) -> AsyncIterator[Connect]:
    """Connects clients that leave at the end of the test."""
    async with connecting(servers.mqtt, servers.accounts) as opened:
        yield opened
