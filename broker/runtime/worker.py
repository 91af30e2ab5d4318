"""How one worker of a service runs: connections, loops, supervision of its tasks, and draining."""

import asyncio
import contextlib
import gc
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path

import structlog

from broker.core.changes import Routes
from broker.core.health import Health, stops
from broker.core.policy import Policy
from broker.core.zones import ZoneIndex, ZoneKind
from broker.errors import ConfigError, UnavailableError
from broker.mqtt import (
    BrokerPool,
    Connection,
    Delivery,
    MqttError,
    connections_of,
)
from broker.runtime import metrics
from broker.runtime.ack_batcher import AckBatcher
from broker.runtime.clock import Clock
from broker.runtime.config import Settings
from broker.runtime.connections import connect, endpoints_of, servers, status_of
from broker.runtime.dispatch import Dispatcher
from broker.runtime.liveness import Lease
from broker.runtime.probes import Probes, accepted
from broker.runtime.service import Context, Effects, Service, Zones
from broker.runtime.session_takeover import TakeOver
from broker.store import Store, StreamEntry, open_partitions
from schemas.messages import ServiceState
from schemas.taxonomy import default_policy_text

_log = structlog.get_logger()

_BATCH = 200  # what is handled together: while Redis has two such, the next is read
_BATCHES = 3
_IN_HAND = 2_000
_BLOCK_MS = 1_000
_LOOKS = 30  # so often a service that gathers finds nothing before it waits to be woken
_TAKE_OVER_EVERY_S = 2.0
_TAKE_OVER_IDLE_MS = 30_000
_ZONES_EVERY_S = 5.0
_METRICS_EVERY_S = 0.5
_DRAIN_S = 6.0

OnState = Callable[[ServiceState], None]
OnHealth = Callable[[Health], None]


async def run_worker(
    service: Service,
    settings: Settings,
    *,
    worker: int,
    routes: Routes,
    stop: asyncio.Event,
    on_state: OnState,
    on_health: OnHealth = lambda _: None,
    clock: Clock | None = None,
) -> None:
    """Run one worker of `service` until `stop` is set, then drain and return.

    `routes` say which services read which events. `on_health` is told each second how it is.

    Raises:
        ConfigError: the settings or the policy are wrong.
        UnavailableError: Redis or the MQTT broker cannot be reached at the start.
    """
    if settings.mqtt_url is None or settings.redis_url is None:
        raise ConfigError(["NABIJ_MQTT_URL, NABIJ_REDIS_URL: must be set here"])
    on_state(ServiceState.STARTING)
    metrics.prepare(service.name, [one.topic.name for one in service.subscriptions])
    clock = clock or Clock()
    policy = load_policy(settings.policy)
    instance = f"{settings.instance}-{worker}"
    async with open_partitions(settings.redis_url, settings.partitions, routes=routes) as stores:
        await _refuse_unsafe(stores, settings)
        clock.start_from(*await stores[0].server.shared_time())
        for store in stores:
            await store.events.ensure_groups()
        endpoints = endpoints_of(settings)
        connected = [asyncio.Event() for _ in endpoints]
        lease = Lease()
        mqtt = connect(
            service,
            settings,
            instance,
            endpoints=endpoints,
            connected=connected,
            before_reconnect=lease.held if settings.share_group else None,
        )
        membership = None
        if settings.share_group:
            membership = TakeOver(
                service,
                settings,
                instance,
                stores[0].workers,
                endpoints=endpoints,
                connections=connections_of(mqtt),
                lease=lease,
            )
            await membership.register()
        try:
            async with mqtt:
                zones, zones_version = await _zones(stores[0])
                dispatcher = Dispatcher(
                    service,
                    partitions=stores,
                    mqtt=mqtt,
                    policy=policy,
                    zones=zones,
                    servers=servers(settings, mqtt, endpoints),
                    clock=clock,
                )
                share = None if settings.share_group else (worker - 1, settings.workers)
                probes = Probes(
                    service.name,
                    instance,
                    stores=stores,
                    connections=connections_of(mqtt),
                    account=endpoints[0].username,
                    unsafe_redis=settings.unsafe_redis,
                    clock=clock,
                    on_health=on_health,
                )
                loops = _Worker(
                    dispatcher,
                    stores,
                    mqtt,
                    instance,
                    probes=probes,
                    zones_version=zones_version,
                    share=share,
                    connected=connected,
                    membership=membership,
                )
                await loops.run(stop, on_state)
            if membership:
                await membership.left()
        except MqttError as error:
            raise UnavailableError(f"MQTT: {error}") from error
    on_state(ServiceState.STOPPED)


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


async def _zones(store: Store) -> tuple[Zones, int]:
    number = await store.zones.version()
    zones = await store.zones.load()
    return Zones(
        *(
            ZoneIndex(zone for zone in zones if zone.kind is kind)
            for kind in (ZoneKind.POLICE, ZoneKind.MUNICIPALITY)
        )
    ), number


def _calm_collector() -> None:
    """Let the garbage collector leave alone what lives forever; it took 6 % of intake's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _tell_metrics() -> None:
    while True:
        await asyncio.sleep(_METRICS_EVERY_S)
        metrics.tell()


class _Worker:
    """The loops of one worker."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        stores: Sequence[Store],
        mqtt: Connection | BrokerPool,
        instance: str,
        *,
        probes: Probes,
        zones_version: int,
        share: tuple[int, int] | None,
        connected: Sequence[asyncio.Event],
        membership: TakeOver | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._service = dispatcher.service
        self._stores = stores
        self._mqtt = mqtt
        self._consumer = instance
        self._probes = probes
        self._zones_version = zones_version
        self._share = share
        self._connected = connected
        self._membership = membership
        self._in_hand: set[asyncio.Task[None]] = set()
        self._struck = [AckBatcher(store, dispatcher) for store in stores]

    async def run(self, stop: asyncio.Event, on_state: OnState) -> None:
        """Run every loop until `stop`, then finish what is in hand."""
        try:
            async with asyncio.TaskGroup() as loops:
                staying, leaving = (
                    [
                        loops.create_task(loop, name=f"{self._service.name} {name}")
                        for name, loop in some
                    ]
                    for some in (self._loops_to_the_end(), self._loops())
                )
                await self._tell(ServiceState.READY)
                on_state(ServiceState.READY)
                _calm_collector()
                await stop.wait()
                on_state(ServiceState.DRAINING)
                for task in leaving:
                    task.cancel()
                if self._membership:
                    await self._membership.leave()
                for task in staying:
                    task.cancel()
        finally:
            await self._drain()
            metrics.tell()
        await self._tell(ServiceState.STOPPED)
        if self._membership:
            await self._membership.clear_status()

    def _loops_to_the_end(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        """Return what goes on until this worker has taken what is queued for it."""
        loops: list[tuple[str, Coroutine[None, None, None]]] = [
            (f"mqtt {broker_index}", self._receive(broker_index, connection))
            for broker_index, connection in enumerate(connections_of(self._mqtt))
        ]
        if self._membership:
            loops.append(("heartbeat", self._membership.beat()))
        return loops

    def _loops(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        loops: list[tuple[str, Coroutine[None, None, None]]] = [
            ("zones", self._follow_zones()),
            ("metrics", _tell_metrics()),
            ("probes", self._probes.run()),
            *(
                (f"restore {broker_index}", self._restore(broker_index))
                for broker_index in range(len(self._connected))
            ),
        ]
        if self._membership:
            loops.append(("take-over of sessions", self._membership.take_over(self._receive)))
        if self._service.event_handlers:
            # With many partitions one reader each: they block on a connection of their own.
            readers = self._service.readers if len(self._stores) == 1 else 1
            for struck in self._struck:
                tag = f" {struck.store.keys.partition}" if len(self._stores) > 1 else ""
                loops += [
                    (f"events{tag} {number}", self._read(number, struck))
                    for number in range(readers)
                ]
                loops += [
                    (f"take-over{tag}", self._take_over(struck)),
                    (f"acknowledgements{tag}", struck.run()),
                ]
        loops += [
            (handler.__name__, self._repeat(interval_s, handler, store))
            for interval_s, handler in self._service.periodic
            for store in self._stores
        ]
        return loops

    async def _tell(self, state: ServiceState) -> None:
        await self._mqtt.publish(status_of(self._service, self._consumer, state))

    async def _drain(self) -> None:
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=_DRAIN_S)
            for task in late:  # unacknowledged: the MQTT broker or the stream brings them again
                task.cancel()
        with contextlib.suppress(UnavailableError):
            for struck in self._struck:
                await struck.acknowledge()

    # -- MQTT -------------------------------------------------------------------------------------

    async def _receive(self, broker_index: int, connection: Connection) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while True:
            if len(self._in_hand) >= _IN_HAND:  # QoS 0 knows no flow control
                await asyncio.wait(self._in_hand, return_when=asyncio.FIRST_COMPLETED)
            batches: dict[str, list[Delivery]] = {}
            for delivery in await connection.receive(_BATCH):
                if self._probes.is_one(delivery):
                    self._probes.hear(delivery, broker_index)
                    continue
                if delivery.message.clears or not self._is_ours(delivery):
                    delivery.acknowledge()
                    continue
                if not self._dispatcher.knows(delivery):
                    self._start(self._dispatcher.lay_aside(delivery))
                    continue
                subscription = self._dispatcher.subscription(delivery)
                if subscription.handler is not None:
                    self._start(self._dispatcher.deliver(delivery, broker_index))
                else:
                    batches.setdefault(subscription.topic.template, []).append(delivery)
            for batch in batches.values():
                under_way.add(self._start(self._dispatcher.deliver_batch(batch, broker_index)))
                if len(under_way) == _BATCHES:
                    _, under_way = await asyncio.wait(
                        under_way, return_when=asyncio.FIRST_COMPLETED
                    )

    def _is_ours(self, delivery: Delivery) -> bool:
        """Whether this worker handles it; where the MQTT broker does not share, its topic tells.

        rumqttd dies of a shared subscription whose client comes back (tests/mqtt), so on it every
        worker gets everything and takes the senders that hash to its number.
        """
        if self._share is None:
            return True
        number, workers = self._share
        return zlib.crc32(delivery.message.topic.encode()) % workers == number

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name=f"{self._service.name} message")
        self._in_hand.add(task)
        task.add_done_callback(self._in_hand.discard)
        return task

    # -- the stream -------------------------------------------------------------------------------

    async def _read(self, number: int, struck: AckBatcher) -> None:
        """Handle what this reader was given before, then what is new, until Redis fails.

        Whatever the failure cut off - an answer on its way, an acknowledgement - is then ours and
        not done: it is read again, not left to a take-over.
        """
        name, consumer = self._service.name, f"{self._consumer}-{number}"
        count, events = self._service.read_count, struck.store.events
        own = partial(events.own_pending, name, consumer, count=count)
        while True:
            await self._persist(lambda: self._consume_all(own, struck))
            with contextlib.suppress(UnavailableError):
                found = 0
                while True:
                    looks = _LOOKS if found and self._service.gather_s else 0
                    new = partial(self._gathered, struck.store, consumer, looks=looks)
                    found = await self._consume_once(new, struck, struck.later)

    async def _gathered(self, store: Store, consumer: str, *, looks: int) -> list[StreamEntry]:
        """Wait for entries; return them, with what comes in the moment after.

        While there are some, a service that gathers polls `looks` times: a blocking read would wake
        it for each entry, before Redis answers the worker that wrote it.
        """
        name, count, read = self._service.name, self._service.read_count, store.events.read
        for _ in range(looks):
            await asyncio.sleep(self._service.gather_s)
            if entries := await read(name, consumer, count=count):
                return entries
        entries = await read(name, consumer, count=count, block_ms=_BLOCK_MS)
        if entries and self._service.gather_s and len(entries) < count:
            await asyncio.sleep(self._service.gather_s)
            entries += await read(name, consumer, count=count - len(entries))
        return entries

    async def _take_over(self, struck: AckBatcher) -> None:
        events, name, consumer = struck.store.events, self._service.name, f"{self._consumer}-0"
        count = self._service.read_count
        while True:
            await asyncio.sleep(_TAKE_OVER_EVERY_S)
            gone = self._membership.gone() if self._membership else ()
            for fetch in (
                partial(events.take_over_from, name, consumer, gone, count=count),
                partial(events.take_over, name, consumer, idle_ms=_TAKE_OVER_IDLE_MS, count=count),
            ):
                await self._persist(partial(self._consume_all, fetch, struck))

    async def _consume_all(
        self, fetch: Callable[[], Awaitable[list[StreamEntry]]], struck: AckBatcher
    ) -> None:
        while await self._consume_once(fetch, struck, struck.now):
            pass

    async def _consume_once(
        self,
        fetch: Callable[[], Awaitable[list[StreamEntry]]],
        struck: AckBatcher,
        run: Callable[[Sequence[str]], Awaitable[None]],
    ) -> int:
        entries = await fetch()
        if entries:
            # Shielded: what is begun is finished and acknowledged, also while draining.
            await asyncio.shield(self._start(self._consume(entries, struck.store, run)))
        return len(entries)

    async def _consume(
        self,
        entries: Sequence[StreamEntry],
        store: Store,
        run: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for entry in self._dispatcher.worth_handling(entries):
                group.create_task(self._dispatcher.consume(entry, store), name=f"event {entry.id}")
        await run([entry.id for entry in entries])

    # -- the rest ---------------------------------------------------------------------------------

    async def _persist(self, attempt: Callable[[], Awaitable[object]]) -> None:
        async def once() -> None:
            await attempt()

        await self._dispatcher.persist(once)

    async def _repeat(
        self, interval_s: float, handler: Callable[[Context], Awaitable[Effects]], store: Store
    ) -> None:
        while True:
            await asyncio.shield(self._start(self._dispatcher.tick(handler, store)))
            await asyncio.sleep(interval_s)

    async def _restore(self, broker_index: int) -> None:
        """Put back what only that MQTT broker held, after each connection.

        That it still knows our session says nothing: Mosquitto starts again with sessions and
        retained messages as they were at its last autosave.
        """
        while True:
            await self._connected[broker_index].wait()
            self._connected[broker_index].clear()
            if self._membership:
                await self._persist(partial(self._membership.connected, broker_index))
            await self._persist(lambda: self._tell(ServiceState.READY))
            for handler in self._service.restorers:
                for store in self._stores:
                    await self._persist(partial(self._dispatcher.run, handler, store, broker_index))

    async def _follow_zones(self) -> None:
        while True:
            await asyncio.sleep(_ZONES_EVERY_S)
            with contextlib.suppress(UnavailableError):  # the next turn will see
                if await self._stores[0].zones.version() != self._zones_version:
                    self._dispatcher.zones, self._zones_version = await _zones(self._stores[0])
                    _log.info("zones reloaded", version=self._zones_version)
