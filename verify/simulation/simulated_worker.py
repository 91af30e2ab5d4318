"""One worker of a service: the real handlers and dispatcher, on modelled connections.

Its loops mean what those of `broker/runtime/worker_loops.py` mean; what waits for time to pass
there waits here until there is something due, which is why a simulated minute costs milliseconds.
"""

import asyncio
import random
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from broker.core.policy import Policy
from broker.mqtt import Connection, Delivery, Message, ServerStatus
from broker.runtime.clock import Clock
from broker.runtime.dispatch import Dispatcher
from broker.runtime.externals import Externals
from broker.runtime.service import Context, Effects, Service, Zones
from broker.store import Partitions, Store, StreamEntry
from broker.store.kernel.keys import Keys
from services import routes
from verify.simulation.mqtt_model import Client, MqttBroker, matches
from verify.simulation.redis_model import raw
from verify.simulation.redis_model_server import Line, RedisServer
from verify.simulation.virtual_time import VirtualLoop

KEYS = Keys()

_READ_COUNT = 16
_TAKE_OVER_EVERY_S = 3.0
_TAKE_OVER_IDLE_MS = 4_000
_SLOWLY_S = 100.0  # what only tidies up, or looks for what others have not done
# What a periodic handler looks at: it need not run while nothing there is due.
_WATCHED = {
    "fire_due": raw(KEYS.deadlines),
    "relay_due": raw(KEYS.outbox),
    "see_to_unconfirmed": raw(KEYS.unconfirmed),
}
_SOON_S = 0.012  # so long, about, a message is in hand
# What has no times: while anything is there, it runs at its interval.
_WATCHED_WHOLE = {"alarm_unattended": (raw(KEYS.undelivered_readers), raw(KEYS.unattended))}
_LEFT_OUT = {"heal_dropped"}  # the modelled MQTT broker drops nothing that it could tell of


class _Status(ServerStatus):
    """The status of the modelled MQTT broker, which is asked without a connection of its own."""

    def __init__(self, mqtt: MqttBroker, client: Client) -> None:
        super().__init__(connection=cast("Connection", client))
        self._mqtt = mqtt

    async def retained(self, filters: Sequence[str]) -> list[Message]:
        """Return what is retained on these topics."""
        return [
            message
            for topic, message in self._mqtt.retained.items()
            if any(matches(pattern, topic) for pattern in filters)
        ]


@dataclass(frozen=True, slots=True)
class SharedModels:
    """What all workers of a world share. `group` names the share group; empty: they divide by hash."""

    loop: VirtualLoop
    rng: random.Random
    redis: RedisServer
    mqtt: MqttBroker
    policy: Policy
    zones: Zones
    group: str
    hurried: bool = False  # a promise broken on purpose: acknowledge first, handle then
    callous: bool = False  # another: nobody takes over what a dead worker had in hand
    # By service: what strikes soon after one of its workers has taken something up.
    traps: "dict[str, Callable[[SimulatedWorker], None]]" = field(default_factory=dict)


class SimulatedWorker:
    """One process. `kill` is SIGKILL: whatever it was doing never goes on."""

    def __init__(self, service: Service, number: int, workers: int, around: SharedModels) -> None:
        self.service = service
        self.name = f"{service.name}-{number}"
        self.line = Line(around.redis, around.loop, around.rng, around.mqtt.delay)
        shared = f"$share/{around.group}/" if around.group else ""
        self.client = Client(
            around.mqtt,
            around.rng,
            self.name,
            filters=[
                shared + one.topic.filter() for one in service.subscriptions if one.moved_to is None
            ],
            on_message=self._take,
            on_online=self._restore,
        )
        self.store: Store | None = None
        self.partitions: Partitions | None = None
        self.dead = False
        self._around = around
        self._share = None if around.group else (number - 1, workers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: dict[str, list[Delivery]] = defaultdict(list)
        self._dispatcher: Dispatcher | None = None

    def start(self) -> None:
        """Connect and begin."""
        around = self._around
        self.store = Store(self.name, routes=routes())
        self.partitions = Partitions([self.store])
        self._dispatcher = Dispatcher(
            self.service,
            partitions=self.partitions,
            mqtt=cast("Connection", self.client),
            policy=around.policy,
            zones=around.zones,
            servers=[_Status(around.mqtt, self.client)],
            externals=Externals(
                clock=Clock(around.loop.unix, around.loop.time, monotonic=around.loop.time),
                dice=around.rng,
            ),
        )
        self.client.start()
        if self.service.event_handlers:
            self._start(self._read())
            if not around.callous:
                self._start(self._take_over())
        for interval_s, handler in self.service.periodic:
            if handler.__name__ not in _LEFT_OUT:
                self._start(self._repeat(interval_s, handler))

    def kill(self) -> None:
        """Die without a word."""
        self.dead = self.line.dead = True
        self.client.die()
        for task in self._tasks:
            task.cancel()

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher of a worker that has started."""
        assert self._dispatcher is not None
        return self._dispatcher

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._around.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            raise error

    def _take_up(self) -> None:
        strike = self._around.traps.pop(self.service.name, None)
        if strike is not None:
            self._around.loop.call_later(self._around.rng.uniform(0, _SOON_S), strike, self)

    def _restore(self) -> None:
        for handler in self.service.restorers:
            self._start(
                self.dispatcher.persist(
                    partial(self.dispatcher.run, handler, self.dispatcher.first)
                )
            )

    # -- MQTT -------------------------------------------------------------------------------------

    def _take(self, message: Message, number: int, epoch: int) -> None:
        delivery = Delivery(
            message,
            self._around.loop.time(),
            False,  # noqa: FBT003
            number,
            epoch,
            self.client.acknowledge,
        )
        is_ours = self._is_ours(message) and not message.clears
        if not is_ours or self._around.hurried:
            delivery.acknowledge()
        if not is_ours:
            return
        self._take_up()
        if self.dispatcher.subscription(delivery).handler is not None:
            self._start(self.dispatcher.deliver(delivery))
            return
        batch = self._batches[self.dispatcher.subscription(delivery).topic.template]
        batch.append(delivery)
        if len(batch) == 1:
            self._start(self._deliver_batch(batch))

    def _is_ours(self, message: Message) -> bool:
        if self._share is None:
            return True
        number, workers = self._share
        return zlib.crc32(message.topic.encode()) % workers == number

    async def _deliver_batch(self, batch: list[Delivery]) -> None:
        while batch:
            some = list(batch)
            await self.dispatcher.deliver_batch(some)
            del batch[: len(some)]

    # -- the stream -------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self.store is not None
        events, name = self.store.events, self.service.name
        await self._consume_all(lambda: events.own_pending(name, self.name, count=_READ_COUNT))
        while True:
            await self._consume_once(
                lambda: events.read(name, self.name, count=_READ_COUNT, block_ms=1_000)
            )

    async def _take_over(self) -> None:
        assert self.store is not None
        events, name = self.store.events, self.service.name
        group = self._around.redis.database.stream(raw(KEYS.events(name))).groups[name.encode()]
        while True:
            while not group.pending:
                await self._around.redis.watch(raw(KEYS.events(name)))
            await asyncio.sleep(_TAKE_OVER_EVERY_S)
            if group.pending:
                await self._consume_all(
                    lambda: events.take_over(
                        name, self.name, idle_ms=_TAKE_OVER_IDLE_MS, count=_READ_COUNT
                    )
                )

    async def _consume_all(self, fetch: Callable[[], Awaitable[list[StreamEntry]]]) -> None:
        while await self._consume_once(fetch):
            pass

    async def _consume_once(self, fetch: Callable[[], Awaitable[list[StreamEntry]]]) -> int:
        found: list[StreamEntry] = []

        async def once() -> None:
            found[:] = await fetch()
            if found:
                await self._consume(found)

        await self.dispatcher.persist(once)
        return len(found)

    async def _consume(self, entries: Sequence[StreamEntry]) -> None:
        assert self.store is not None
        acknowledge = self.store.events.acknowledge
        identifiers = [entry.id for entry in entries]
        self._take_up()
        if self._around.hurried:
            await acknowledge(self.service.name, identifiers)
        await asyncio.gather(
            *(self.dispatcher.consume(entry, self.dispatcher.first) for entry in entries)
        )
        await acknowledge(self.service.name, identifiers)

    # -- what is due ------------------------------------------------------------------------------

    async def _repeat(
        self, interval_s: float, handler: Callable[[Context], Awaitable[Effects]]
    ) -> None:
        watched = _WATCHED.get(handler.__name__)
        whole = _WATCHED_WHOLE.get(handler.__name__)
        while True:
            if whole is not None:
                await self._until_any(whole)
                await asyncio.sleep(interval_s)
            elif watched is None:
                await asyncio.sleep(max(interval_s, _SLOWLY_S))
            else:
                await self._until_due(watched)
                await asyncio.sleep(self._around.rng.uniform(0, interval_s))
            await self.dispatcher.tick(handler, self.dispatcher.first)

    async def _until_any(self, keys: Sequence[bytes]) -> None:
        redis = self._around.redis
        while not any(redis.database.value(key) for key in keys):
            await redis.watch(raw(KEYS.outbox))  # with which they change

    async def _until_due(self, key: bytes) -> None:
        redis, loop = self._around.redis, self._around.loop
        while True:
            scores = redis.database.value(key)
            wait_s = min(scores.values()) / 1000 - loop.unix() if scores else None
            if wait_s is not None and wait_s <= 0:
                return
            changed = redis.watch(key)
            await asyncio.wait([changed], timeout=wait_s)
            if not redis.up:
                await asyncio.sleep(0.1)
