"""The broker's side of the wire: played by one raw aiomqtt client, or the real services."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiomqtt
import pytest
from msgspec import Struct
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis.asyncio import Redis

from broker.runtime.config import Settings
from broker.runtime.worker import run_worker
from broker.store import Store
from devices import delivery, sync
from devices.device_connection import NODELAY, Broker
from devices.journal import Journal
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis
from schemas.codec import encode
from schemas.ids import alert_id
from schemas.messages import Alert, AlertReason, Outcome, Position, Receipt, ServiceState, Subject
from schemas.taxonomy import Names, Urgency
from services import load, routes

Answer = Callable[["Received"], Receipt | None]


WITHIN_S = 30.0  # how long a test waits for what must come, on a machine with other work


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    response_topic: str | None
    correlation: bytes | None

    @property
    def subject(self) -> Subject:
        return Subject(self.topic.rpartition("/")[2])


def accept(message: Received) -> Receipt:
    return Receipt(subject=message.subject, outcome=Outcome.ACCEPTED, at=datetime.now(UTC))


@dataclass
class Services:
    """Receives what devices send, and answers as `answer` says; tests may publish through it."""

    client: aiomqtt.Client
    answer: Answer = accept
    received: list[Received] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        async for message in self.client.messages:
            properties: Any = message.properties
            received = Received(
                str(message.topic),
                bytes(message.payload),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
            self.received.append(received)
            self._news.set()
            receipt = self.answer(received)
            if receipt is not None and received.response_topic:
                await self.send(received.response_topic, receipt, received.correlation)

    async def send(self, topic: str, payload: Struct, correlation: bytes | None = None) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if correlation is not None:
            properties.CorrelationData = correlation
        await self.client.publish(topic, encode(payload), qos=1, properties=properties)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until `met` holds, looked at whenever a message comes."""
        async with asyncio.timeout(WITHIN_S):
            while not met():
                self._news.clear()
                await self._news.wait()


def service_client(server: EmbeddedMqtt) -> aiomqtt.Client:
    return aiomqtt.Client(
        server.host,
        server.port,
        username="nabij",
        password="service-secret",
        protocol=aiomqtt.ProtocolVersion.V5,
        socket_options=NODELAY,
    )


async def play_services(stack: AsyncExitStack, server: EmbeddedMqtt) -> Services:
    client = await stack.enter_async_context(service_client(server))
    await client.subscribe([("nabij/v1/u/+/up/#", 1), ("nabij/v1/police/+/command", 1)])
    services = Services(client)
    serving = asyncio.create_task(services.serve(), name="services")
    stack.callback(serving.cancel)
    return services


@pytest.fixture
def broker(mqtt_server: EmbeddedMqtt) -> Broker:
    return Broker(mqtt_server.host, mqtt_server.port)


@pytest.fixture
async def services(mqtt_server: EmbeddedMqtt) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield await play_services(stack, mqtt_server)


@pytest.fixture
def services_on() -> Callable[[EmbeddedMqtt], AbstractAsyncContextManager[Services]]:
    """Play the services on a broker of the test's own."""

    @asynccontextmanager
    async def playing(server: EmbeddedMqtt) -> AsyncIterator[Services]:
        async with AsyncExitStack() as stack:
            yield await play_services(stack, server)

    return playing


@pytest.fixture
def incident() -> UUID:
    return UUID("5b1cf2cd-8f3a-5e6c-9a50-61d5ab5e0001")


@pytest.fixture
def alert(incident: UUID) -> Alert:
    now = datetime.now(UTC)
    return Alert(
        id=alert_id(incident, 1),
        incident=incident,
        wave=1,
        reason=AlertReason.NEARBY,
        category="fire",
        names=Names(nl="Brand", fr="Incendie", en="Fire"),
        urgency=Urgency.URGENT,
        location=Position(lat=51.0543, lon=3.7217),
        radius_m=500.0,
        opened_at=now,
        seen_at=now,
        expires_at=now + timedelta(minutes=30),
        advice=Names(nl="Bel 112.", fr="Appelez le 112.", en="Call 112."),
    )


@asynccontextmanager
async def running_services(
    mqtt_url: str, redis_url: str, directory: Path, names: Sequence[str]
) -> AsyncIterator[None]:
    """Run the real services in this process, drained at the end."""
    settings = Settings(
        mqtt_url=mqtt_url, redis_url=redis_url, share_group="secret-of-the-test", data_dir=directory
    )
    stop, ready = asyncio.Event(), asyncio.Semaphore(0)

    def on_state(state: ServiceState) -> None:
        if state is ServiceState.READY:
            ready.release()

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            service = load(name)
            run = run_worker(
                service, settings, worker=1, routes=routes(), stop=stop, on_state=on_state
            )
            tasks.create_task(run, name=name)
        try:
            async with asyncio.timeout(WITHIN_S):
                for _ in names:
                    await ready.acquire()
            yield
        finally:
            stop.set()


@dataclass(frozen=True)
class Stack:
    """Servers of a test's own, with the real services on them."""

    mqtt: EmbeddedMqtt
    redis: EmbeddedRedis
    store: Store

    @property
    def broker(self) -> Broker:
        return Broker(self.mqtt.host, self.mqtt.port)

    async def reports(self) -> list[UUID]:
        """The id of every report in the store: twice, if it is there twice."""
        redis = Redis.from_url(self.redis.url)
        async with redis:
            keys = [key async for key in redis.scan_iter("*:reports:*")]
            return [UUID(name.decode()) for key in keys for name in await redis.hkeys(key)]


@pytest.fixture
async def stack(
    own_mqtt: EmbeddedMqtt, own_redis: EmbeddedRedis, accounts: dict[str, Account], data_dir: Path
) -> AsyncIterator[Stack]:
    async with (
        Store(own_redis.url, routes=routes()) as store,
        running_services(
            own_mqtt.url_for(accounts["nabij"]),
            own_redis.url,
            data_dir,
            ("intake", "presence", "alerting", "groups", "police", "relay"),
        ),
    ):
        yield Stack(own_mqtt, own_redis, store)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "ann.journal") as journal:
        yield journal


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats and syncs come soon after each other, as no test can wait for those of real devices."""
    monkeypatch.setattr(delivery, "RECEIPT_WITHIN_S", 0.02)
    monkeypatch.setattr(delivery, "RETRY_MOST_S", 0.05)
    monkeypatch.setattr(sync, "_LATE_S", 0.05)
    monkeypatch.setattr(sync, "_BACK_S", 0.0)
    monkeypatch.setattr(sync, "_GAP_APART_S", 0.0)
