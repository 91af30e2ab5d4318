"""Clients that others have written, on our MQTT broker: mosquitto_sub and _pub, paho, aiomqtt, mqtt.js."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import missing
from tests.edge.client_kits import (
    V5,
    V311,
    AiomqttKit,
    Kit,
    MosquittoKit,
    MqttJsKit,
    Node,
    Options,
    PahoKit,
    Received,
)
from tests.edge.sockets import certificates, hosted

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE_MODULES = Path(__file__).parents[2] / "examples" / "node" / "node_modules"
KITS = {
    "mosquitto": MosquittoKit,
    "paho": PahoKit,
    "aiomqtt": AiomqttKit,
    "mqtt.js": MqttJsKit,
}
LARGE = bytes(range(256)) * 400  # 100 KiB


class Clients:
    """Starts clients of one kit and version at one server; what is still there at the end leaves."""

    def __init__(self, kind: type[Kit], options: dict[str, Any], stack: AsyncExitStack) -> None:
        self._kind = kind
        self._options = options
        self._stack = stack

    async def start(self, client_id: str, topic: str | None = None, **options: Any) -> Kit:
        kit = self._kind(Options(client_id=client_id, topic=topic, **self._options, **options))
        await kit.start()
        return kit

    async def start_until_the_end(self, client_id: str, topic: str | None = None) -> Kit:
        kit = await self.start(client_id, topic)
        self._stack.push_async_callback(kit.leave)
        return kit


@pytest_asyncio.fixture(params=KITS, scope="module", loop_scope="module")
async def kind(
    request: pytest.FixtureRequest, program: Callable[..., str]
) -> AsyncIterator[type[Kit]]:
    if request.param == "mosquitto":
        program("mosquitto_sub")
    if request.param != "mqtt.js":
        yield KITS[request.param]
        return
    program("node")
    if not NODE_MODULES.is_dir():
        missing("packages of examples/node (npm install there)")
    MqttJsKit.node = Node()
    await MqttJsKit.node.start()
    yield MqttJsKit
    await MqttJsKit.node.stop()


@pytest.fixture(params=[V311, V5], ids=["3.1.1", "5"])
def version(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@asynccontextmanager
async def clients_of(
    kind: type[Kit], version: int, directory: Path, openssl: str | None = None
) -> AsyncIterator[Clients]:
    """A server with a journal, and with TLS if there is an `openssl` to make a certificate."""
    options: dict[str, Any] = {"version": version}
    tls = None
    if openssl is not None:
        tls = certificates(openssl, directory)
        options["certificate"] = directory / "certificate.pem"
    async with hosted(tls=tls, directory=directory / "journal") as host, AsyncExitStack() as stack:
        yield Clients(kind, {**options, "port": host.server.ports[0]}, stack)


async def test_messages_of_each_qos_arrive_as_they_were_sent(
    kind: type[Kit], version: int, tmp_path: Path
) -> None:
    async with clients_of(kind, version, tmp_path) as clients:
        reader = await clients.start_until_the_end("reader", "a/+")
        sender = await clients.start_until_the_end("sender")
        for qos, payload in itertools.product((0, 1, 2), (b"small", LARGE)):
            message = Received(f"a/{qos}", payload, qos, retain=False)
            await sender.publish(message)
            assert await reader.next() == message


async def test_what_comes_while_it_is_away_waits_for_it(
    kind: type[Kit], version: int, tmp_path: Path
) -> None:
    async with clients_of(kind, version, tmp_path) as clients:
        reader = await clients.start("reader", "a/+", is_kept=True)
        await reader.leave()
        sender = await clients.start_until_the_end("sender")
        sent = [Received("a/1", f"{qos}".encode(), qos, retain=False) for qos in (1, 2, 1, 2)]
        for message in sent:
            await sender.publish(message)
        back = await clients.start("reader", "a/+", is_kept=True)
        assert sorted([await back.next() for _ in sent], key=str) == sorted(sent, key=str)
        await back.leave()


async def test_its_will_is_published_if_it_breaks_off_and_not_if_it_leaves(
    kind: type[Kit], version: int, tmp_path: Path
) -> None:
    async with clients_of(kind, version, tmp_path) as clients:
        reader = await clients.start_until_the_end("reader", "gone/+")
        for name, leaves in (("ann", True), ("bob", False)):
            will = Received(f"gone/{name}", b"gone", 1, retain=False)
            client = await clients.start(name, "other", will=will)
            await (client.leave() if leaves else client.break_off())
        if (
            kind is MosquittoKit and version == V5
        ):  # it leaves with reason 0x04, «with will message»
            assert (await reader.next()).topic == "gone/ann"
        assert await reader.next() == Received("gone/bob", b"gone", 1, retain=False)


async def test_a_retained_message_comes_to_who_subscribes_later_until_it_is_cleared(
    kind: type[Kit], version: int, tmp_path: Path
) -> None:
    async with clients_of(kind, version, tmp_path) as clients:
        sender = await clients.start_until_the_end("sender")
        await sender.publish(Received("state/1", b"old", 1, retain=True))
        await sender.publish(Received("state/2", b"kept", 1, retain=True))
        await sender.publish(Received("state/1", b"", 1, retain=True))
        reader = await clients.start_until_the_end("reader", "state/+")
        assert await reader.next() == Received("state/2", b"kept", 1, retain=True)


async def test_it_speaks_tls(
    kind: type[Kit], version: int, tmp_path: Path, program: Callable[..., str]
) -> None:
    openssl = program("openssl")
    async with clients_of(kind, version, tmp_path, openssl) as clients:
        reader = await clients.start_until_the_end("reader", "a")
        sender = await clients.start_until_the_end("sender")
        message = Received("a", LARGE, 2, retain=False)
        await sender.publish(message)
        assert await reader.next() == message
