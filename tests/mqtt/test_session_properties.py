"""Hypothesis against the state machine: chunking, loss, windows and garbage."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import mqtt5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt5 import PublishPacket, QoS

from broker.mqtt import Message, ProtocolError, PubAckReasonCode
from broker.mqtt.framing import PacketDecoder
from broker.mqtt.outbound import Outcome, Publication
from broker.mqtt.session import Session
from broker.mqtt.session_events import Closed, Event, SessionConfig

QOS1 = QoS.AT_LEAST_ONCE

inbound_packets = st.one_of(
    st.builds(
        lambda payload, packet_id: PublishPacket(
            "a/b", payload, qos=QOS1, packet_id=packet_id, user_properties=[("k", "v")]
        ).write(),
        st.binary(max_size=300),
        st.integers(1, 65_535),
    ),
    st.builds(lambda payload: PublishPacket("c", payload).write(), st.binary(max_size=40)),
    st.builds(lambda packet_id: mqtt5.PubAckPacket(packet_id).write(), st.integers(1, 65_535)),
    st.just(mqtt5.PingRespPacket().write()),
)


def events_of(chunks: list[bytes]) -> list[Event]:
    session = Session(SessionConfig(client_id="c"))
    session.connect(0.0)
    events: list[Event] = []
    for chunk in [mqtt5.ConnAckPacket().write(), *chunks]:
        events += session.receive(chunk, 0.0)
    return events


@given(packets=st.lists(inbound_packets, max_size=30), data=st.data())
def test_chunking_never_changes_what_is_understood(
    packets: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=40)))
    bounds = [0, *cuts, len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(bounds)]
    assert events_of(chunks) == events_of([stream])


def test_a_large_packet_in_single_bytes_takes_linear_time() -> None:
    decoder = PacketDecoder(max_packet_bytes=1_048_576)
    data = PublishPacket("t", bytes(200_000)).write()
    found = [packet for byte in data for packet in decoder.packets(bytes([byte]))]
    assert len(found) == 1


# The codec panics on invalid UTF-8 and leaves an unraisable behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=300)
@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda first, body: bytes([first, len(body)]) + body,
                st.sampled_from([0x20, 0x30, 0x32, 0x34, 0x40, 0x90, 0xD0, 0xE0, 0xF0]),
                st.binary(max_size=40),
            ),
            inbound_packets.map(lambda packet: packet[:-1] + bytes([packet[-1] ^ 0x55])),
        ),
        max_size=10,
    ),
    accepted=st.booleans(),
)
def test_garbage_ends_in_a_protocol_error_or_a_servers_no_and_nothing_else(
    chunks: list[bytes], *, accepted: bool
) -> None:
    session = Session(SessionConfig(client_id="c"))
    session.connect(0.0)
    events: list[Event] = []
    for chunk in [mqtt5.ConnAckPacket().write(), *chunks] if accepted else chunks:
        events += session.receive(chunk, 0.0)
        session.take(0.0)
    ends = [event for event in events if isinstance(event, Closed)]
    assert len(ends) <= 1
    for end in ends:
        wire_error = isinstance(end.error, ProtocolError)
        assert wire_error or type(end.error).__module__ == "broker.mqtt.mqtt_errors"


@dataclass
class Server:
    """An honest MQTT broker of a few lines: what it holds, and what it has accepted."""

    window: int
    session: Session
    unacknowledged: dict[int, bytes] = field(default_factory=dict)
    accepted: Counter[bytes] = field(default_factory=Counter)
    held: dict[int, bytes] = field(default_factory=dict)  # over all connections of this session

    def read(self) -> None:
        while data := self.session.take(0.0):
            view = memoryview(data)
            while view:
                packet, size = mqtt5.read(view)
                view = view[size:]
                if isinstance(packet, PublishPacket):
                    self.take(packet)

    def take(self, packet: PublishPacket) -> None:
        packet_id = packet.packet_id or 0
        assert packet_id
        assert packet_id not in self.unacknowledged, "a packet id was used twice"
        assert packet.duplicate or packet_id not in self.held, "an id in use was given away"
        assert self.held.setdefault(packet_id, packet.payload) == packet.payload
        self.unacknowledged[packet_id] = packet.payload
        self.accepted[packet.payload] += 1
        assert len(self.unacknowledged) <= self.window, "the window was exceeded"

    def acknowledge(self, position: int) -> None:
        if packet_id := self.forget(position):
            self.session.receive(mqtt5.PubAckPacket(packet_id).write(), 0.0)

    def forget(self, position: int) -> int:
        """What sending a PUBACK does here, should it be lost on its way."""
        if not self.unacknowledged:
            return 0
        packet_id = list(self.unacknowledged)[position % len(self.unacknowledged)]
        del self.unacknowledged[packet_id], self.held[packet_id]
        return packet_id

    def step(self, name: str, number: int) -> None:
        if name == "read":
            self.read()
        elif name == "acknowledge":
            self.acknowledge(number)
        elif name == "lose a puback":
            self.forget(number)
            self.reconnect(keeps_session=True)
        elif name == "shrink":
            self.window = number
            self.reconnect(keeps_session=True)
        else:
            self.reconnect(keeps_session=bool(number))

    def reconnect(self, *, keeps_session: bool) -> None:
        self.session.lost()
        self.unacknowledged = {}
        if not keeps_session:
            self.held = {}
        self.session.connect(0.0)
        connack = mqtt5.ConnAckPacket(session_present=keeps_session, receive_max=self.window)
        self.session.receive(connack.write(), 0.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 5)),
        st.tuples(st.just("batch"), st.integers(1, 5)),
        st.tuples(st.just("read"), st.just(0)),
        st.tuples(st.just("acknowledge"), st.integers(0, 10)),
        st.tuples(st.just("lose a puback"), st.integers(0, 10)),
        st.tuples(st.just("drop"), st.booleans()),
        st.tuples(st.just("shrink"), st.integers(1, 6)),
    ),
    max_size=60,
)


@given(steps=steps, own=st.integers(1, 6), last_id=st.sampled_from([0, 65_530]))
def test_no_interleaving_loses_or_double_counts_a_message(
    steps: list[tuple[str, int]], own: int, last_id: int
) -> None:
    session = Session(SessionConfig(client_id="c", window=own))
    session._outbound._last_id = last_id  # ids wrap around in the middle of it
    server = Server(6, session)
    server.reconnect(keeps_session=False)
    outcomes: dict[bytes, list[Outcome]] = {}

    def publication() -> Publication:
        payload = str(len(outcomes)).encode()
        outcomes[payload] = []
        return Publication(Message("t", payload), outcomes[payload].append)

    for name, number in steps:
        if name == "publish":
            for _ in range(number):
                session.publish(publication())
        elif name == "batch":
            session.publish_batch(iter([publication() for _ in range(number)]))
        else:
            server.step(name, number)
    for _ in range(len(outcomes) + 1):
        server.read()
        while server.unacknowledged:
            server.acknowledge(0)

    assert session.is_idle
    assert all(found == [PubAckReasonCode.SUCCESS] for found in outcomes.values())
    assert set(server.accepted) == set(outcomes)
