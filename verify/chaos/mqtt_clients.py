"""Clients that watch the MQTT broker itself: what it loses of theirs, nobody sends again (I11).

A publisher writes down what is acknowledged. Two sessions that are kept write down what they get:
one of them is always away, so that each kill finds a session that waits. They subscribe once, and
from then on rely on the MQTT broker to remember it. Now and then a client without a session reads
what is retained. They use topics that are in no contract, so they disturb nobody.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from random import Random

from broker.mqtt import (
    Connection,
    ConnectionHooks,
    ConnectionOptions,
    ConnectRefused,
    Endpoint,
    Message,
    MqttError,
    PubAckReasonCode,
)
from schemas import topics
from verify.chaos.chaos_log import Log
from verify.chaos.chaos_world import ChaosWorld
from verify.oracle.observations import (
    PublishAcknowledged,
    PublishDelivered,
    RetainedRead,
    SessionOpened,
)

CLIENTS = ("kept-1", "kept-2")
_KEPT = f"{topics.ROOT}/chaos/kept"
_RETAINED = f"{topics.ROOT}/chaos/retained"
_END = f"{topics.ROOT}/chaos/end"  # a reader sends it to itself, behind all that is retained
_KEPT_TOPICS, _RETAINED_TOPICS = 3, 50  # what is retained stands for 10 s: readers see what is lost
_RETAINED_EVERY = 4
_EVERY_S = 0.05
_STAYS_S = (0.2, 1.5)
_CONNECT_S = 30.0  # then a turn goes by: of an MQTT broker that never comes back the judge tells
_LAST_S = 15.0  # when all is over, what has not come by then does not come
_PUBACK_S = 3.0
_AT_ONCE = 200


class Publisher:
    """Publishes at a modest rate; `acknowledged` has the last number of each topic."""

    def __init__(self, endpoint: Endpoint, log: Log) -> None:
        self.acknowledged: dict[str, int] = {}
        self.connection = Connection(
            endpoint,
            client_id="chaos-publisher",
            options=ConnectionOptions(session_expiry_s=0, connect_timeout_s=_CONNECT_S),
        )
        self._log = log
        self._on_their_way: set[asyncio.Future[PubAckReasonCode]] = set()
        self._at_next: Callable[[], None] | None = None

    async def publish(self) -> None:
        """Publish, forever; each fourth message is retained."""
        for number in itertools.count(1):
            topic = f"{_KEPT}/{number % _KEPT_TOPICS}"
            if retain := number % _RETAINED_EVERY == 0:
                topic = f"{_RETAINED}/{number // _RETAINED_EVERY % _RETAINED_TOPICS}"
            message = Message(topic, b"%d" % number, retain=retain)
            sent = self.connection.publish_nowait(message)
            self._on_their_way.add(sent)
            sent.add_done_callback(partial(self._settled, message))
            await asyncio.sleep(_EVERY_S)

    def _settled(self, message: Message, sent: asyncio.Future[PubAckReasonCode]) -> None:
        """A message is acknowledged, or refused, or the run ends."""
        self._on_their_way.discard(sent)
        if sent.cancelled() or sent.exception() is not None or sent.result().is_failure:
            return
        if self._at_next is not None:
            self._at_next()
        topic, number, retained = message.topic, int(message.payload), message.retain
        self._log.write(
            PublishAcknowledged(t=time.time(), topic=topic, number=number, retained=retained)
        )
        if not retained:
            self.acknowledged[topic] = number

    async def acknowledgement_then(self, kill: Callable[[], None]) -> None:
        """Publish on, and `kill` in the instant of the next PUBACK; also when none comes."""
        struck = asyncio.Event()

        def strike() -> None:
            kill()
            struck.set()

        self._at_next = strike
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PUBACK_S):
                await struck.wait()
        self._at_next = None
        kill()

    async def wait_acknowledged(self) -> None:
        """Wait until nothing is on its way."""
        if self._on_their_way:
            await asyncio.wait(self._on_their_way, timeout=_LAST_S)


class KeptSession:
    """A client that comes and goes, whose session is to stay."""

    def __init__(self, name: str, endpoint: Endpoint, log: Log) -> None:
        self._name = name
        self._endpoint = endpoint
        self._log = log
        self._is_subscribed = False
        self._had: dict[str, int] = {}  # the highest number of each topic
        self._came = asyncio.Event()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Be there, and read, while the context lasts."""
        filters = () if self._is_subscribed else (f"{_KEPT}/+",)
        connection = Connection(
            self._endpoint,
            client_id=self._name,
            subscriptions=filters,
            options=ConnectionOptions(connect_timeout_s=_CONNECT_S, must_connect=False),
            hooks=ConnectionHooks(on_connect=lambda: self._opened(connection, filters)),
        )
        async with connection:
            reading = asyncio.create_task(self._read(connection), name=self._name)
            try:
                yield
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    def _opened(self, connection: Connection, filters: Sequence[str]) -> None:
        """It is connected. A session that was forgotten subscribes anew the next time."""
        present = connection.session_present
        self._log.write(SessionOpened(t=time.time(), client=self._name, present=present))
        self._is_subscribed = present or bool(filters)

    async def _read(self, connection: Connection) -> None:
        while True:
            for delivery in await connection.receive(_AT_ONCE):
                topic, number = delivery.message.topic, int(delivery.message.payload)
                self._log.write(
                    PublishDelivered(t=time.time(), client=self._name, topic=topic, number=number)
                )
                delivery.acknowledge()
                self._had[topic] = max(number, self._had.get(topic, 0))
            self._came.set()

    async def wait_for(self, numbers: Mapping[str, int]) -> None:
        """Wait until the message with this number has come on each topic."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                while any(self._had.get(topic, 0) < one for topic, one in numbers.items()):
                    self._came.clear()
                    await self._came.wait()


class MqttClients:
    """All of them, of the account in `endpoint`; `random` says who stays for how long."""

    def __init__(self, endpoint: Endpoint, log: Log, random: Random) -> None:
        self._endpoint = endpoint
        self._log = log
        self._random = random
        self._publisher = Publisher(endpoint, log)
        self._kept = [KeptSession(name, endpoint, log) for name in CLIENTS]

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Publisher]:
        """Watch while the context lasts; its end waits for what is due to them."""
        for kept in self._kept:  # before anything is published
            async with kept.connected():
                pass
        async with self._publisher.connection:
            tasks = [
                asyncio.create_task(self._publisher.publish(), name="publish"),
                asyncio.create_task(self._take_turns(), name="take turns"),
            ]
            try:
                yield self._publisher
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    raise end
            await self._finish()

    async def _take_turns(self) -> None:
        """Come and go, forever."""
        for kept in itertools.cycle(self._kept):
            async with kept.connected():
                await asyncio.sleep(self._random.uniform(*_STAYS_S))
            await self._read_retained()

    async def _finish(self) -> None:
        """Let all that is acknowledged come."""
        await self._publisher.wait_acknowledged()
        for kept in self._kept:
            async with kept.connected():
                await kept.wait_for(self._publisher.acknowledged)
        await self._read_retained()

    async def _read_retained(self) -> None:
        """Write down what a subscriber who comes only now gets; nothing if that is cut off."""
        try:
            async with asyncio.timeout(_LAST_S):
                self._log.write(await self._retained())
        except ConnectRefused:
            raise
        except (MqttError, TimeoutError):
            return

    async def _retained(self) -> RetainedRead:
        began = time.time()
        numbers: dict[str, int] = {}
        reader = Connection(
            self._endpoint,
            client_id="chaos-reader",
            subscriptions=(f"{_RETAINED}/+", _END),
            options=ConnectionOptions(session_expiry_s=0, reconnects=False),
        )
        async with reader:
            await reader.publish(Message(_END, b"end"))
            while True:
                for delivery in await reader.receive(_AT_ONCE):
                    delivery.acknowledge()
                    if delivery.message.topic == _END:
                        return RetainedRead(t=began, numbers=numbers)
                    numbers.setdefault(delivery.message.topic, int(delivery.message.payload))


@contextlib.asynccontextmanager
async def mqtt_clients(world: ChaosWorld) -> AsyncIterator[Publisher | None]:
    """Have them watch while the context lasts, where acknowledged means on disk; else None."""
    if not world.mqtt_has_journal:
        yield None
        return
    endpoint = Endpoint.from_url(world.mqtt.url_for(world.accounts["operator"]))
    random = Random(f"mqtt {world.scale.seed}")
    with Log(world.logs / "mqtt.jsonl") as log:
        async with MqttClients(endpoint, log, random).watching() as publisher:
            yield publisher
