"""The state machine without a network: every server packet is built with the codec itself."""

import mqtt5
import pytest
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode, PublishPacket, QoS

from broker.mqtt import (
    ConnectionLost,
    ConnectRefused,
    Message,
    PubAckReasonCode,
    ServerDisconnected,
    SessionTakenOver,
)
from broker.mqtt.outbound import Outbound, Outcome, Publication
from broker.mqtt.session_events import Accepted, PublishReceived, Subscribed
from tests.mqtt.server import (
    QOS1,
    closed_with,
    go_online,
    online,
    publish,
    publishes,
    session_of,
    written,
)


def test_connect_carries_what_the_settings_say() -> None:
    session = session_of(
        username="u",
        password="p",
        will=Message("w", b"gone", retain=True),
        receive_maximum=7,
        session_expiry_s=99,
        keep_alive_s=11,
    )
    session.connect(0.0)
    [packet] = written(session)
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert (packet.username, packet.password) == ("u", b"p")
    assert (packet.receive_max, packet.session_expiry_interval, packet.keep_alive) == (7, 99, 11)
    assert packet.will is not None
    assert (packet.will.topic, packet.will.payload, packet.will.retain) == ("w", b"gone", True)


def test_every_connection_takes_up_the_session_that_there_is() -> None:
    session = session_of()
    go_online(session)
    session.lost()
    session.connect(1.0)
    [packet] = written(session)
    assert isinstance(packet, mqtt5.ConnectPacket)
    assert not packet.clean_start


def test_subscribing_completes_the_connect() -> None:
    session = session_of(subscriptions=("a/#", "$share/g/b"))
    assert go_online(session) == [Accepted(session_present=False)]
    assert session.state.name == "SUBSCRIBING"
    [packet] = written(session)
    assert isinstance(packet, mqtt5.SubscribePacket)
    assert [one.pattern for one in packet.topic_filters] == ["a/#", "$share/g/b"]
    assert all(one.max_qos == QOS1 for one in packet.topic_filters)
    granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE] * 2
    suback = mqtt5.SubAckPacket(packet.packet_id, granted)
    assert session.receive(suback.write(), 0.0) == [Subscribed()]
    assert session.state.name == "ONLINE"


@pytest.mark.parametrize(
    "code",
    [
        mqtt5.SubAckReasonCode.NOT_AUTHORIZED,
        mqtt5.SubAckReasonCode.GRANTED_QOS_AT_MOST_ONCE,
    ],
)
def test_a_subscription_granted_less_than_asked_is_refused(code: mqtt5.SubAckReasonCode) -> None:
    session = session_of(subscriptions=("a",))
    go_online(session)
    [packet] = written(session)
    assert isinstance(packet, mqtt5.SubscribePacket)
    events = session.receive(mqtt5.SubAckPacket(packet.packet_id, [code]).write(), 0.0)
    assert isinstance(closed_with(events), ConnectRefused)


def test_a_refused_connect_names_the_reason() -> None:
    session = session_of()
    reason = ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD
    error = closed_with(go_online(session, mqtt5.ConnAckPacket(reason_code=reason)))
    assert isinstance(error, ConnectRefused)
    assert "BAD_USER_NAME_OR_PASSWORD" in str(error)


def test_a_session_taken_over_is_told_apart_from_other_disconnects() -> None:
    for reason, kind in (
        (DisconnectReasonCode.SESSION_TAKEN_OVER, SessionTakenOver),
        (DisconnectReasonCode.SERVER_SHUTTING_DOWN, ServerDisconnected),
    ):
        packet = mqtt5.DisconnectPacket(reason_code=reason)
        assert type(closed_with(online().receive(packet.write(), 0.0))) is kind


def test_a_delivery_is_acknowledged_only_when_the_application_says_so() -> None:
    session = online()
    events = session.receive(PublishPacket("t", b"x", qos=QOS1, packet_id=3).write(), 0.0)
    [received] = events
    assert isinstance(received, PublishReceived)
    assert written(session) == []
    session.acknowledge(received.packet_id, received.epoch)
    session.acknowledge(received.packet_id, received.epoch)
    [puback] = written(session)
    assert isinstance(puback, mqtt5.PubAckPacket)
    assert puback.packet_id == 3


def test_pubacks_go_out_in_the_order_of_arrival() -> None:
    session = online()
    data = b"".join(PublishPacket("t", b"", qos=QOS1, packet_id=n).write() for n in (5, 6, 7))
    session.receive(data, 0.0)
    session.acknowledge(7, 1)
    session.acknowledge(6, 1)
    assert written(session) == []
    session.acknowledge(5, 1)
    pubacks = [packet for packet in written(session) if isinstance(packet, mqtt5.PubAckPacket)]
    assert [packet.packet_id for packet in pubacks] == [5, 6, 7]


def test_a_delivery_of_an_earlier_connection_is_never_acknowledged_on_the_next() -> None:
    session = online()
    packet = PublishPacket("t", b"x", qos=QOS1, packet_id=3).write()
    [old] = session.receive(packet, 0.0)
    assert isinstance(old, PublishReceived)
    session.lost()
    go_online(session, mqtt5.ConnAckPacket(session_present=True))
    session.receive(packet, 0.0)
    session.acknowledge(old.packet_id, old.epoch)
    assert written(session) == []


def test_an_acknowledgement_after_our_disconnect_is_not_sent() -> None:
    session = online()
    session.receive(PublishPacket("t", b"x", qos=QOS1, packet_id=3).write(), 0.0)
    session.disconnect()
    session.acknowledge(3, 1)
    assert [type(packet) for packet in written(session)] == [mqtt5.DisconnectPacket]


def test_the_reason_of_each_puback_reaches_its_message() -> None:
    session = online()
    outcomes = publish(session, b"a", b"b")
    first, second = publishes(session)
    for packet, reason in (
        (second, mqtt5.PubAckReasonCode.NOT_AUTHORIZED),
        (first, mqtt5.PubAckReasonCode.SUCCESS),
    ):
        puback = mqtt5.PubAckPacket(packet.packet_id or 0, reason_code=reason)
        session.receive(puback.write(), 0.0)
    assert outcomes == [(b"b", PubAckReasonCode.NOT_AUTHORIZED), (b"a", PubAckReasonCode.SUCCESS)]
    assert session.is_idle


def test_a_puback_counts_once() -> None:
    session = online()
    outcomes = publish(session, b"a")
    [packet] = publishes(session)
    puback = mqtt5.PubAckPacket(packet.packet_id or 0).write()
    session.receive(puback + puback, 0.0)
    assert len(outcomes) == 1


def test_qos_0_is_settled_once_written_and_needs_no_window() -> None:
    session = online(window=1)
    publish(session, b"1")
    outcomes = publish(session, b"0", qos=0)
    assert len(publishes(session)) == 2
    assert outcomes == [(b"0", PubAckReasonCode.SUCCESS)]


@pytest.mark.parametrize(("server", "own", "both"), [(3, 10, 3), (10, 3, 3)])
def test_the_smaller_of_both_windows_counts(server: int, own: int, both: int) -> None:
    session = session_of(window=own)
    go_online(session, mqtt5.ConnAckPacket(receive_max=server))
    publish(session, *[b"x"] * 20)
    assert len(publishes(session)) == both


def test_a_single_message_goes_before_the_rest_of_a_batch() -> None:
    session = online(window=1)
    batch = (Publication(Message("crowd", b""), lambda _: None) for _ in range(3))
    session.publish_batch(batch)
    [first] = publishes(session)
    publish(session, b"urgent")
    session.receive(mqtt5.PubAckPacket(first.packet_id or 0).write(), 0.0)
    assert [packet.payload for packet in publishes(session)] == [b"urgent"]


def test_a_resumed_session_resends_with_dup_and_the_same_ids() -> None:
    session = online(window=3)
    publish(session, b"a", b"b", b"c", b"d")
    before = publishes(session)
    session.lost()
    go_online(session, mqtt5.ConnAckPacket(session_present=True, receive_max=2))
    after = publishes(session)
    assert [(p.packet_id, p.payload, p.duplicate) for p in after] == [
        (p.packet_id, p.payload, True) for p in before[:2]
    ]


def test_a_lost_session_sends_anew_in_the_old_order() -> None:
    session = online(window=2)
    publish(session, b"a", b"b", b"c")
    publishes(session)
    session.lost()
    go_online(session, mqtt5.ConnAckPacket(session_present=False))
    assert [(p.payload, p.duplicate) for p in publishes(session)] == [(b"a", False), (b"b", False)]


def test_a_message_too_large_for_the_server_is_refused_here() -> None:
    session = session_of()
    go_online(session, mqtt5.ConnAckPacket(max_packet_size=50))
    outcomes = publish(session, b"x" * 100, b"ok")
    assert [packet.payload for packet in publishes(session)] == [b"ok"]
    assert outcomes == [(b"x" * 100, PubAckReasonCode.QUOTA_EXCEEDED)]
    [refused] = session.take_refusals()
    assert "50 bytes" in refused.why


def test_qos_1_on_a_server_without_it_is_refused_rather_than_weakened() -> None:
    session = session_of()
    go_online(session, mqtt5.ConnAckPacket(max_qos=QoS.AT_MOST_ONCE))
    outcomes = publish(session, b"x")
    assert publishes(session) == []
    assert outcomes == [(b"x", PubAckReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)]


def test_a_topic_that_mqtt_cannot_express_is_refused_and_hurts_no_other() -> None:
    session = online()
    outcomes: list[Outcome] = []
    for topic in ("a/#", "", "x" * 70_000, "\ud800", "fine"):
        session.publish(Publication(Message(topic, b""), outcomes.append))
    assert [packet.topic for packet in publishes(session)] == ["fine"]
    assert outcomes == [PubAckReasonCode.IMPLEMENTATION_SPECIFIC_ERROR] * 4


def test_packet_ids_wrap_around_past_those_still_in_flight() -> None:
    outbound = Outbound(window=10)
    outbound.connected(mqtt5.ConnAckPacket())
    out: list[bytes] = []
    outbound.add(Publication(Message("t", b""), lambda _: None))
    outbound.refill(out)
    outbound.reserved_id = 2
    ids = [outbound.next_id() for _ in range(65_534)]
    assert ids == [*range(2 + 1, 65_536), 3]


def test_back_pressure_holds_publishes_but_not_acknowledgements() -> None:
    session = online()
    session.receive(PublishPacket("t", b"x", qos=QOS1, packet_id=3).write(), 0.0)
    session.pause()
    publish(session, b"later")
    session.acknowledge(3, 1)
    assert [type(packet) for packet in written(session)] == [mqtt5.PubAckPacket]
    session.resume()
    assert [packet.payload for packet in publishes(session)] == [b"later"]


def test_a_large_batch_is_handed_over_in_pieces() -> None:
    session = online(window=1_000)
    publish(session, *[bytes(10_000)] * 100)
    assert len(session.take(0.0)) < 300_000
    assert len(publishes(session)) > 50


def test_the_end_settles_everything_once() -> None:
    session = online(window=2)
    outcomes = publish(session, *[b"x"] * 5)
    batch: list[Outcome] = []
    session.publish_batch(Publication(Message("t", b""), batch.append) for _ in range(3))
    publishes(session)
    error = ConnectionLost("over")
    session.lost()
    session.abandon(error)
    assert [outcome for _, outcome in outcomes] == [error] * 5
    assert batch == [error] * 3
    assert session.is_idle
