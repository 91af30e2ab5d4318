"""All of Nabij in one `async with`: servers where none are configured, zones, workers.

Used by `nabij up`, `demo` and `replay`, and by tests and benchmarks.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import structlog

import services
from broker.core.health import stops, with_mend
from broker.core.policy import Policy
from broker.core.zones import UNASSIGNED, Zone, ZoneKind
from broker.errors import ConfigError, UnavailableError
from broker.runtime.config import Settings
from broker.runtime.probes import accepted
from broker.store import open_partitions
from nabij.local.acquired import Acquired
from nabij.local.data_directory import (
    CITY_DESK,
    OPERATOR,
    SERVICES_ACCOUNT,
    DataDir,
    Running,
    accounts_of,
    desk_of,
    is_desk,
)
from nabij.local.embedded import MqttEngine
from nabij.local.mqtt_listeners import (
    check_certificate,
    check_ports,
    metrics_url,
    outside_listener,
)
from nabij.local.policy_file import policy_at, warnings_of
from nabij.local.servers import Servers
from nabij.local.supervisor import START_TIMEOUT_S, Supervisor
from nabij.local.surroundings import Surroundings
from nabij.local.temporary import PREFIX, temporary_directory
from nabij.local.worker_environment import worker_environment
from nabij.local.zone_files import built_in_zones

TRY_IT = ("ann", "bob", "cleo", "dirk", "eva")
REDIS_TIMEOUT_S = 15.0
RETRY_S = 0.5
_ODD_DESKS_SHOWN = 10
_LONGEST_DESK = 35  # with `desk-` before it, a user name is a topic level

_log = structlog.get_logger(__name__)


class Stack(Acquired):
    """After entering, the servers answer and the workers are starting; see `wait_ready`.

    `workers` says how many workers of which service; `participants` get accounts at an embedded
    MQTT broker; `zones` replace those of their kinds in the store; `accounts` are the passwords at
    a configured MQTT broker. `http` is the address of /livez, /readyz and /metrics, if wanted.

    Raises:
        ConfigError: on entering: settings, policy or data directory are wrong.
        UnavailableError: on entering: the configured Redis does not answer.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        workers: Mapping[str, int] | None = None,
        participants: Sequence[str] = TRY_IT,
        zones: Sequence[Zone] = (),
        accounts: Mapping[str, str] | None = None,
        http: tuple[str, int] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.zones: Sequence[Zone] = ()
        self._wanted_zones = zones
        self.credentials: Mapping[str, str] = accounts or {}
        self.http_url: str | None = None
        self.redis_warnings: Sequence[str] = ()
        self.supervisor: Supervisor
        self._workers = dict.fromkeys(services.ALL, 1) if workers is None else workers
        self._participants = participants
        self._http = http
        self._say = say
        self._data_dir = DataDir(settings.data_dir)
        self._policy: Policy

    @property
    def embedded(self) -> bool:
        """Whether the MQTT broker is embedded."""
        return SERVICES_ACCOUNT in self.credentials

    @property
    def mqtt_url(self) -> str:
        """The MQTT URL of the services, with their password."""
        assert self.settings.mqtt_url is not None, "the stack has not been entered"
        return self.settings.mqtt_url

    @property
    def redis_url(self) -> str:
        """The Redis URL."""
        assert self.settings.redis_url is not None, "the stack has not been entered"
        return self.settings.redis_url

    def mqtt_url_for(self, user: str) -> str:
        """Return the MQTT endpoint of `user`.

        Raises:
            ConfigError: no password is known for `user`.
        """
        if user not in self.credentials:
            raise ConfigError([f"no password is known for the MQTT user {user!r}"])
        parts = urlsplit(self.mqtt_url)
        host = parts.netloc.rpartition("@")[2]
        identity = f"{quote(user, safe='')}:{quote(self.credentials[user], safe='')}"
        return urlunsplit(parts._replace(netloc=f"{identity}@{host}"))

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when every worker is ready; raises what `Supervisor.wait_ready` does."""
        await self.supervisor.wait_ready(timeout_s)

    async def _acquire(self, acquired: AsyncExitStack) -> None:
        self._policy = policy_at(self.settings.policy)
        check_certificate(self.settings)
        acquired.enter_context(self._data_dir.held(*self._locks()))
        if self.settings.mqtt_url is None:
            await asyncio.to_thread(check_ports, self.settings, self._data_dir.path)
        servers = await acquired.enter_async_context(Servers())
        await self._start_redis(servers)
        await self._patiently(self._look_at_redis)
        await self._patiently(self._load_zones)
        await self._start_mqtt(servers)
        for description in servers.descriptions:
            self._say(f"started {description}")
        metrics = acquired.enter_context(temporary_directory(f"{PREFIX}metrics-"))
        self.supervisor = Supervisor(
            self._workers, self._environment(metrics), on_exit=partial(_forget_gauges, metrics)
        )
        await acquired.enter_async_context(self.supervisor)
        await self._serve_http(acquired, metrics)
        acquired.enter_context(self._data_dir.announced(self._running()))

    def _locks(self) -> list[str]:
        """With servers of its own a data directory is whole; else each service is run once in it."""
        if self.settings.mqtt_url is None or self.settings.redis_url is None:
            return ["embedded"]
        return [f"{self.settings.instance}-{service}" for service in self._workers]

    # Servers

    async def _start_redis(self, servers: Servers) -> None:
        if self.settings.redis_url is None:
            redis = await servers.start_redis(self._data_dir.path)
            self.settings = replace(self.settings, redis_url=redis.url)

    async def _start_mqtt(self, servers: Servers) -> None:
        if self.settings.mqtt_url is not None:
            return
        zones = [zone.id for zone in self.zones if zone.kind is ZoneKind.POLICE]
        desks = (desk_of(zone) for zone in zones if len(zone) <= _LONGEST_DESK)
        users = [SERVICES_ACCOUNT, OPERATOR, CITY_DESK, desk_of(UNASSIGNED), *desks]
        self.credentials = self._data_dir.passwords([*users, *self._participants])
        accounts = accounts_of(self.credentials)
        self._warn_of_desks_without_a_zone()
        mqtt = await servers.start_mqtt(
            self._data_dir.path,
            accounts,
            engine=MqttEngine(self.settings.mqtt),
            port=self.settings.mqtt_port,
            outside=outside_listener(self.settings),
            metrics_port=self.settings.mqtt_metrics_port,
        )
        ours = next(account for account in accounts if account.username == SERVICES_ACCOUNT)
        self.settings = replace(
            self.settings,
            mqtt_url=mqtt.url_for(ours),
            share_group=self.settings.share_group or self._data_dir.share_group(),
        )

    def _warn_of_desks_without_a_zone(self) -> None:
        known = {desk_of(zone) for zone in (UNASSIGNED, *(one.id for one in self.zones))}
        if odd := sorted(user for user in self.credentials if is_desk(user) and user not in known):
            self._say(
                f"accounts of desks of no known zone: {', '.join(odd[:_ODD_DESKS_SHOWN])}; "
                "`nabij zones list` shows the ids"
            )

    async def _patiently(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Wait a while for a Redis that starts at the same time, as in containers."""
        began_s = asyncio.get_running_loop().time()
        told = False
        while True:
            try:
                return await ask()
            except UnavailableError as error:
                if asyncio.get_running_loop().time() > began_s + REDIS_TIMEOUT_S:
                    raise
                if not told:
                    self._say(
                        f"waiting up to {REDIS_TIMEOUT_S:.0f} s for Redis: {with_mend(str(error))}"
                    )
                told = True
                await asyncio.sleep(RETRY_S)

    async def _look_at_redis(self) -> None:
        """Refuse a Redis that may lose what got a receipt; if that was accepted, log it."""
        async with open_partitions(self.redis_url, self.settings.partitions) as stores:
            found = await asyncio.gather(*(store.server.unsafe() for store in stores))
        every = dict.fromkeys(cause for some in found for cause in some)
        causes = accepted([*every], self.settings.unsafe_redis)
        if stops(causes):
            raise ConfigError([f"{one.what}: {one.mend}" for one in causes if stops([one])])
        for cause in causes:
            _log.warning(cause.what, mend=cause.mend)
        self.redis_warnings = [cause.what for cause in causes]

    async def _load_zones(self) -> None:
        """Store the requested zones, or those that the store lacks, and read all."""
        async with open_partitions(self.redis_url, self.settings.partitions) as stores:
            store = stores[0]
            for kind in ZoneKind:
                if of_kind := [zone for zone in self._wanted_zones if zone.kind is kind]:
                    await store.zones.save(kind, of_kind)
            self.zones = await store.zones.load()
            if not self.zones:
                self._say("no zones in the store: Ghent, Kortrijk and Maaseik, built in, are used")
                for kind in ZoneKind:
                    await store.zones.save(kind, built_in_zones(kind))
                self.zones = await store.zones.load()
            for warning in await warnings_of(self._policy, stores):
                _log.warning(warning)

    async def _serve_http(self, acquired: AsyncExitStack, metrics: Path) -> None:
        if self._http:
            # Imported here: uvicorn takes a third of a second.
            from nabij.local.http import served  # noqa: PLC0415
            from nabij.local.store_metrics import StoreFigures  # noqa: PLC0415

            figures = await acquired.enter_async_context(
                StoreFigures(self.redis_url, self.settings.partitions)
            )
            around = await acquired.enter_async_context(
                Surroundings(self.mqtt_url, [self._data_dir.path, metrics], is_ours=self.embedded)
            )
            self.http_url = await acquired.enter_async_context(
                served(self._http, self.supervisor, metrics, store=figures, more=around.causes)
            )

    # What others are told

    def _running(self) -> Running:
        return Running(
            pid=os.getpid(),
            mqtt_url=self.mqtt_url_for(OPERATOR) if OPERATOR in self.credentials else None,
            redis_url=self.settings.redis_url,
            http_url=self.http_url,
            mqtt_listen=self.settings.mqtt_listen,
            mqtt_metrics_url=metrics_url(self.settings),
        )

    def _environment(self, metrics: Path) -> dict[str, str]:
        return {**worker_environment(self.settings), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}


def _forget_gauges(metrics: Path, pid: int) -> None:
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - seldom needed

    mark_process_dead(pid, str(metrics))  # type: ignore[no-untyped-call]
