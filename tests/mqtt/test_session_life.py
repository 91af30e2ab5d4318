"""A session over several connections: its states, and what may come when."""

import mqtt5
import pytest
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode, PublishPacket

from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import ConnectRefused, MqttError, ProtocolError
from broker.mqtt.outbound import Publication
from broker.mqtt.session import Session
from broker.mqtt.session_events import Accepted, PublishReceived, State, Subscribed
from tests.mqtt.server import (
    GRANTED,
    PINGRESP,
    QOS1,
    closed_with,
    delivery,
    go_online,
    online,
    packets_in,
    publish,
    publishes,
    session_of,
    written,
)


def connect_packet(session: Session, now: float = 0.0) -> mqtt5.ConnectPacket:
    session.connect(now)
    [packet] = written(session, now)
    assert isinstance(packet, mqtt5.ConnectPacket)
    return packet


def test_connect_says_no_more_than_it_was_given() -> None:
    bare = connect_packet(session_of())
    assert (bare.client_id, bare.username, bare.password, bare.will) == ("c", None, None, None)
    assert (bare.clean_start, bare.keep_alive) == (False, 30)
    assert (bare.session_expiry_interval, bare.receive_max) == (86_400, 1_000)
    assert bare.max_packet_size == 1 << 20
    assert connect_packet(session_of(max_packet_bytes=4_096)).max_packet_size == 4_096


def test_states_follow_the_connection() -> None:
    session = session_of(subscriptions=("a",))
    states = [session.state]
    session.connect(0.0)
    states.append(session.state)
    session.receive(mqtt5.ConnAckPacket().write(), 0.0)
    states.append(session.state)
    suback = [each for each in written(session) if isinstance(each, mqtt5.SubscribePacket)]
    session.receive(mqtt5.SubAckPacket(suback[0].packet_id, [GRANTED]).write(), 0.0)
    states.append(session.state)
    session.disconnect()
    states.append(session.state)
    session.lost()
    states.append(session.state)
    assert states == [
        State.DISCONNECTED,
        State.CONNECTING,
        State.SUBSCRIBING,
        State.ONLINE,
        State.CLOSED,
        State.DISCONNECTED,
    ]
    assert online().state is State.ONLINE


def test_nothing_is_heard_without_a_connection_or_after_its_end() -> None:
    session = session_of()
    assert session.receive(mqtt5.ConnAckPacket().write(), 0.0) == []
    session.connect(0.0)
    session.disconnect()
    assert session.receive(mqtt5.ConnAckPacket().write(), 0.0) == []
    assert session.state is State.CLOSED


def test_what_comes_after_the_servers_goodbye_is_not_read() -> None:
    session = online()
    goodbye = mqtt5.DisconnectPacket(reason_code=DisconnectReasonCode.SERVER_BUSY).write()
    events = session.receive(goodbye + delivery(1), 0.0)
    assert len(events) == 1
    assert str(closed_with(events)) == "the MQTT broker disconnected: SERVER_BUSY"


def test_the_words_of_the_servers_goodbye_and_refusal_are_kept() -> None:
    for reason in (DisconnectReasonCode.SERVER_BUSY, DisconnectReasonCode.SESSION_TAKEN_OVER):
        packet = mqtt5.DisconnectPacket(reason_code=reason, reason_str="because")
        error = closed_with(online().receive(packet.write(), 0.0))
        assert str(error) == f"the MQTT broker disconnected: {reason.name} (because)"
    banned = mqtt5.ConnAckPacket(reason_code=ConnAckReasonCode.BANNED, reason_str="you know why")
    error = closed_with(go_online(session_of(), banned))
    assert str(error) == "the MQTT broker refused us: BANNED (you know why)"
    assert isinstance(error, ConnectRefused)
    assert error.reason is not None
    assert error.reason.value == ConnAckReasonCode.BANNED.value
    plain = closed_with(
        go_online(session_of(), mqtt5.ConnAckPacket(reason_code=ConnAckReasonCode.BANNED))
    )
    assert str(plain) == "the MQTT broker refused us: BANNED"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (delivery(1), "PublishPacket before CONNACK"),
        (PINGRESP, "PingRespPacket before CONNACK"),
        (mqtt5.PubAckPacket(1).write(), "int before CONNACK"),
        (
            mqtt5.PubAckPacket(1, reason_code=mqtt5.PubAckReasonCode.QUOTA_EXCEEDED).write(),
            "PubAckPacket before CONNACK",
        ),
    ],
)
def test_what_may_not_come_first_is_named(data: bytes, why: str) -> None:
    session = session_of()
    session.connect(0.0)
    written(session)
    assert str(closed_with(session.receive(data, 0.0))) == f"PROTOCOL_ERROR: {why}"


def test_a_receive_maximum_of_0_ends_the_connection() -> None:
    session = session_of()
    session.connect(0.0)
    events = session.receive(b"\x20\x06\x00\x00\x03\x21\x00\x00", 0.0)
    assert str(closed_with(events)) == "MALFORMED_PACKET: Receive maximum must be != 0"


def test_a_goodbye_may_come_first() -> None:
    session = session_of()
    session.connect(0.0)
    packet = mqtt5.DisconnectPacket(reason_code=DisconnectReasonCode.SERVER_BUSY).write()
    assert "SERVER_BUSY" in str(closed_with(session.receive(packet, 0.0)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (delivery(0), "PROTOCOL_ERROR: a packet id of 0 (section 2.2.1)"),
        (
            PublishPacket("t", b"", topic_alias=1).write(),
            "TOPIC_ALIAS_INVALID: we allowed no aliases",
        ),
        (
            PublishPacket("t", b"", qos=mqtt5.QoS.EXACTLY_ONCE, packet_id=1).write(),
            "QOS_NOT_SUPPORTED: QoS 2 was not asked for",
        ),
        (
            mqtt5.PingReqPacket().write(),
            "PROTOCOL_ERROR: PingReqPacket is not for a client in this state",
        ),
    ],
)
def test_what_mqtt_forbids_is_named(data: bytes, why: str) -> None:
    assert str(closed_with(online().receive(data, 0.0))) == why


def test_the_server_tells_whether_it_has_our_session() -> None:
    for present in (True, False):
        events = go_online(session_of(), mqtt5.ConnAckPacket(session_present=present))
        assert events == [Accepted(session_present=present), Subscribed()]


def test_a_delivery_carries_its_number_connection_and_dup_flag() -> None:
    session = online()
    session.lost()
    go_online(session)
    again = PublishPacket("t", b"x", qos=QOS1, packet_id=9, duplicate=True).write()
    assert session.receive(again, 0.0) == [
        PublishReceived(Message("t", b"x"), duplicate=True, packet_id=9, epoch=2)
    ]
    assert session.receive(PublishPacket("t", b"x").write(), 0.0) == [
        PublishReceived(Message("t", b"x", 0), duplicate=False, packet_id=0, epoch=2)
    ]
    assert session.unacknowledged == 1
    session.acknowledge(0, 2)
    session.acknowledge(9, 1)
    assert session.unacknowledged == 1
    session.acknowledge(9, 2)
    assert session.unacknowledged == 0


def test_what_was_not_acknowledged_or_sent_ends_with_the_connection() -> None:
    session = online()
    session.receive(delivery(1) + delivery(2), 0.0)
    session.acknowledge(1, 1)
    session.lost()
    assert session.unacknowledged == 0
    assert session.take(0.0) == b""
    assert session.state is State.DISCONNECTED


def test_nothing_is_published_before_the_server_has_accepted_or_after_the_end() -> None:
    session = session_of()
    outcomes = publish(session, b"x")
    session.connect(0.0)
    assert publishes(session) == []
    session.receive(mqtt5.ConnAckPacket().write(), 0.0)
    session.disconnect()
    assert publishes(session) == []
    assert (session.waiting, session.in_flight, session.is_idle) == (1, 0, False)
    assert outcomes == []


def test_publishing_begins_before_the_subscriptions_are_answered() -> None:
    session = session_of(subscriptions=("a",))
    go_online(session)
    publish(session, b"x")
    assert len(publishes(session)) == 1
    assert (session.waiting, session.in_flight, session.is_idle) == (0, 1, False)


def test_goodbye_is_said_once_to_a_server_that_has_accepted_us() -> None:
    connecting, ending = session_of(), online()
    connecting.connect(0.0)
    written(connecting)
    connecting.disconnect()
    assert written(connecting) == []
    ending.disconnect()
    ending.disconnect()
    [packet] = written(ending)
    assert isinstance(packet, mqtt5.DisconnectPacket)
    assert packet.session_expiry_interval is None
    forgotten = online()
    forgotten.end_with_connection()
    forgotten.disconnect()
    [packet] = written(forgotten)
    assert isinstance(packet, mqtt5.DisconnectPacket)
    assert packet.session_expiry_interval == 0


def test_an_answer_to_a_ping_and_back_pressure_do_not_outlive_the_connection() -> None:
    session = online(keep_alive_s=10)
    session.tick(5.0)
    session.pause()
    session.lost()
    session.connect(20.0)
    written(session, 20.0)
    session.receive(mqtt5.ConnAckPacket().write(), 20.0)
    publish(session, b"x")
    assert len(publishes(session)) == 1
    assert session.next_tick_at() == 25.0 or session.next_tick_at() == 5.0  # taken at 0 above
    assert session.tick(25.0) == []


def test_refusals_are_told_once_and_the_end_reaches_every_publication() -> None:
    session = session_of()
    go_online(session, mqtt5.ConnAckPacket(retain_available=False))
    outcomes = publish(session, b"x")
    session.publish(Publication(Message("t", b"", retain=True), lambda _: None))
    publishes(session)
    assert [each.topic for each in session.take_refusals()] == ["t"]
    assert session.take_refusals() == []
    error: MqttError = ProtocolError(DisconnectReasonCode.PROTOCOL_ERROR, "x")
    session.abandon(error)
    assert outcomes == [(b"x", error)]


def test_bytes_are_handed_over_once_in_the_order_of_their_making() -> None:
    session = online()
    session.receive(delivery(258), 0.0)
    session.acknowledge(258, 1)
    publish(session, b"x")
    kinds = [type(each) for each in packets_in(session.take(0.0))]
    assert kinds == [mqtt5.PubAckPacket, PublishPacket]
    assert session.take(0.0) == b""
