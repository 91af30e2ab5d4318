"""How the state machine ends a connection: by what MQTT forbids, and by silence."""

import mqtt5
import pytest
from mqtt5 import DisconnectReasonCode, PublishPacket, QoS

from broker.mqtt import (
    ConnectionLost,
    ProtocolError,
)
from broker.mqtt.session_events import Closed, PublishReceived
from tests.mqtt.server import (
    QOS1,
    closed_with,
    go_online,
    online,
    publish,
    session_of,
    written,
)


# The codec panics on invalid UTF-8 and leaves an unraisable behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x00", DisconnectReasonCode.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\xff\xff", DisconnectReasonCode.MALFORMED_PACKET),
        (b"\x30\x04\x00\x09ab", DisconnectReasonCode.MALFORMED_PACKET),
        (b"\x30\x05\x00\x01\xffa\x00", DisconnectReasonCode.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\x7f", DisconnectReasonCode.PACKET_TOO_LARGE),
        (
            PublishPacket("t", b"", qos=QOS1, packet_id=0).write(),
            DisconnectReasonCode.PROTOCOL_ERROR,
        ),
        (
            PublishPacket("t", b"", qos=QoS.EXACTLY_ONCE, packet_id=1).write(),
            DisconnectReasonCode.QOS_NOT_SUPPORTED,
        ),
        (PublishPacket("t", b"", topic_alias=1).write(), DisconnectReasonCode.TOPIC_ALIAS_INVALID),
        (mqtt5.ConnAckPacket().write(), DisconnectReasonCode.PROTOCOL_ERROR),
        (mqtt5.PingReqPacket().write(), DisconnectReasonCode.PROTOCOL_ERROR),
        (
            mqtt5.SubAckPacket(1, [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]).write(),
            DisconnectReasonCode.PROTOCOL_ERROR,
        ),
    ],
)
def test_what_mqtt_forbids_ends_the_connection_with_the_right_reason(
    data: bytes, reason: DisconnectReasonCode
) -> None:
    session = online()
    error = closed_with(session.receive(data, 0.0))
    assert isinstance(error, ProtocolError)
    assert error.reason == reason
    packet = written(session)[-1]
    assert isinstance(packet, mqtt5.DisconnectPacket)
    assert packet.reason_code == reason
    assert session.receive(mqtt5.PingRespPacket().write(), 0.0) == []


def test_more_in_flight_than_our_receive_maximum_is_taken_too() -> None:
    session = online(receive_maximum=2)
    data = b"".join(PublishPacket("t", b"", qos=QOS1, packet_id=n).write() for n in (1, 2, 3))
    assert [type(event) for event in session.receive(data, 0.0)] == [PublishReceived] * 3


def test_what_came_before_a_malformed_packet_is_still_delivered() -> None:
    session = online()
    events = session.receive(PublishPacket("t", b"good").write() + b"\x00\x00", 0.0)
    assert [type(event) for event in events] == [PublishReceived, Closed]


def test_an_idle_connection_is_pinged_and_declared_dead_without_an_answer() -> None:
    session = online(keep_alive_s=10)
    assert session.next_tick_at() == 5.0
    assert session.tick(4.9) == []
    assert written(session, 4.9) == []
    assert session.tick(5.0) == []
    assert [type(packet) for packet in written(session, 5.0)] == [mqtt5.PingReqPacket]
    assert session.next_tick_at() == 10.0
    assert isinstance(closed_with(session.tick(10.0)), ConnectionLost)


def test_an_answered_ping_keeps_the_connection() -> None:
    session = online(keep_alive_s=10)
    session.tick(5.0)
    written(session, 5.0)
    session.receive(mqtt5.PingRespPacket().write(), 5.1)
    assert session.tick(9.9) == []
    assert session.next_tick_at() == 10.0


def test_who_only_publishes_still_notices_that_nobody_listens() -> None:
    session = online(keep_alive_s=10)
    for now in (2.0, 4.0):
        publish(session, b"x", qos=0)
        assert session.take(now)
    session.tick(5.0)
    assert [type(packet) for packet in written(session, 5.0)] == [mqtt5.PingReqPacket]


def test_the_servers_keep_alive_counts() -> None:
    session = session_of(keep_alive_s=60)
    go_online(session, mqtt5.ConnAckPacket(server_keep_alive=4))
    assert session.next_tick_at() == 2.0
