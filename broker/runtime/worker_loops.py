"""The loops of one worker: what comes over MQTT and the stream, periodic work, and draining."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from broker.core.zones import ZoneIndex, ZoneKind
from broker.errors import UnavailableError
from broker.mqtt import BrokerPool, Connection, Delivery, connections_of
from broker.runtime import metrics
from broker.runtime.ack_batcher import AckBatcher
from broker.runtime.connections import status_of
from broker.runtime.dispatch import Dispatcher
from broker.runtime.externals import Externals
from broker.runtime.probes import Probes
from broker.runtime.service import Context, Effects, Zones
from broker.runtime.session_takeover import TakeOver
from broker.store import Store, StreamEntry
from schemas.messages import ServiceState

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


async def zones_in(store: Store) -> tuple[Zones, int]:
    """Return the zones that are stored, and their version."""
    number = await store.zones.version()
    zones = await store.zones.load()
    return Zones(
        *(
            ZoneIndex(zone for zone in zones if zone.kind is kind)
            for kind in (ZoneKind.POLICE, ZoneKind.MUNICIPALITY)
        )
    ), number


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """What one worker consists of.

    `membership` is its place among the workers. `connected` is set after each connection.
    """

    dispatcher: Dispatcher
    stores: Sequence[Store]
    mqtt: Connection | BrokerPool
    instance: str
    probes: Probes
    zones_version: int
    connected: Sequence[asyncio.Event]
    membership: TakeOver
    externals: Externals


class WorkerLoops:
    """The loops of one worker."""

    def __init__(self, parts: WorkerParts) -> None:
        self._dispatcher = parts.dispatcher
        self._service = parts.dispatcher.service
        self._stores = parts.stores
        self._mqtt = parts.mqtt
        self._consumer = parts.instance
        self._probes = parts.probes
        self._zones_version = parts.zones_version
        self._connected = parts.connected
        self._membership = parts.membership
        self._now, self._pause = parts.externals.clock.now, parts.externals.pause
        self._in_hand: set[asyncio.Task[None]] = set()
        self._batchers = [AckBatcher(store, parts.dispatcher) for store in parts.stores]

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
                await stop.wait()
                on_state(ServiceState.DRAINING)
                for task in leaving:
                    task.cancel()
                await self._membership.leave()
                for task in staying:
                    task.cancel()
        finally:
            await self._drain()
            metrics.tell()
        await self._tell(ServiceState.STOPPED)
        await self._membership.clear_status()

    def _loops_to_the_end(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        """Return what goes on until this worker has taken what is queued for it."""
        return [
            ("heartbeat", self._membership.beat()),
            *(
                (f"mqtt {broker_index}", self._receive(broker_index, connection))
                for broker_index, connection in enumerate(connections_of(self._mqtt))
            ),
        ]

    def _loops(self) -> list[tuple[str, Coroutine[None, None, None]]]:
        loops: list[tuple[str, Coroutine[None, None, None]]] = [
            ("zones", self._follow_zones()),
            ("metrics", self._tell_metrics()),
            ("probes", self._probes.run()),
            ("take-over of sessions", self._membership.take_over(self._receive)),
            ("moved topics", self._membership.give_up_moved()),
            *(
                (f"restore {broker_index}", self._restore(broker_index))
                for broker_index in range(len(self._connected))
            ),
        ]
        if self._service.event_handlers:
            # With many partitions one reader each: they block on a connection of their own.
            readers = self._service.readers if len(self._stores) == 1 else 1
            for batcher in self._batchers:
                tag = f" {batcher.store.keys.partition}" if len(self._stores) > 1 else ""
                loops += [
                    (f"events{tag} {number}", self._read(number, batcher))
                    for number in range(readers)
                ]
                loops += [
                    (f"take-over{tag}", self._take_over(batcher)),
                    (f"acknowledgements{tag}", batcher.run()),
                ]
        loops += [
            (handler.__name__, self._repeat(interval_s, handler, store))
            for interval_s, handler in self._service.periodic
            for store in self._stores
        ]
        return loops

    async def _tell(self, state: ServiceState) -> None:
        status = status_of(self._service, self._consumer, state, self._now())
        await self._mqtt.publish(status)

    async def _drain(self) -> None:
        if self._in_hand:
            _, late = await asyncio.wait(self._in_hand, timeout=_DRAIN_S)
            for task in late:  # unacknowledged: the MQTT broker or the stream brings them again
                task.cancel()
        with contextlib.suppress(UnavailableError):
            for batcher in self._batchers:
                await batcher.acknowledge()

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
                if delivery.message.clears:
                    delivery.acknowledge()
                    continue
                subscription = self._service.subscription(delivery.message.topic)
                if subscription is None:
                    self._start(self._dispatcher.lay_aside(delivery))
                elif subscription.handler is not None:
                    self._start(self._dispatcher.deliver(delivery, broker_index))
                else:
                    batches.setdefault(subscription.topic.template, []).append(delivery)
            for batch in batches.values():
                under_way.add(self._start(self._dispatcher.deliver_batch(batch, broker_index)))
                if len(under_way) == _BATCHES:
                    _, under_way = await asyncio.wait(
                        under_way, return_when=asyncio.FIRST_COMPLETED
                    )

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name=f"{self._service.name} message")
        self._in_hand.add(task)
        task.add_done_callback(self._in_hand.discard)
        return task

    # -- the stream -------------------------------------------------------------------------------

    async def _read(self, number: int, batcher: AckBatcher) -> None:
        """Handle what this reader was given before, then what is new, until Redis fails.

        Whatever the failure cut off - an answer on its way, an acknowledgement - is then ours and
        not done: it is read again, not left to a take-over.
        """
        name, consumer = self._service.name, f"{self._consumer}-{number}"
        count, events = self._service.read_count, batcher.store.events
        own = partial(events.own_pending, name, consumer, count=count)
        while True:
            await self._persist(lambda: self._consume_all(own, batcher))
            with contextlib.suppress(UnavailableError):
                found = 0
                while True:
                    looks = _LOOKS if found and self._service.gather_s else 0
                    new = partial(self._gathered, batcher.store, consumer, looks=looks)
                    found = await self._consume_once(new, batcher, batcher.later)

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

    async def _take_over(self, batcher: AckBatcher) -> None:
        events, name, consumer = batcher.store.events, self._service.name, f"{self._consumer}-0"
        count = self._service.read_count
        while True:
            await self._pause("take-over", _TAKE_OVER_EVERY_S)
            gone = self._membership.gone()
            for fetch in (
                partial(events.take_over_from, name, consumer, gone, count=count),
                partial(events.take_over, name, consumer, idle_ms=_TAKE_OVER_IDLE_MS, count=count),
            ):
                await self._persist(partial(self._consume_all, fetch, batcher))

    async def _consume_all(
        self, fetch: Callable[[], Awaitable[list[StreamEntry]]], batcher: AckBatcher
    ) -> None:
        while await self._consume_once(fetch, batcher, batcher.now):
            pass

    async def _consume_once(
        self,
        fetch: Callable[[], Awaitable[list[StreamEntry]]],
        batcher: AckBatcher,
        run: Callable[[Sequence[str]], Awaitable[None]],
    ) -> int:
        entries = await fetch()
        if entries:
            # Shielded: what is begun is finished and acknowledged, also while draining.
            await asyncio.shield(self._start(self._consume(entries, batcher.store, run)))
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
            await self._pause(handler.__name__, interval_s)

    async def _restore(self, broker_index: int) -> None:
        """Put back what only that MQTT broker held, after each connection.

        That it still knows our session says nothing: Mosquitto starts again with sessions and
        retained messages as they were at its last autosave.
        """
        while True:
            await self._connected[broker_index].wait()
            self._connected[broker_index].clear()
            await self._persist(partial(self._membership.connected, broker_index))
            await self._persist(lambda: self._tell(ServiceState.READY))
            for handler in self._service.restorers:
                for store in self._stores:
                    await self._persist(partial(self._dispatcher.run, handler, store, broker_index))

    async def _tell_metrics(self) -> None:
        while True:
            await self._pause("metrics", _METRICS_EVERY_S)
            metrics.tell()

    async def _follow_zones(self) -> None:
        while True:
            await self._pause("zones", _ZONES_EVERY_S)
            with contextlib.suppress(UnavailableError):  # the next turn will see
                if await self._stores[0].zones.version() != self._zones_version:
                    self._dispatcher.zones, self._zones_version = await zones_in(self._stores[0])
                    _log.info("zones reloaded", version=self._zones_version)
