"""An `EdgeServer` in this process, and clients that speak bytes to it on sockets."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mqtt5
from mqtt5 import QoS, TopicFilter

from broker.edge.accounts import Answer, Credentials, Grant, Quotas
from broker.edge.limits import Limits
from broker.edge.server import EdgeServer, Listener

DEADLINE_S = 20.0
_GENEROUS = Quotas(publishes_per_s=1e9, queued_bytes=64 << 20, connections=5000, turn_packets=64)


class SocketClient:
    """One connection. Nothing is read from its socket but by `packet` and `until_closed`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def packet(self) -> Any:
        """Return the next packet of MQTT 5; asyncio.IncompleteReadError if there is none any more."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self._reader.readexactly(2)
            while head[-1] >= 0x80:
                head += await self._reader.readexactly(1)
            size = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(head[1:]))
            packet, _ = mqtt5.read(memoryview(head + await self._reader.readexactly(size)))
        return packet

    async def next_of(self, kind: type) -> Any:
        """Return the next packet of this kind; others are dropped."""
        while not isinstance(packet := await self.packet(), kind):
            pass
        return packet

    async def until_closed(self) -> list[Any]:
        """Return the packets that come before the server closes."""
        found = []
        try:
            while True:
                found.append(await self.packet())
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return found

    def send(self, *packets: Any) -> None:
        """Write packets."""
        self.writer.write(b"".join(packet.write() for packet in packets))

    async def connect(self, client_id: str, username: str = "ann", **options: Any) -> Any:
        """Send CONNECT; return CONNACK."""
        self.send(mqtt5.ConnectPacket(client_id, username=username, **options))
        return await self.packet()

    async def subscribe(self, pattern: str, qos: int = 1) -> int:
        """Subscribe; return the reason code."""
        self.send(mqtt5.SubscribePacket(1, [TopicFilter(pattern, max_qos=QoS(qos))]))
        code: int = (await self.next_of(mqtt5.SubAckPacket)).reason_codes[0].value
        return code

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, packet_id: int = 1) -> None:
        """Write a PUBLISH."""
        chosen = packet_id if qos else None
        self.send(mqtt5.PublishPacket(topic, payload, qos=QoS(qos), packet_id=chosen))

    async def ping(self) -> None:
        """Return when the server has answered."""
        self.send(mqtt5.PingReqPacket())
        await self.next_of(mqtt5.PingRespPacket)


class Host:
    """A running server."""

    def __init__(self, server: EdgeServer, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self._tls = tls
        self._clients: list[SocketClient] = []

    async def raw(self, **options: Any) -> SocketClient:
        """Connect, and say nothing."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.ports[0], ssl=self._tls, **options
        )
        self._clients.append(SocketClient(reader, writer))
        return self._clients[-1]

    async def client(
        self, client_id: str, username: str = "ann", topic: str | None = None, **options: Any
    ) -> SocketClient:
        """Connect, and subscribe to `topic` if there is one."""
        client = await self.raw()
        assert (await client.connect(client_id, username, **options)).reason_code.value == 0
        if topic is not None:
            assert await client.subscribe(topic) < 3
        return client

    def close(self) -> None:
        """Close all clients."""
        for one in self._clients:
            one.writer.transport.abort()


@asynccontextmanager
async def hosted(
    *,
    quotas: dict[str, Quotas] | None = None,
    limits: Limits | None = None,
    directory: Path | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[Host]:
    """Run a server on a free port; users without `quotas` have generous ones. `tls`: its and ours."""
    known = quotas or {}

    def authenticate(credentials: Credentials, answer: Answer) -> None:
        name = credentials.username or ""
        quota = known.get(name, _GENEROUS)
        answer(Grant(name=name, reads=("#",), writes=("#",), quotas=quota) if name else None)

    server = EdgeServer(
        listeners=[Listener(host="127.0.0.1", port=0, tls=None if tls is None else tls[0])],
        authenticate=authenticate,
        directory=directory,
        limits=limits,
    )
    async with server:
        host = Host(server, None if tls is None else tls[1])
        try:
            yield host
        finally:
            host.close()


async def eventually(holds: Any) -> None:
    """Wait until `holds()`."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - descriptors and links tell nobody
            await asyncio.sleep(0.01)


def open_files() -> int:
    """Return how many descriptors this process has."""
    return len([*Path("/proc/self/fd").iterdir()])


def certificates(openssl: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server needs, and a client that trusts it."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    options = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [openssl, "req", "-x509", *options, *names, *files]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
