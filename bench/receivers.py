"""A process of recipients, each on a connection of its own, that notes when messages come.

    python -m bench.receivers < orders

Phones read on hardware of their own; these share two cores with all that is measured, so they do
the least that MQTT 5 asks of a reader: a PUBACK for each message. Lines on standard input are
orders, lines on standard output answers, both JSON (`Orders`, `Ask`, `Answer`). Times are those of
`time.perf_counter`, which is one clock for all processes of a machine.
"""

import asyncio
import sys
import time
from collections import deque
from typing import cast
from urllib.parse import unquote, urlsplit

import mqtt5
import msgspec

from nabij.event_loop import run

_CONNECT_AT_ONCE = 100
_PUBLISH, _SUBACK, _CONNACK = 3, 9, 2
_KEY = b'"incident":"'
_KEY_BYTES = 36
_RECEIVE_MAXIMUM = 1_000


class ReceiverOrders(msgspec.Struct, frozen=True):
    """Who connects where, and to which topic: `{user}` in it stands for the user.

    With `expiry_s` they have sessions that outlast their connections.
    """

    urls: list[str]
    topic: str
    expiry_s: int = 0


class CountQuestion(msgspec.Struct, frozen=True):
    """Answer when `count` messages have come since the last answer, or after `within_s`."""

    count: int
    within_s: float


class ArrivalGroup(msgspec.Struct):
    """The messages about one incident, or, of a floor, with one key: first and last arrival (s)."""

    count: int
    first: float
    last: float


class CountAnswer(msgspec.Struct, frozen=True):
    """What came since the last answer, by incident."""

    groups: dict[str, ArrivalGroup]


class ArrivalCounts:
    """What has come, and who waits for how much of it."""

    def __init__(self) -> None:
        self._groups: dict[bytes, ArrivalGroup] = {}
        self._count = 0
        self._wanted = sys.maxsize
        self._enough: asyncio.Future[None] | None = None

    def came(self, payload: bytes) -> None:
        """Note one message."""
        now = time.perf_counter()
        start = payload.find(_KEY) + len(_KEY)
        key = payload[start : start + _KEY_BYTES]
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = ArrivalGroup(1, now, now)
        else:
            group.count += 1
            group.last = now
        self._count += 1
        if self._count >= self._wanted and self._enough and not self._enough.done():
            self._enough.set_result(None)

    async def answer(self, ask: CountQuestion) -> CountAnswer:
        """Wait for so many, and return them."""
        self._wanted, self._enough = ask.count, asyncio.get_running_loop().create_future()
        if self._count < ask.count:
            await asyncio.wait([self._enough], timeout=ask.within_s)
        groups, self._groups = self._groups, {}
        self._count, self._wanted = 0, sys.maxsize
        return CountAnswer({key.decode(): group for key, group in groups.items()})


class Recipient(asyncio.Protocol):
    """One connection: CONNECT, SUBSCRIBE, then a PUBACK for each PUBLISH of QoS 1.

    With `expiry_s` it begins a session, or resumes it (`is_resumed`).
    """

    def __init__(self, url: str, topic: str, tally: ArrivalCounts, *, expiry_s: int = 0) -> None:
        parts = urlsplit(url)
        user = unquote(parts.username or "")
        self._connect = mqtt5.ConnectPacket(
            f"bench-{user}-{expiry_s}",
            username=user,
            password=unquote(parts.password or "").encode(),
            clean_start=not expiry_s,
            session_expiry_interval=expiry_s,
            keep_alive=0,
            receive_max=_RECEIVE_MAXIMUM,
        ).write()
        wanted = mqtt5.TopicFilter(topic.format(user=user), max_qos=mqtt5.QoS(1))
        self._subscribe = mqtt5.SubscribePacket(1, [wanted]).write()
        self._tally = tally
        self._rest = b""
        self._transport: asyncio.Transport
        self.is_resumed = False
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._connect)

    def connection_lost(self, exc: Exception | None) -> None:
        """No reconnection: a measurement that loses a connection is void."""
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError("closed by the MQTT broker"))

    def data_received(self, data: bytes) -> None:
        """Take up every packet that is whole (MQTT 5, 2.1)."""
        data, at = self._rest + data, 0
        acknowledgements = []
        while at < len(data):
            length, body = _remaining_length(data, at + 1)
            if length < 0 or body + length > len(data):
                break
            kind = data[at] >> 4
            if kind == _PUBLISH:
                acknowledgements.append(self._take(data, at, body, body + length))
            elif kind == _CONNACK:
                self.is_resumed = data[body] == 1
                self._transport.write(self._subscribe)
            elif kind == _SUBACK:
                self.ready.set_result(None)
            at = body + length
        self._rest = data[at:]
        if acknowledgements:
            self._transport.write(b"".join(acknowledgements))

    def abort(self) -> None:
        """Break the connection off."""
        self._transport.abort()

    def _take(self, data: bytes, first: int, body: int, end: int) -> bytes:
        """Note a PUBLISH and return its PUBACK, if it is due one (MQTT 5, 3.3)."""
        variable = body + 2 + int.from_bytes(data[body : body + 2], "big")
        self._tally.came(data[variable:end])
        if data[first] & 0x06 == 0:
            return b""
        return b"\x40\x02" + data[variable : variable + 2]


def _remaining_length(data: bytes, at: int) -> tuple[int, int]:
    """Return a packet's remaining length and where it begins; -1 when it is not all there yet."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orders = msgspec.json.decode(await reader.readline(), type=ReceiverOrders)
    tally = ArrivalCounts()
    waiting = deque(orders.urls)
    while waiting:
        some = [waiting.popleft() for _ in range(min(_CONNECT_AT_ONCE, len(waiting)))]
        await asyncio.gather(*(connect(url, orders, tally) for url in some))
    _write(CountAnswer({}))
    while line := await reader.readline():
        _write(await tally.answer(msgspec.json.decode(line, type=CountQuestion)))


async def connect(url: str, orders: ReceiverOrders, tally: ArrivalCounts) -> Recipient:
    """Return a recipient that has subscribed."""
    parts = urlsplit(url)
    recipient = Recipient(url, orders.topic, tally, expiry_s=orders.expiry_s)
    await asyncio.get_running_loop().create_connection(
        lambda: recipient, parts.hostname or "", parts.port or 1883
    )
    await recipient.ready
    return recipient


def _write(answer: CountAnswer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    run(_serve())
