"""Clients that speak bytes to an `EdgeBroker` in memory, at a time that the test sets."""

from collections.abc import Sequence
from typing import Any

import mqtt5
from mqtt5 import QoS, TopicFilter

from broker.edge.accounts import Answer, Credentials, Grant, Quotas
from broker.edge.connection import Connection
from broker.edge.edge_broker import EdgeBroker
from broker.edge.limits import Limits
from broker.edge.recorder import Recorder
from broker.edge.records import Record, decode_batch, encode_batch
from broker.edge.recovery import restore
from tests.edge import octets

PLENTY = Quotas(connections=1000, subscriptions=1000, publishes_per_s=1e9)
_OWN = "$own/#"  # for tests of topics that begin with `$`
ALL = Grant(
    name="all",
    reads=("#", "$SYS/#", _OWN),
    writes=("#", _OWN),
    is_service=True,
    quotas=PLENTY,
)


class Wire:
    """One MQTT broker and its clients. `journal` is what has been written; None: it keeps nothing.

    Accounts are `grants` by user name; a client without one is `ALL`.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        grants: dict[str, Grant] | None = None,
        is_durable: bool = False,
    ) -> None:
        self.time_s = 1000.0
        self.limits = limits or Limits()
        self.grants = grants or {}
        self.journal: list[Record] | None = [] if is_durable else None
        self.writes_at_once = True  # else `write_journal` does
        self._unwritten: list[tuple[int, bytes]] = []
        self._names = 0
        self.broker = self._new_broker()
        self.clients: list[WireClient] = []

    def _new_broker(self) -> EdgeBroker:
        return EdgeBroker(
            authenticate=self._authenticate,
            clock=lambda: self.time_s,
            name=self._name,
            limits=self.limits,
            recorder=Recorder(None if self.journal is None else 0.0),
        )

    def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
        answer(self.grants.get(credentials.username) if credentials.username else ALL)

    def _name(self) -> str:
        self._names += 1
        return f"auto-{self._names}"

    def client(self, client_id: str = "", **options: Any) -> "WireClient":
        """A client that has sent CONNECT, of MQTT 5."""
        client = WireClient(self)
        client.send(mqtt5.ConnectPacket(client_id, **options).write())
        return client

    def raw(self) -> "WireClient":
        """A client that has sent nothing yet."""
        return WireClient(self)

    def speaker(
        self, version: int, client_id: str = "c", *rest: bytes, **options: Any
    ) -> "WireClient":
        """A client of this version that has been let in; its CONNACK is read."""
        client = self.raw()
        ((first, body),) = client.ask(octets.connect(version, client_id, *rest, **options))
        assert (first, body[1]) == (octets.CONNACK, 0)
        return client

    def settle(self) -> None:
        """Handle all that has come, and deliver all that goes out."""
        is_busy = True
        while is_busy:
            is_busy = sum(client.turn() for client in self.clients) > 0
            for connection in self.broker.take_dirty():
                is_busy = True
                for client in self.clients:
                    if client.connection is connection:
                        client.collect()
            number, batch = self.broker.recorder.number, self.broker.recorder.take()
            if batch:
                self._unwritten.append((number, batch))
            if self.writes_at_once and self._unwritten:
                self.write_journal()
                is_busy = True

    def write_journal(self) -> None:
        """The journal is on the disk."""
        assert self.journal is not None
        for number, batch in self._unwritten:
            self.journal += decode_batch(batch)
            self.broker.committed(number)
        self._unwritten.clear()

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second."""
        until = self.time_s + seconds
        while self.time_s < until:
            self.time_s = min(until, self.time_s + 1.0)
            self.broker.tick()
            self.settle()

    def kill(self) -> None:
        """Kill -9, and start again from the journal; nobody is connected."""
        assert self.journal is not None
        self._unwritten.clear()
        self.clients.clear()
        self.broker = self._new_broker()
        restore(self.broker, decode_batch(encode_batch(self.journal)))


class WireClient:
    """One network connection, as its client sees it: `got` are packets, `is_closed` by the broker."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.connection: Connection = wire.broker.open()
        self.got: list[Any] = []
        self.is_closed = False
        self._bytes = b""
        wire.clients.append(self)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.connection.feed(data)
        self._wire.settle()

    def turn(self) -> bool:
        """Have the broker read; whether it read a packet."""
        return not self.connection.is_closed and self.connection.turn(1000) > 0

    def collect(self) -> None:
        """Take what was written."""
        self._bytes += self.connection.take()
        self.is_closed = self.connection.is_closed
        self.connection.drained()

    @property
    def sent_bytes(self) -> bytes:
        """Bytes that have come and were not read as packets."""
        return self._bytes

    def read(self) -> list[Any]:
        """Return the packets of MQTT 5 that have come since the last call."""
        found: list[Any] = []
        while self._bytes:
            packet, size = mqtt5.read(memoryview(self._bytes))
            self._bytes = self._bytes[size:]
            found.append(packet)
        return found

    def raw_bytes(self) -> bytes:
        """Return the bytes that have come since the last call."""
        found, self._bytes = self._bytes, b""
        return found

    def ask(self, data: bytes = b"") -> list[octets.Frame]:
        """Send bytes; return the packets that have come since the last call."""
        self.send(data)
        return octets.frames(self.raw_bytes())

    def break_off(self) -> None:
        """The network connection breaks."""
        self.connection.lost()
        self._wire.settle()

    # -- packets ----------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, **options: Any) -> None:
        """Send a PUBLISH; `packet_id` 1 if none is given."""
        packet_id = options.pop("packet_id", 1 if qos else None)
        packet = mqtt5.PublishPacket(topic, payload, qos=QoS(qos), packet_id=packet_id, **options)
        self.send(packet.write())

    def subscribe(
        self, *patterns: str, qos: int = 1, packet_id: int = 1, **options: Any
    ) -> list[int]:
        """Subscribe; return the reason codes."""
        identifier = options.pop("subscription_id", None)
        filters = [TopicFilter(one, max_qos=QoS(qos), **options) for one in patterns]
        self.send(mqtt5.SubscribePacket(packet_id, filters, subscription_id=identifier).write())
        return self._codes(mqtt5.SubAckPacket)

    def unsubscribe(self, *patterns: str, packet_id: int = 1) -> list[int]:
        """Unsubscribe; return the reason codes."""
        self.send(mqtt5.UnsubscribePacket(packet_id, list(patterns)).write())
        return self._codes(mqtt5.UnsubAckPacket)

    def _codes(self, kind: type) -> list[int]:
        packets = self.read()
        (answer,) = [one for one in packets if isinstance(one, kind)]
        self.got += [one for one in packets if one is not answer]
        return [code.value for code in answer.reason_codes]

    def puback(self, packet_id: int) -> None:
        """Acknowledge a message of QoS 1."""
        self.send(mqtt5.PubAckPacket(packet_id).write())

    def messages(self) -> list[Any]:
        """Return the PUBLISH packets that have come."""
        found = [*self.got, *self.read()]
        self.got = [one for one in found if not isinstance(one, mqtt5.PublishPacket)]
        return [one for one in found if isinstance(one, mqtt5.PublishPacket)]


def payloads(messages: Sequence[Any]) -> list[bytes]:
    """Return what they say."""
    return [one.payload for one in messages]


def reader_of(wire: Wire, version: int, topic: str = "gone") -> WireClient:
    """Return a client that reads this topic."""
    reader = wire.speaker(version, "reader")
    options = 0b1001 if version == octets.V5 else 1  # retain as published
    reader.ask(octets.subscribe(version, (topic, options)))
    return reader


def is_ended(client: WireClient, version: int, data: bytes, reason: int) -> bool:
    """Whether this ends a connection that is let in, with this reason code where there are any."""
    goodbye = [(octets.DISCONNECT, bytes([reason]))] if version == octets.V5 else []
    return (client.ask(data), client.is_closed) == (goodbye, True)
