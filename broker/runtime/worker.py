"""How one worker of a service starts: its stores, its connections, its place among the workers."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from broker.core.changes import Routes
from broker.core.health import Health, stops
from broker.core.policy import Policy
from broker.errors import ConfigError, UnavailableError
from broker.mqtt import (
    BrokerPool,
    Connection,
    ConnectRefused,
    Endpoint,
    MqttError,
    connections_of,
)
from broker.runtime import metrics
from broker.runtime.config import Settings
from broker.runtime.connections import connect, endpoints_of, servers
from broker.runtime.dispatch import Dispatcher
from broker.runtime.externals import Externals
from broker.runtime.liveness import Lease
from broker.runtime.mqtt_causes import name_of, told_of_mqtt
from broker.runtime.probes import Probes, accepted, not_connected
from broker.runtime.service import Service
from broker.runtime.session_takeover import TakeOver
from broker.runtime.worker_loops import OnState, WorkerLoops, WorkerParts, zones_in
from broker.store import Partitions, Store, open_partitions
from schemas.messages import ServiceState
from schemas.taxonomy import default_policy_text
from schemas.topics import ROOT

OnHealth = Callable[[Health], None]


# long: one start, told in its order, since each step needs those before it
async def run_worker(
    service: Service,
    settings: Settings,
    *,
    worker: int,
    routes: Routes,
    stop: asyncio.Event,
    on_state: OnState,
    on_health: OnHealth = lambda _: None,
    policy: Policy | None = None,
    externals: Externals | None = None,
) -> None:
    """Run one worker of `service` until `stop` is set, then drain and return.

    `routes` say which services read which events. `on_health` is told each second how it is.
    `policy` (None: that of the settings) is the city's.

    Raises:
        ConfigError: the settings or the policy are wrong.
        UnavailableError: Redis or the MQTT broker cannot be reached at the start.
    """
    if settings.mqtt_url is None or settings.redis_url is None:
        raise ConfigError(["NABIJ_MQTT_URL, NABIJ_REDIS_URL: must be set here"])
    on_state(ServiceState.STARTING)
    metrics.prepare(service.name, [one.topic.name for one in service.subscriptions])
    externals = externals or Externals()
    policy = policy or load_policy(settings.policy)
    instance = f"{settings.instance}-{worker}"
    worker_of = _Worker(service, settings, instance, endpoints_of(settings), externals)
    async with open_partitions(
        settings.redis_url,
        settings.partitions,
        routes=routes,
        open_redis=externals.open_redis,
        dice=externals.dice,
    ) as stores:
        await _refuse_unsafe(stores, settings)
        externals.clock.start_from(*await stores[0].server.shared_time())
        for store in stores:
            await store.events.ensure_groups()
        line = await _line_of(worker_of, stores)
        on_health(Health(causes=not_connected(connections_of(line.mqtt)), redis_up=True))
        try:
            async with line.mqtt:
                zones, zones_version = await zones_in(stores[0])
                dispatcher = Dispatcher(
                    service,
                    partitions=stores,
                    mqtt=line.mqtt,
                    policy=policy,
                    zones=zones,
                    servers=servers(line.mqtt, worker_of.endpoints, externals),
                    externals=externals,
                )
                parts = WorkerParts(
                    dispatcher=dispatcher,
                    stores=stores,
                    mqtt=line.mqtt,
                    instance=worker_of.instance,
                    probes=_probes_of(worker_of, stores, line, on_health=on_health),
                    zones_version=zones_version,
                    connected=line.connected,
                    membership=line.membership,
                    externals=externals,
                )
                await WorkerLoops(parts).run(stop, on_state)
            await line.membership.left()
        except MqttError as error:
            raise UnavailableError(_words_of(error, worker_of.endpoints[0])) from error
    on_state(ServiceState.STOPPED)


def _words_of(error: MqttError, endpoint: Endpoint) -> str:
    right = f"`topic readwrite {ROOT}/#` in the MQTT broker's ACL"
    words = told_of_mqtt(error, endpoint)
    if isinstance(error, ConnectRefused) and error.concerns_account:
        return f"{words}; if they are right, it may lack {right}, which its last will needs"
    if isinstance(error, ConnectRefused) and error.concerns_rights:
        return (
            f"the MQTT account {name_of(endpoint)!r} may not read or write what the services need: "
            f"use the services' account in NABIJ_MQTT_URL, and give it {right}, and share groups"
        )
    return words


class _Worker(NamedTuple):
    """Which worker of which service this is, and where its MQTT brokers are."""

    service: Service
    settings: Settings
    instance: str
    endpoints: Sequence[Endpoint]
    externals: Externals


class _Line(NamedTuple):
    """A worker's connection, and its place among the workers."""

    mqtt: Connection | BrokerPool
    connected: Sequence[asyncio.Event]
    membership: TakeOver


async def _line_of(worker: _Worker, stores: Partitions) -> _Line:
    """Return the connection, not entered yet; the worker is registered before it subscribes."""
    service, settings, instance, endpoints, externals = worker
    connected = [asyncio.Event() for _ in endpoints]
    lease = Lease()
    mqtt = connect(
        service,
        settings,
        instance,
        endpoints=endpoints,
        connected=connected,
        before_reconnect=lease.held,
        externals=externals,
    )
    membership = TakeOver(
        service,
        settings,
        instance,
        stores[0].workers,
        endpoints=endpoints,
        connections=connections_of(mqtt),
        lease=lease,
        externals=externals,
    )
    await membership.register()
    return _Line(mqtt, connected, membership)


def _probes_of(worker: _Worker, stores: Partitions, line: _Line, *, on_health: OnHealth) -> Probes:
    return Probes(
        worker.service.name,
        worker.instance,
        stores=stores,
        connections=connections_of(line.mqtt),
        account=worker.endpoints[0].username,
        unsafe_redis=worker.settings.unsafe_redis,
        externals=worker.externals,
        on_health=on_health,
    )


async def _refuse_unsafe(stores: Sequence[Store], settings: Settings) -> None:
    """Raise ConfigError if Redis may lose what got a receipt, and nobody has accepted that."""
    for store in stores:
        causes = accepted(await store.server.unsafe(), settings.unsafe_redis)
        if stops(causes):
            raise ConfigError([f"NABIJ_REDIS_URL: {one.what}: {one.mend}" for one in causes])


def load_policy(path: Path | None) -> Policy:
    """Return the city's policy, or the one that is shipped.

    Raises:
        ConfigError: all that is wrong with it.
    """
    return Policy.parse(path.read_text(encoding="utf-8") if path else default_policy_text())
