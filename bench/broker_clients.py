"""Clients that measure an MQTT broker and take as little of the machine as they can.

Packets are made before, and all have one size: a reader need not parse them.

    python -m bench.broker_clients, with the URL, the topic and a number of connections on standard
    input: publishes there without end, at QoS 0, and reads nothing
"""

import asyncio
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import Self, cast
from urllib.parse import unquote, urlsplit

import mqtt5

PAYLOAD = b"x" * 200
_PUBACK = b"\x40\x02"
_AT_ONCE = 100  # packets that a publisher writes together
_WINDOW = 1_000  # and has unacknowledged
_FLOOD_PACKETS = 500


def connect_packet(url: str, client_id: str, *, expiry_s: int = 0) -> bytes:
    """Return the CONNECT of MQTT 5 that this URL asks for."""
    parts = urlsplit(url)
    return mqtt5.ConnectPacket(
        client_id,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or "").encode(),
        clean_start=True,
        keep_alive=0,
        session_expiry_interval=expiry_s,
    ).write()


def publish(topic: str, packet_id: int) -> bytes:
    """Return a PUBLISH of QoS 1."""
    return mqtt5.PublishPacket(topic, PAYLOAD, qos=mqtt5.QoS(1), packet_id=packet_id).write()


def subscribe(topic: str) -> bytes:
    """Return a SUBSCRIBE."""
    return mqtt5.SubscribePacket(1, [mqtt5.TopicFilter(topic, max_qos=mqtt5.QoS(1))]).write()


class BlockingClient:
    """A client on a blocking socket: no event loop stands between it and the MQTT broker."""

    def __init__(
        self, url: str, client_id: str, *, topic: str | None = None, expiry_s: int = 0
    ) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=20.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask(connect_packet(url, client_id, expiry_s=expiry_s))
        if topic is not None:
            self.ask(subscribe(topic))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, packet: bytes) -> bytes:
        """Write a packet, and return the first answer."""
        self.write(packet)
        return self.read()

    def write(self, data: bytes) -> None:
        """Write it."""
        self._socket.sendall(data)

    def read(self) -> bytes:
        """Return what comes next: one packet, where the other side waits for an answer."""
        data = self._socket.recv(4096)
        if not data:
            raise ConnectionError("the MQTT broker has closed the connection")
        return data


def round_trips(
    sender: BlockingClient, receiver: BlockingClient, topic: str, count: int
) -> list[float]:
    """Return how long (s) until a message is there and its sender has the PUBACK, of so many.

    One after another: nothing queues.
    """
    packet = publish(topic, 1)
    at = len(packet) - len(PAYLOAD) - 3  # where the packet id is: properties take a byte
    times = []
    for _ in range(count):
        began = time.perf_counter()
        sender.write(packet)
        came = receiver.read()
        sender.read()
        times.append(time.perf_counter() - began)
        receiver.write(_PUBACK + came[at : at + 2])
    return times


class Client(asyncio.Protocol):
    """A client on an event loop; `ready` when it is in, and has subscribed if it is to."""

    def __init__(
        self, url: str, client_id: str, *, topic: str | None = None, expiry_s: int = 0
    ) -> None:
        self._hello = connect_packet(url, client_id, expiry_s=expiry_s)
        self._hello += b"" if topic is None else subscribe(topic)
        self._answers = 1 if topic is None else 2
        self._transport: asyncio.Transport
        self._rest = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, url: str) -> Self:
        """Connect there."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, parts.hostname or "", parts.port or 1883)
        await self.ready
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """CONNACK and SUBACK come first, then what is measured."""
        data = self._rest + data
        while self._answers and len(data) > 1 and len(data) >= 2 + data[1]:
            data = data[2 + data[1] :]
            self._answers -= 1
            if not self._answers:
                self.ready.set_result(None)
        self._rest = self.take(data) if data and not self._answers else data

    def take(self, data: bytes) -> bytes:
        """Take up what has come; return what is not whole."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """A measurement that loses a connection is void."""
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(exc or ConnectionError("closed by the MQTT broker"))
                future.exception()  # not every future is awaited

    def abort(self) -> None:
        """Break the connection off."""
        self._transport.abort()


class Publisher(Client):
    """Publishes at QoS 1 as fast as it may, with so much unacknowledged."""

    _packets: list[bytes]
    _unacknowledged = 0

    def begin(self, topic: str, count: int) -> None:
        """Publish so many: `done` when all are acknowledged."""
        packets = [publish(topic, number % 65_535 + 1) for number in range(count)]
        self._packets = [b"".join(packets[at : at + _AT_ONCE]) for at in range(0, count, _AT_ONCE)]
        self._packets.reverse()
        self.done = asyncio.get_running_loop().create_future()
        self._fill()

    def _fill(self) -> None:
        while self._packets and self._unacknowledged <= _WINDOW - _AT_ONCE:
            self._transport.write(self._packets.pop())
            self._unacknowledged += _AT_ONCE
        if not self._packets and self._unacknowledged <= 0 and not self.done.done():
            self.done.set_result(None)

    def take(self, data: bytes) -> bytes:
        """Count PUBACKs, which have no reason code here: somebody has subscribed."""
        whole = len(data) // 4
        self._unacknowledged -= whole
        self._fill()
        return data[whole * 4 :]


class Subscriber(Client):
    """Counts messages, and acknowledges each."""

    _wanted = 0

    def begin(self, topic: str, count: int) -> None:
        """Wait for so many: `done` when they have come."""
        self._size = len(publish(topic, 1))
        self._wanted = count
        self.done = asyncio.get_running_loop().create_future()

    def take(self, data: bytes) -> bytes:
        """Acknowledge what is whole."""
        size = self._size
        end = len(data) // size * size
        at = size - len(PAYLOAD) - 3
        acks = b"".join([_PUBACK + data[one : one + 2] for one in range(at, end, size)])
        if acks:
            self._transport.write(acks)
        self._wanted -= end // size
        if self._wanted <= 0 and not self.done.done():
            self.done.set_result(None)
        return data[end:]


async def rate(
    publishers: Sequence[Publisher], subscriber: Subscriber, topic: str, count: int
) -> float:
    """Return how many messages a second reach the subscriber, from these publishers together."""
    subscriber.begin(topic, count * len(publishers))
    began = time.perf_counter()
    for one in publishers:
        one.begin(topic, count)
    async with asyncio.timeout(60.0):
        await asyncio.gather(subscriber.done, *(one.done for one in publishers))
    return count * len(publishers) / (time.perf_counter() - began)


def flood(url: str, topic: str, connections: int) -> None:
    """Publish without end, as fast as the MQTT broker reads."""
    parts = urlsplit(url)
    packets = memoryview(mqtt5.PublishPacket(topic, PAYLOAD).write() * _FLOOD_PACKETS)
    rest: dict[socket.socket, memoryview] = {}
    for number in range(connections):
        one = socket.create_connection((parts.hostname, parts.port))
        one.sendall(connect_packet(url, f"flood-{number}"))
        one.recv(4096)
        one.settimeout(0)
        rest[one] = packets
    print("ready", flush=True)
    while True:
        _, writable, _ = select.select([], list(rest), [])
        for one in writable:
            rest[one] = rest[one][one.send(rest[one]) :] or packets


if __name__ == "__main__":
    flood(sys.stdin.readline().strip(), sys.stdin.readline().strip(), int(sys.stdin.readline()))
