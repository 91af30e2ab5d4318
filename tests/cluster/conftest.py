"""A cluster for the module, and systems that run on it in 16 partitions."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nabij.local.embedded import Account, EmbeddedMqtt
from tests.cluster.nodes import Cluster
from tests.services.client import Connect, connecting
from tests.services.system import Servers, System, running

PARTITIONS = 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three masters and their replicas, for a whole module."""
    async with Cluster(tmp_path_factory.mktemp("cluster")) as formed:
        yield formed


@pytest.fixture(scope="module")
def servers(
    cluster: Cluster,
    mqtt_server: EmbeddedMqtt,
    accounts: dict[str, Account],
    tmp_path_factory: pytest.TempPathFactory,
) -> Servers:
    """The cluster, and the run's MQTT broker."""
    return Servers(
        mqtt=mqtt_server,
        redis_url=cluster.url,
        accounts=accounts,
        directory=tmp_path_factory.mktemp("services"),
        partitions=PARTITIONS,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(servers: Servers) -> AsyncIterator[System]:
    """Every service, with two workers each."""
    async with running(servers, workers=2) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def connect(servers: Servers) -> AsyncIterator[Connect]:
    """Connects clients that leave at the end of the test."""
    async with connecting(servers.mqtt, servers.accounts) as opened:
        yield opened
