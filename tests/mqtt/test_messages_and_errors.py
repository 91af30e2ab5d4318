"""What travels keeps all that it carries; settings, errors and waiting times are as documented."""

import random
import ssl
from itertools import islice

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode

from broker.mqtt import mqtt_errors
from broker.mqtt.backoff import full_jitter
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Delivery, Message, decode_publish, encode_publish, encode_will
from broker.mqtt.reason_codes import REASON_OF, PubAckReasonCode
from broker.mqtt.session_events import SessionConfig
from tests.mqtt.server import packets_in

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
messages = st.builds(
    Message,
    topic=st.sampled_from(["t", "a/b/c"]),
    payload=st.binary(max_size=20),
    qos=st.sampled_from([0, 1]),
    retain=st.booleans(),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    response_topic=st.none() | st.just("answers/here"),
    correlation=st.none() | st.binary(min_size=1, max_size=16),
    user_properties=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
)


@given(message=messages, duplicate=st.booleans(), packet_id=st.integers(1, 65_535))
def test_everything_that_a_message_carries_comes_out_as_it_went_in(
    message: Message, *, duplicate: bool, packet_id: int
) -> None:
    duplicate = duplicate and message.qos > 0
    data = encode_publish(message, packet_id if message.qos else None, duplicate=duplicate)
    [packet] = packets_in(data)

    assert isinstance(packet, mqtt5.PublishPacket)
    assert decode_publish(packet) == message
    assert packet.duplicate is duplicate
    assert packet.packet_id == (packet_id if message.qos else None)


@given(message=messages)
def test_a_last_will_carries_everything_too(message: Message) -> None:
    will = encode_will(message)

    carried = Message(
        will.topic,
        will.payload or b"",
        will.qos.value,
        will.retain,
        will.message_expiry_interval,
        will.response_topic,
        will.correlation_data,
        tuple(will.user_properties),
    )
    assert carried == message


def test_a_message_is_sent_at_least_once_and_not_kept_unless_it_says_so() -> None:
    message = Message("t", b"x")

    assert (message.qos, message.retain, message.broker_index) == (1, False, None)
    assert (message.expiry_s, message.response_topic, message.correlation) == (None, None, None)
    assert message.user_properties == ()


@pytest.mark.parametrize(
    ("retain", "payload", "clears"),
    [(True, b"", True), (True, b"x", False), (False, b"", False), (False, b"x", False)],
)
def test_only_an_empty_retained_message_clears(
    payload: bytes, *, retain: bool, clears: bool
) -> None:
    assert Message("t", payload, retain=retain).clears is clears


def test_a_delivery_is_acknowledged_once_with_its_own_number_and_connection() -> None:
    told: list[tuple[int, int]] = []
    delivery = Delivery(
        Message("t", b"four"),
        1.5,
        duplicate=True,
        packet_id=7,
        epoch=3,
        acknowledge=lambda *numbers: told.append(numbers),
    )
    assert (delivery.received_at, delivery.duplicate) == (1.5, True)
    assert told == []
    delivery.acknowledge()
    delivery.acknowledge()
    assert told == [(7, 3)]
    assert repr(delivery) == "Delivery('t', 4 bytes)"


def test_a_delivery_of_qos_0_is_never_acknowledged() -> None:
    told: list[tuple[int, int]] = []
    Delivery(
        Message("t", b"", 0),
        0.0,
        duplicate=False,
        packet_id=0,
        epoch=1,
        acknowledge=lambda *it: told.append(it),
    ).acknowledge()
    assert told == []


# -- settings ------------------------------------------------------------------------------------


def test_a_session_asks_for_what_the_documents_say_unless_told_otherwise() -> None:
    config = SessionConfig(client_id="c")

    assert (config.username, config.password, config.will) == (None, None, None)
    assert (config.subscriptions, config.subscribe_qos) == ((), 1)
    assert (config.session_expiry_s, config.keep_alive_s) == (24 * 3_600, 30)
    assert (config.receive_maximum, config.window) == (1_000, 500)
    assert config.max_packet_bytes == 1 << 20


def test_an_endpoint_is_read_from_its_url() -> None:
    endpoint = Endpoint.from_url("mqtt://a%20b:p%40ss@h.example:1999/")

    assert (endpoint.host, endpoint.port, endpoint.tls) == ("h.example", 1999, None)
    assert (endpoint.username, endpoint.password) == ("a b", "p@ss")
    assert "p@ss" not in repr(endpoint)
    bare = Endpoint.from_url("mqtt://h")
    assert bare == Endpoint(host="h", port=1883, username=None, password=None, tls=None)
    assert bare == Endpoint(host="h")
    assert Endpoint.from_url("mqtt://u@h").password is None
    secure = Endpoint.from_url("mqtts://h")
    assert secure.port == 8883
    assert isinstance(secure.tls, ssl.SSLContext)
    assert secure.tls.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h", "an MQTT URL starts with mqtt:// or mqtts://, not with 'http'"),
        ("mqtt://", "the MQTT URL names no host"),
        ("mqtt://h/x", "an MQTT URL ends after the port: no path, query or fragment"),
        ("mqtt://h?q", "an MQTT URL ends after the port: no path, query or fragment"),
        ("mqtt://h#f", "an MQTT URL ends after the port: no path, query or fragment"),
        ("mqtt://h:0", "the port of the MQTT URL is not a number from 1 to 65535"),
        ("mqtt://h:65536", "the port of the MQTT URL is not a number from 1 to 65535"),
        ("mqtt://h:x", "the port of the MQTT URL is not a number from 1 to 65535"),
        ("mqtt://[h", "the MQTT URL cannot be parsed: Invalid IPv6 URL"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_is_wrong(url: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole text is compared
        Endpoint.from_url(url)
    assert str(refused.value) == why


# -- what goes wrong -----------------------------------------------------------------------------


def test_errors_say_what_happened_and_keep_the_reason() -> None:
    bad = DisconnectReasonCode.SERVER_BUSY
    plain, told = mqtt_errors.ServerDisconnected(bad), mqtt_errors.ServerDisconnected(bad, "later")
    wrong = mqtt_errors.ProtocolError(DisconnectReasonCode.MALFORMED_PACKET, "a text")
    refused = mqtt_errors.ConnectRefused("no", ConnAckReasonCode.BANNED)

    assert str(plain) == "the MQTT broker disconnected: SERVER_BUSY"
    assert str(told) == "the MQTT broker disconnected: SERVER_BUSY (later)"
    assert str(wrong) == "MALFORMED_PACKET: a text"
    assert (plain.reason, wrong.reason) == (bad, DisconnectReasonCode.MALFORMED_PACKET)
    assert (str(refused), refused.reason) == ("no", ConnAckReasonCode.BANNED)
    assert mqtt_errors.ConnectRefused("no").reason is None
    assert issubclass(mqtt_errors.SessionTakenOver, mqtt_errors.ServerDisconnected)


@pytest.mark.parametrize(
    ("refused", "account", "rights"),
    [
        (mqtt_errors.ConnectRefused("", ConnAckReasonCode.NOT_AUTHORIZED), True, False),
        (mqtt_errors.ConnectRefused("", ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD), True, False),
        (mqtt_errors.ConnectRefused("", ConnAckReasonCode.BANNED), True, False),
        (mqtt_errors.ConnectRefused("", ConnAckReasonCode.SERVER_BUSY), False, False),
        (mqtt_errors.ConnectRefused("", filters=["a/#"]), False, True),
        (mqtt_errors.ConnectRefused(""), False, False),
    ],
)
def test_a_refused_connect_concerns_the_account_and_a_refused_subscribe_its_rights(
    refused: mqtt_errors.ConnectRefused, *, account: bool, rights: bool
) -> None:
    for one in (refused, refused.at("host:1883")):
        assert (one.concerns_account, one.concerns_rights) == (account, rights)
    assert str(refused.at("host:1883")) == "host:1883: "


def test_reason_codes_of_a_puback_are_those_of_mqtt() -> None:
    of_codec = [name for name in dir(mqtt5.PubAckReasonCode) if name.isupper()]

    assert {each.name: each.value for each in PubAckReasonCode} == {
        name: getattr(mqtt5.PubAckReasonCode, name).value for name in of_codec
    }
    assert all(REASON_OF[each.value] is each for each in PubAckReasonCode)
    for each in PubAckReasonCode:
        assert each.is_failure is (each >= 0x80)
        assert each.was_taken is (each == 0)


def test_waiting_is_uniform_below_a_bound_that_doubles_up_to_ten_seconds() -> None:
    class Highest(random.Random):
        def uniform(self, low: float, high: float) -> float:
            assert low == 0
            return high

    bounds = list(islice(full_jitter(Highest()), 9))

    assert bounds == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
