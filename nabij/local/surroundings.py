"""Problems around the workers: anonymous access at the MQTT broker, full disks."""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import structlog

from broker.core.health import Cause, Severity, disk_full
from broker.hosts import each_url
from broker.mqtt import Endpoint, MqttError
from nabij.local.access import as_stranger, has_acl

LOOK_S = 10.0
ASK_EVERY = 6  # checks
LOW_BYTES = 200 * 1024 * 1024

_log = structlog.get_logger(__name__)


class Surroundings:
    """An async context manager that checks from time to time; `causes` are its last results.

    `is_ours`: the MQTT broker is embedded, so its accounts are ours.
    """

    def __init__(self, mqtt_url: str, directories: Sequence[Path], *, is_ours: bool) -> None:
        self._endpoints = [] if is_ours else [Endpoint.from_url(url) for url in each_url(mqtt_url)]
        self._directories = directories
        self._strangers: list[Cause] = []
        self._disks: list[Cause] = []
        self._told: set[str] = set()
        self._looking: asyncio.Task[None]

    def causes(self) -> list[Cause]:
        """Return what is wrong now."""
        return [*self._strangers, *self._disks]

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look(), name="look at the surroundings")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        await asyncio.wait([self._looking])

    async def _look(self) -> None:
        turn = 0
        while True:
            self._disks = [cause for one in self._directories if (cause := disk(one))]
            if turn % ASK_EVERY == 0:
                await self._ask()
            self._tell()
            turn += 1
            await asyncio.sleep(LOOK_S)

    async def _ask(self) -> None:
        found: list[Cause] = []
        for endpoint in self._endpoints:
            try:
                found += [*await as_stranger(endpoint), *await has_acl(endpoint)]
            except MqttError:  # the workers report that
                return
        self._strangers = found

    def _tell(self) -> None:
        for cause in self.causes():
            if cause.code not in self._told:
                _log.error("unhealthy", code=cause.code, what=cause.what, mend=cause.mend)
        self._told = {cause.code for cause in self.causes()}


def disk(directory: Path) -> Cause | None:
    """Return what is wrong with the disk of a directory, or of its nearest existing parent."""
    nearest = next(one for one in (directory, *directory.parents) if one.exists())
    free: int | None = None
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(nearest).free
    if free is None or free >= LOW_BYTES:
        return None
    if free < 1024 * 1024:
        return disk_full(str(directory))
    return Cause(
        code="disk_low",
        what=f"the disk of {directory} has {free // 1024 // 1024} MiB left",
        mend="free space or enlarge the disk: a full one stops every receipt",
        severity=Severity.DEGRADES,
    )
