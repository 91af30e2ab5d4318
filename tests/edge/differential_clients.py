"""One client at two MQTT brokers: what it sends is the same, what comes is kept apart."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import mqtt5
from mqtt5 import PublishPacket, QoS

from tests.edge.version_311 import downgraded, next_packet, upgraded
from tests.edge.wire import Wire

V5, V311 = 5, 4
PING = b"\xc0\0"
_TIMEOUT_S = 20.0
_EXPIRY_SLACK_S = 10  # by how much a message may be older at the one that has a clock

Name = tuple[str, bytes]  # topic and payload, which tell application messages apart


class Pipe(ABC):
    """A network connection."""

    def __init__(self) -> None:
        self._data = b""

    def next_packet(self) -> bytes | None:
        """Return the packet that comes next; None when the MQTT broker has closed."""
        while (packet := next_packet(self._data)) is None:
            data = self._receive()
            if not data:
                assert not self._data, "it has closed within a packet"
                return None
            self._data += data
        self._data = self._data[len(packet) :]
        return packet

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send bytes."""

    @abstractmethod
    def break_off(self) -> None:
        """Close this side of it, without a DISCONNECT."""

    @abstractmethod
    def _receive(self) -> bytes:
        """Return the bytes that come next; b"" when the MQTT broker has closed."""


class SocketPipe(Pipe):
    """A TCP connection."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        with suppress(ConnectionError):  # what it has said before it closed is still to be read
            self._socket.sendall(data)

    def break_off(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _receive(self) -> bytes:
        data = b""
        with suppress(ConnectionError):
            data = self._socket.recv(65536)
        if not data:
            self._socket.close()
        return data


class WirePipe(Pipe):
    """A connection to our own MQTT broker, in memory."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._client = wire.raw()

    def send(self, data: bytes) -> None:
        self._client.send(data)

    def break_off(self) -> None:
        self._client.break_off()

    def _receive(self) -> bytes:
        data = self._client.raw_bytes()
        assert data or self._client.is_closed, "it neither answers nor closes"
        return data


@dataclass(frozen=True)
class Delivered:
    """A PUBLISH that came."""

    name: Name
    qos: int
    retain: bool
    duplicate: bool
    identifiers: tuple[int, ...]
    properties: tuple[object, ...]


@dataclass(frozen=True)
class Released:
    """A PUBREL that came, and of which message."""

    name: Name


@dataclass(frozen=True)
class Answer:
    """Another packet that came; what it says, by the kind of packet."""

    kind: str
    says: tuple[object, ...] = ()


Event = Delivered | Released | Answer


@dataclass
class Held:
    """A message that the client has not acknowledged whole."""

    name: Name
    qos: int
    is_received: bool = False  # QoS 2: PUBREC has gone
    came_before: bool = False  # on another network connection; on this one only its PUBREL


@dataclass
class Endpoint:
    """A client id at one of the two MQTT brokers. `open_pipe` makes a network connection."""

    open_pipe: Callable[[], Pipe]
    version: int
    pipe: Pipe | None = None
    window: int = 0  # of this connection
    max_bytes: int | None = None  # that it takes on this connection
    events: list[Event] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)
    done: set[Name] = field(default_factory=set)  # acknowledged whole
    _before: dict[int, Held] = field(default_factory=dict)  # held when the connection ended

    def connect(self, packet: mqtt5.ConnectPacket) -> None:
        """Connect; a connection that is open is taken over."""
        old, self.pipe = self.pipe, self.open_pipe()
        self.window, self.max_bytes = packet.receive_max, packet.max_packet_size
        self._send(packet.write())
        self._read_until("CONNACK")
        if old is not None:
            new, self.pipe = self.pipe, old
            self._read_until("closed")
            self.pipe = new
        self.settle()

    def publish(self, packet: PublishPacket) -> None:
        """Publish, and answer what is answered to that."""
        self._send(packet.write())
        self.settle()
        if packet.qos.value == 2 and self.last_answer().kind == "PUBREC":
            assert packet.packet_id is not None
            self._send(mqtt5.PubRelPacket(packet.packet_id).write())
            self.settle()

    def send(self, packet: Any) -> None:
        """Send a packet, and see what comes."""
        self._send(packet.write())
        self.settle()

    def acknowledge(self, name: Name, *, is_partial: bool = False) -> None:
        """Acknowledge a message, all copies of it; `is_partial`: of QoS 2 only send PUBREC."""
        for packet_id, held in [*self.held.items()]:
            if held.name != name:
                continue
            if held.qos == 1 or not is_partial:
                self.done.add(name)
            if held.qos == 1:
                del self.held[packet_id]
                self.send(mqtt5.PubAckPacket(packet_id))
                continue
            if not held.is_received:
                held.is_received = True
                self.send(mqtt5.PubRecPacket(packet_id))
            if not is_partial:
                del self.held[packet_id]
                self.send(mqtt5.PubCompPacket(packet_id))

    def leave(self, packet: mqtt5.DisconnectPacket | None) -> None:
        """Disconnect, or break off."""
        assert self.pipe is not None
        if packet is None:
            self.pipe.break_off()
        else:
            self._send(packet.write())
        self._read_until("closed")
        self.pipe = None

    def lost(self) -> None:
        """The MQTT broker is gone."""
        self._closed(is_expected=True)
        self.pipe = None

    def settle(self) -> None:
        """Wait until all that was sent is handled, and all that is for the client has come."""
        self.ping()
        self.pong()

    def ping(self) -> None:
        """Ask for a PINGRESP, if it is connected."""
        if self.pipe is not None:
            self.pipe.send(PING)

    def pong(self) -> None:
        """Read all that comes before that PINGRESP."""
        if self.pipe is not None:
            self._read_until("PINGRESP")

    def on_its_way(self) -> int:
        """Return how many PUBLISHes of this connection are unacknowledged (3.3.4-9)."""
        return sum(not one.came_before for one in self.held.values())

    def unacknowledged(self) -> set[Name]:
        """Return which messages it has got and acknowledged in no way, now or before."""
        held = {**self._before, **self.held}.values()
        return {one.name for one in held if not one.is_received} - self.done

    def last_answer(self) -> Answer:
        """Return the last packet that is neither PUBLISH nor PUBREL."""
        return next(one for one in reversed(self.events) if isinstance(one, Answer))

    # -- packets ----------------------------------------------------------------------------------

    def _send(self, packet: bytes) -> None:
        assert self.pipe is not None
        self.pipe.send(packet if self.version == V5 else downgraded(packet))

    def _read_until(self, kind: str) -> None:
        """Read packets until one of this kind, which is kept if it says something; or the end."""
        pipe = self.pipe
        assert pipe is not None
        while (packet := pipe.next_packet()) is not None:
            event = self._event(packet)
            if event == Answer(kind):
                return
            self.events.append(event)
            if isinstance(event, Answer) and event.kind == kind:
                return
        self._closed(is_expected=kind == "closed")

    def _closed(self, *, is_expected: bool) -> None:
        self._before, self.held = {**self._before, **self.held}, {}
        if not is_expected:
            self.events.append(Answer("closed"))
            self.pipe = None

    def _event(self, packet: bytes) -> Event:
        if packet == b"\xd0\0":
            return Answer("PINGRESP")
        found, size = mqtt5.read(memoryview(packet if self.version == V5 else upgraded(packet)))
        assert size >= len(packet)
        if isinstance(found, PublishPacket):
            return self._delivered(found)
        if isinstance(found, mqtt5.PubRelPacket):
            held = self.held.get(found.packet_id)
            if held is None:
                held = replace(self._before[found.packet_id], came_before=True)
            held.is_received = True
            self.held[found.packet_id] = held
            return Released(held.name)
        return self._answer(found)

    def _delivered(self, found: PublishPacket) -> Delivered:
        name = (found.topic, found.payload)
        if found.packet_id is not None:
            self.held[found.packet_id] = Held(name, found.qos.value)
        lasts_s = found.message_expiry_interval
        properties = (
            found.payload_format_indicator,
            None if lasts_s is None else -(-lasts_s // _EXPIRY_SLACK_S),
            found.content_type,
            found.response_topic,
            found.correlation_data,
            tuple(found.user_properties),
        )
        return Delivered(
            name,
            found.qos.value,
            retain=found.retain,
            duplicate=found.duplicate,
            identifiers=tuple(sorted(found.subscription_ids)),
            properties=properties,
        )

    def _answer(self, found: Any) -> Answer:
        kind = type(found).__name__.removesuffix("Packet").upper()
        if isinstance(found, mqtt5.ConnAckPacket):
            if not found.session_present:
                self._before = {}
            return Answer(kind, (found.session_present, found.reason_code.value))
        if isinstance(found, mqtt5.SubAckPacket | mqtt5.UnsubAckPacket):
            return Answer(kind, tuple(code.value for code in found.reason_codes))
        return Answer(kind, (found.reason_code.value,))


@dataclass
class Pair:
    """One client at both MQTT brokers."""

    client_id: str
    version: int
    ours: Endpoint
    theirs: Endpoint
    is_connected: bool = False
    is_kept: bool = False  # its session outlives the connection
    is_windowed: bool = False  # its window is small, or has been
    has_will: bool = False
    packet_id: int = 0
    aliases: dict[int, str] = field(default_factory=dict)
    options: dict[str, dict[str, bool]] = field(default_factory=dict)  # of subscriptions
    collected: dict[str, list[Event]] = field(default_factory=dict)  # of windowed ones
    dropped: set[Name] = field(default_factory=set)  # by Mosquitto: differences.toml, sent-again

    def next_id(self) -> int:
        """Return a packet id for what it sends."""
        self.packet_id += 1
        return self.packet_id


def at_mosquitto(port: int, version: int) -> Endpoint:
    """A client of the Mosquitto on this port."""
    return Endpoint(lambda: SocketPipe(port), version)


def at_ours(wire: Wire, version: int) -> Endpoint:
    """A client of our own MQTT broker."""
    return Endpoint(lambda: WirePipe(wire), version)


QOS = [QoS.AT_MOST_ONCE, QoS.AT_LEAST_ONCE, QoS.EXACTLY_ONCE]
