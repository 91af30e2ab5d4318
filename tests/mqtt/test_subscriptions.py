"""What a session asks the server to send, and how it reads the answer."""

import mqtt5
import pytest

from broker.mqtt import ConnectRefused
from broker.mqtt.session import Session
from broker.mqtt.session_events import Answered, State, Subscribed
from tests.mqtt.server import (
    GRANTED,
    closed_with,
    go_online,
    online,
    publish,
    publishes,
    session_of,
    suback,
    written,
)


def asked(session: Session) -> mqtt5.SubscribePacket | mqtt5.UnsubscribePacket:
    [packet] = written(session)
    assert isinstance(packet, mqtt5.SubscribePacket | mqtt5.UnsubscribePacket)
    return packet


@pytest.mark.parametrize("qos", [0, 1])
def test_subscriptions_ask_for_their_qos_and_for_the_retain_flag_as_it_was(qos: int) -> None:
    session = session_of(subscriptions=("a", "b"), subscribe_qos=qos)
    go_online(session)
    packet = asked(session)
    assert isinstance(packet, mqtt5.SubscribePacket)
    filters = packet.topic_filters
    assert [(each.pattern, each.max_qos.value) for each in filters] == [("a", qos), ("b", qos)]
    assert all(each.retain_as_published for each in filters)
    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE, GRANTED][qos]
    assert suback(session, packet.packet_id, granted, granted) == [Subscribed()]


def test_refused_subscriptions_are_named_and_end_the_connection() -> None:
    session = session_of(subscriptions=("$share/secret/a/+", "b", "c"))
    go_online(session)
    no = mqtt5.SubAckReasonCode
    packet = asked(session)
    error = closed_with(
        suback(session, packet.packet_id, no.NOT_AUTHORIZED, GRANTED, no.GRANTED_QOS_AT_MOST_ONCE)
    )
    refused = "$share/…/a/+ (NOT_AUTHORIZED), c (GRANTED_QOS_AT_MOST_ONCE)"
    assert str(error) == f"subscriptions refused: {refused}"  # without the share group's name
    assert isinstance(error, ConnectRefused)
    assert error.filters == ["$share/secret/a/+", "c"]
    assert [type(each) for each in written(session)] == [mqtt5.DisconnectPacket]
    assert session.state is State.CLOSED


def test_later_requests_are_answered_by_what_was_refused() -> None:
    session = online()
    no = mqtt5.SubAckReasonCode.NOT_AUTHORIZED
    session.subscribe(["a", "b"])
    assert suback(session, asked(session).packet_id, GRANTED, no) == [
        Answered(("b (NOT_AUTHORIZED)",))
    ]
    session.unsubscribe(["c", "d"])
    packet = asked(session)
    assert isinstance(packet, mqtt5.UnsubscribePacket)
    assert packet.patterns == ["c", "d"]
    codes = [mqtt5.UnsubAckReasonCode.SUCCESS, mqtt5.UnsubAckReasonCode.NOT_AUTHORIZED]
    answer = mqtt5.UnsubAckPacket(packet.packet_id, codes).write()
    assert session.receive(answer, 0.0) == [Answered(("d (NOT_AUTHORIZED)",))]
    session.unsubscribe(["e"])
    found = mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED  # so it is as it was wished
    answer = mqtt5.UnsubAckPacket(asked(session).packet_id, [found]).write()
    assert session.receive(answer, 0.0) == [Answered(())]
    assert session.state is State.ONLINE


def test_an_answer_to_nothing_or_of_another_length_breaks_the_protocol() -> None:
    unasked = "PROTOCOL_ERROR: an answer to a SUBSCRIBE or UNSUBSCRIBE that was not sent"
    length = "PROTOCOL_ERROR: another number of reason codes than of filters that were asked for"

    def told(codes: int, off_by: int = 0, *, twice: bool = False) -> str:
        session = online()
        session.subscribe(["a"])
        packet_id = asked(session).packet_id
        if twice:
            suback(session, packet_id, GRANTED)
        events = suback(session, packet_id + off_by, *[GRANTED] * codes)
        return str(closed_with(events))

    assert told(1, 1) == unasked
    assert told(1, twice=True) == unasked
    assert told(2) == length
    zero = online().receive(mqtt5.SubAckPacket(0, [GRANTED]).write(), 0.0)
    assert str(closed_with(zero)) == unasked


def test_the_number_of_a_request_is_given_to_no_message_until_it_is_answered() -> None:
    session = online(window=10)
    session.subscribe(["a"])
    packet_id = asked(session).packet_id
    session._outbound._last_id = packet_id - 1
    publish(session, b"x")
    [packet] = publishes(session)
    assert packet.packet_id == packet_id + 1
    suback(session, packet_id, GRANTED)
    session._outbound._last_id = packet_id - 1
    publish(session, b"y")
    [packet] = publishes(session)
    assert packet.packet_id == packet_id
    session._outbound._last_id = packet_id - 1
    session.unsubscribe(["a"])
    assert asked(session).packet_id == packet_id + 2


def test_a_request_made_twice_keeps_the_number_of_the_second() -> None:
    session = online()
    session.subscribe(["a"])
    first = asked(session).packet_id
    session.lost()
    go_online(session, mqtt5.ConnAckPacket(session_present=True))
    session._outbound._last_id = first - 1
    session.subscribe(["b"])
    assert asked(session).packet_id == first
