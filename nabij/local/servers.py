"""Keeps embedded servers running: one that dies is started again, on its port and data."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import structlog

from broker.errors import ConfigError
from nabij.local.edge_config import EdgeListener
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis, MqttEngine
from nabij.local.managed_process import Child

LOOK_S = 0.1  # to look takes 2 µs; clients that are refused meanwhile wait longer each time

_log = structlog.get_logger(__name__)


class Servers:
    """An async context manager that keeps its servers running, and stops them on leaving."""

    def __init__(self) -> None:
        self._running: list[Child] = []
        self._acquired = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self._keeper: asyncio.Task[None]

    @property
    def descriptions(self) -> list[str]:
        """A description of the servers and their addresses."""
        return [_described(server) for server in self._running]

    async def start_redis(self, directory: Path) -> EmbeddedRedis:
        """Start a Redis with its data in `directory`, and keep it.

        Raises:
            ConfigError: it does not start.
        """
        redis = EmbeddedRedis(directory)
        await self._start(redis)
        return redis

    async def start_mqtt(
        self,
        directory: Path,
        accounts: Sequence[Account],
        *,
        engine: MqttEngine = MqttEngine.AUTO,
        port: int | None = None,
        outside: EdgeListener | None = None,
        metrics_port: int | None = None,
    ) -> EmbeddedMqtt:
        """Start an MQTT broker with these accounts, and keep it.

        Raises:
            ConfigError: it does not start.
        """
        mqtt = EmbeddedMqtt(
            directory,
            accounts,
            port=port,
            engine=engine,
            outside=outside,
            metrics_port=metrics_port,
        )
        await self._start(mqtt)
        return mqtt

    async def _start(self, server: Child) -> None:
        await self._acquired.enter_async_context(server)
        self._running.append(server)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._keeper = self._tasks.create_task(self._keep(), name="keep the embedded servers")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeper.cancel()
        try:
            # The body's own error must not be wrapped: the group only has to end.
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._acquired.aclose()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for server in self._running:
                if not server.running:
                    await _restart(server)


def _described(server: Child) -> str:
    where = f"{server.description} on {server.host}:{server.port}"
    if server.moved_from is None:
        return where
    return f"{where}: its last port, {server.moved_from}, is taken"


async def _restart(server: Child) -> None:
    _log.error("an embedded server died and is started again", server=server.description)
    try:
        await server.restart()
    except ConfigError as error:  # its port may be in use for a while: the next check tries again
        _log.error("it does not start", problems=error.problems)
