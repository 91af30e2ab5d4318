"""Servers for one test, the services on them, and the command line beside them."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis
from tests.services.system import Servers, System

_COMMAND_S = 120.0  # its start alone takes ten seconds on a machine with much other work
Nabij = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def servers(  # noqa: PLR0917 - fixtures
    mqtt_server: EmbeddedMqtt,
    redis_url: str,
    accounts: dict[str, Account],
    tmp_path: Path,
    partitions: int,
) -> Servers:
    """The run's servers, with Redis emptied for this test."""
    return Servers(
        mqtt=mqtt_server,
        redis_url=redis_url,
        accounts=accounts,
        directory=tmp_path,
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


def environment(system: System) -> dict[str, str]:
    """The settings of `system`, for a process beside it."""
    settings = system.settings
    assert settings.mqtt_url and settings.redis_url and settings.share_group  # noqa: PT018
    return {
        "NABIJ_MQTT_URL": settings.mqtt_url,
        "NABIJ_REDIS_URL": settings.redis_url,
        "NABIJ_PARTITIONS": str(settings.partitions),
        "NABIJ_SHARE_GROUP": settings.share_group,
        "NABIJ_POLICY": str(settings.policy),
        "NABIJ_DATA_DIR": str(settings.data_dir),
        "NABIJ_INSTANCE": settings.instance,
        "NABIJ_LOG_LEVEL": "error",
    }


async def printed(system: System, *arguments: str) -> tuple[int, str]:
    """Run a command beside `system`; return its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nabij.cli",
        *arguments,
        env={**os.environ, **environment(system)},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), _COMMAND_S)
    status = process.returncode
    assert status is not None
    return status, output.decode()


async def nabij(system: System, *arguments: str) -> tuple[int, Any]:
    """Run a command with --json; return its status and what it printed."""
    status, output = await printed(system, *arguments, "--json")
    return status, json.loads(output) if output else None
