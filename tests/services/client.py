"""A raw MQTT 5 client of the tests: publishes any bytes, and remembers all that it is sent."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.device_connection import ended
from nabij.local.embedded import Account, EmbeddedMqtt
from schemas.ids import new_id
from schemas.topics import ROOT

WITHIN_S = 30.0  # how long a test waits for what must come, on a machine with other work


@dataclass(frozen=True)
class Received:
    """One message as it came: `topic` without the root, `payload` decoded (None if no JSON)."""

    topic: str
    payload: Any
    raw: bytes
    qos: int
    retain: bool
    correlation: bytes | None
    user_properties: list[tuple[str, str]]

    def has(self, prefix: str, fields: Mapping[str, Any]) -> bool:
        if not self.topic.startswith(prefix):
            return False
        payload = self.payload if isinstance(self.payload, dict) else {}
        return all(payload.get(name) == value for name, value in fields.items())


@dataclass
class Client:
    """A connected device, desk or operator.

    It `confirms` what it reads of escalations, cases and questions, as every reader must.
    """

    name: str
    mqtt: aiomqtt.Client
    confirms: bool = True
    received: list[Received] = field(default_factory=list)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def collect(self) -> None:
        """Remember what comes, until the connection is lost."""
        with contextlib.suppress(aiomqtt.MqttError):
            async for message in self.mqtt.messages:
                received = _received(message)
                async with self._arrived:
                    self.received.append(received)
                    self._arrived.notify_all()
                if self.confirms and (reader := _reader_of(received)):
                    await self.confirm(reader, received.payload["id"])

    async def confirm(self, reader: str, *identifiers: str) -> None:
        """Say that the reader, as in police/gent, has these messages."""
        await self.publish(f"{reader}/up/receipt", {"ids": identifiers})

    def messages(self, prefix: str = "", **fields: Any) -> list[Received]:
        """The messages on topics that begin with `prefix` and have these fields."""
        return [message for message in self.received if message.has(prefix, fields)]

    def on(self, prefix: str, **fields: Any) -> list[Any]:
        """The payloads of `messages`."""
        return [message.payload for message in self.messages(prefix, **fields)]

    async def until(self, met: Callable[[], bool], what: str) -> None:
        """Wait until `met` holds, looked at whenever a message comes."""
        async with self._arrived:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await self._arrived.wait_for(met)
            except TimeoutError:
                came = "\n".join(f"{one.topic} {one.raw[:250]!r}" for one in self.received[-12:])
                raise AssertionError(f"{self.name} wanted {what}; last came\n{came}") from None

    async def expect(self, prefix: str, *, count: int = 1, **fields: Any) -> Any:
        """Wait until `count` such messages have come; the payload of the last of them."""
        await self.until(
            lambda: len(self.messages(prefix, **fields)) >= count, f"{count} of {prefix} {fields}"
        )
        return self.on(prefix, **fields)[count - 1]

    async def answer_to(self, correlation: bytes) -> Received:
        """Wait for the receipt that carries this correlation data; the message itself does too."""

        def found() -> list[Received]:
            return [
                one
                for one in self.received
                if one.correlation == correlation
                and one.topic.endswith("/receipt")
                and not one.topic.endswith("/up/receipt")
            ]

        await self.until(lambda: bool(found()), f"the answer to {correlation!r}")
        return found()[0]

    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
        retain: bool = False,
        user_properties: Sequence[tuple[str, str]] = (),
        expiry_s: int | None = None,
    ) -> None:
        """Publish bytes as they are, anything else as JSON; topics are without the root."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        settings = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response_topic is not None:
            settings.ResponseTopic = f"{ROOT}/{response_topic}"
        if correlation is not None:
            settings.CorrelationData = correlation
        if user_properties:
            settings.UserProperty = list(user_properties)
        if expiry_s is not None:
            settings.MessageExpiryInterval = expiry_s
        await self.mqtt.publish(
            f"{ROOT}/{topic}", body, qos=qos, retain=retain, properties=settings, timeout=WITHIN_S
        )

    async def ask(self, topic: str, payload: Any, **settings: Any) -> Received:
        """Publish with fresh correlation data, and wait for the message that brings it back."""
        correlation = new_id().bytes
        await self.publish(topic, payload, correlation=correlation, **settings)
        return await self.answer_to(correlation)


def _received(message: aiomqtt.Message) -> Received:
    raw = bytes(message.payload)
    return Received(
        topic=str(message.topic).removeprefix(f"{ROOT}/"),
        payload=_decoded(raw),
        raw=raw,
        qos=message.qos,
        retain=message.retain,
        correlation=getattr(message.properties, "CorrelationData", None),
        user_properties=getattr(message.properties, "UserProperty", []),
    )


def _reader_of(received: Received) -> str | None:
    """Return the reader whose word is asked for, if it is."""
    kind, name, what, *_ = received.topic.split("/")[:-1] + [""] * 3
    asked = (kind, what) in (("police", "escalation"), ("city", "case"))
    return f"{kind}/{name}" if asked or received.topic.endswith("/down/question") else None


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


Connect = Callable[..., Awaitable[Client]]


@asynccontextmanager
async def connecting(
    server: EmbeddedMqtt, accounts: Mapping[str, Account]
) -> AsyncIterator[Connect]:
    """Give a function that connects clients: `connect("ann")`, `connect("nabij", "police/#")`."""
    async with AsyncExitStack() as clients:

        async def opened(username: str, *filters: str, confirms: bool = True) -> Client:
            mqtt = aiomqtt.Client(
                server.host,
                server.port,
                username=username,
                password=accounts[username].password,
                identifier=f"test-{username}-{new_id().hex[-8:]}",
                protocol=aiomqtt.ProtocolVersion.V5,
                socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            )
            await clients.enter_async_context(_forgiving(mqtt))
            client = Client(username, mqtt, confirms)
            collecting = asyncio.create_task(client.collect(), name=f"collect {username}")
            clients.push_async_callback(ended, collecting)
            for topic in filters or (f"u/{username}/down/#",):
                whole = topic.startswith(("$share/", "#", ROOT))
                await mqtt.subscribe(topic if whole else f"{ROOT}/{topic}", qos=1)
            return client

        yield opened


@asynccontextmanager
async def _forgiving(mqtt: aiomqtt.Client) -> AsyncIterator[None]:
    """A client whose server a test has killed cannot say goodbye."""
    await mqtt.__aenter__()
    try:
        yield
    finally:
        with contextlib.suppress(aiomqtt.MqttError):
            await mqtt.__aexit__(None, None, None)
