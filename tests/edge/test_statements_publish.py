"""PUBLISH: flags, retained messages, topics, properties, flow: section 3.3 of both versions."""

import pytest

from broker.edge.accounts import Grant, Quotas
from broker.edge.limits import Limits
from tests.edge import octets
from tests.edge.octets import DISCONNECT, V5, V311, string
from tests.edge.wire import Wire, is_ended, reader_of

both = pytest.mark.parametrize("version", [V311, V5])
IF_NEW, NEVER = 0x10, 0x20  # subscription options


def payload_of(found: octets.Frame, version: int) -> bytes:
    """Return what a message on `a`, of QoS 0 and without properties, says."""
    return found[1].removeprefix(string("a") + octets.with_properties(version, b""))


# -- flags ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "packet", [octets.frame(0x36, b"\0\1a\0\1\0x"), octets.frame(0x38, b"\0\1a\0x")]
)
def test_qos_3_and_a_duplicate_of_qos_0_close_the_connection(version: int, packet: bytes) -> None:
    assert is_ended(Wire().speaker(version), version, packet, 0x81)


@both
@pytest.mark.parametrize("qos", [1, 2])
def test_a_duplicate_of_a_client_is_none_to_those_who_read_it(version: int, qos: int) -> None:
    wire = Wire()
    reader, sender = wire.speaker(version, "reader"), wire.speaker(version, "sender")
    reader.ask(octets.subscribe(version, ("a", 2)))
    sender.ask(octets.publish(version, "a", qos=qos, flags=8))
    assert [first for first, _ in reader.ask()] == [octets.PUBLISH | qos << 1]


@both
@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_sent_again_is_a_duplicate_with_the_same_packet_id(version: int, qos: int) -> None:
    wire = Wire()
    reader = wire.raw()
    reader.ask(octets.keeping(version))
    reader.ask(octets.subscribe(version, ("a", qos)))
    wire.speaker(version, "sender").ask(octets.publish(version, "a", qos=qos))
    ((first, body),) = reader.ask()
    reader.break_off()
    assert wire.raw().ask(octets.keeping(version))[1:] == [(first | 8, body)]


# -- retained messages ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_last_retained_message_comes_to_who_subscribes(version: int, qos: int) -> None:
    wire = Wire()
    sender = wire.speaker(version, "sender")
    for payload in (b"first", b"last"):
        sender.ask(octets.publish(version, "a", payload, qos=qos, flags=1))
        sender.ask(octets.ack(octets.PUBREL))
    sender.ask(octets.publish(version, "a", b"passing"))  # without RETAIN it changes nothing
    found = wire.speaker(version).ask(octets.subscribe(version, ("a", 2)))
    assert [first for first, _ in found] == [octets.SUBACK, 0x31 | qos << 1]
    assert found[1][1].endswith(b"last")


@both
def test_an_empty_retained_message_is_delivered_and_removes_what_was_retained(
    version: int,
) -> None:
    wire = Wire()
    reader, sender = reader_of(wire, version, "a"), wire.speaker(version, "sender")
    sender.ask(octets.publish(version, "a", flags=1))
    sender.ask(octets.publish(version, "a", b"", flags=1))
    assert [payload_of(one, version) for one in reader.ask()] == [b"x", b""]
    assert len(wire.speaker(version).ask(octets.subscribe(version, ("a", 0)))) == 1
    assert len(wire.broker.router.retained) == 0


@both
def test_a_message_has_the_retain_flag_only_if_it_was_retained_before_unless_asked_for(
    version: int,
) -> None:
    wire = Wire()
    sender = wire.speaker(version, "sender")
    plain = wire.speaker(version, "plain")
    plain.ask(octets.subscribe(version, ("a", 0)))
    exact = reader_of(wire, version, "a")
    for flags in (1, 0):
        sender.ask(octets.publish(version, "a", flags=flags))
        assert [first for first, _ in plain.ask()] == [0x30]
        assert [first for first, _ in exact.ask()] == [0x30 | (flags if version == V5 else 0)]


@pytest.mark.parametrize(("options", "comes"), [(0, (1, 1)), (IF_NEW, (1, 0)), (NEVER, (0, 0))])
def test_retain_handling_says_when_retained_messages_come(
    options: int, comes: tuple[int, int]
) -> None:
    client = Wire().speaker(V5)
    client.ask(octets.publish(V5, "a", flags=1))
    for count in comes:  # as a new subscription, and as one that replaces the same
        found = client.ask(octets.subscribe(V5, ("a", options)))
        assert [first for first, _ in found[1:]] == [0x31] * count


# -- topics ---------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("topic", ["a/+", "#", "a#", "+"])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_topic_name_with_a_wildcard_closes_the_connection(
    version: int, topic: str, qos: int
) -> None:
    packet = octets.publish(version, topic, qos=qos)
    assert is_ended(Wire().speaker(version), version, packet, 0x90)


@both
def test_an_empty_topic_name_closes_the_connection(version: int) -> None:
    assert is_ended(Wire().speaker(version), version, octets.publish(version, ""), 0x82)


@both
@pytest.mark.parametrize("topic", ["a", "/", "a//b", " ", "A/B c", "$x/y", "ünïcode", "x" * 1024])
def test_a_message_comes_under_the_topic_that_it_was_published_on(version: int, topic: str) -> None:
    grant = Grant(name="all", reads=("#", "$x/#"), writes=("#", "$x/#"))
    wire = Wire(grants={"ann": grant})
    client = wire.speaker(version, "c", string("ann"), flags=0x82)
    client.ask(octets.subscribe(version, (topic, 0)))
    ((_, body),) = client.ask(octets.publish(version, topic))
    assert body == string(topic) + octets.with_properties(version, b"") + b"x"


@both
@pytest.mark.parametrize("topic", ["$SYS/broker/uptime", "$share/g/a", "$x"])
def test_nobody_publishes_under_a_dollar_without_a_right_to_it(version: int, topic: str) -> None:
    wire = Wire()
    reader = wire.speaker(version, "reader")
    reader.ask(octets.subscribe(version, (topic, 0), ("#", 0)))
    sender = wire.speaker(version, "sender")
    answer = b"\0\1\x87" if version == V5 else b"\0\1"
    assert sender.ask(octets.publish(version, topic, qos=1)) == [(octets.PUBACK, answer)]
    assert reader.ask() == []


@both
@pytest.mark.parametrize(("qos", "kind"), [(0, None), (1, octets.PUBACK), (2, octets.PUBREC)])
def test_each_qos_has_its_answer_also_where_the_message_is_refused(
    version: int, qos: int, kind: int | None
) -> None:
    grant = Grant(name="ann", reads=("#",), writes=("mine",), quotas=Quotas())
    wire = Wire(grants={"ann": grant})
    client = wire.speaker(version, "c", string("ann"), flags=0x82)
    client.ask(octets.subscribe(version, ("#", 0)))
    found = client.ask(octets.publish(version, "mine", qos=qos, packet_id=7))
    assert [first for first, _ in found] == [0x30] + [kind] * (kind is not None)
    refused = client.ask(octets.publish(version, "others", qos=qos, packet_id=8))
    body = b"\0\x08\x87" if version == V5 else b"\0\x08"
    assert refused == ([] if kind is None else [(kind, body)])


# -- properties -----------------------------------------------------------------------------------------


def test_the_properties_of_a_message_are_forwarded_unaltered_and_in_order() -> None:
    wire = Wire()
    client = wire.speaker(V5)
    client.ask(octets.subscribe(V5, ("a", 0)))
    properties = [
        b"\1\1",
        b"\x03" + string("text/plain"),
        b"\x08" + string("re/ply"),
        b"\x09" + string(b"\0\xff"),
        *(octets.pair(name, value) for name, value in (("b", "1"), ("a", "2"), ("b", "1"))),
    ]
    ((_, body),) = client.ask(octets.publish(V5, "a", properties=b"".join(properties)))
    assert sorted(body) == sorted(
        string("a") + octets.with_properties(V5, b"".join(properties)) + b"x"
    )
    assert all(one in body for one in properties[:4])
    assert b"".join(properties[4:]) in body


def test_a_payload_that_is_not_the_text_it_says_to_be_is_forwarded_all_the_same() -> None:
    client = Wire().speaker(V5)
    client.ask(octets.subscribe(V5, ("a", 0)))
    packet = octets.publish(V5, "a", b"\xff", properties=b"\1\1")
    assert client.ask(packet) == [(0x30, b"\0\1a\2\1\1\xff")]


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (b"\x08" + string("a/+"), 0x82),
        (b"\x08" + string(""), 0x82),
        (b"\x0b\1", 0x82),
        (b"\x23\0\0", 0x94),
        (b"\x23\0\x11", 0x94),
        (b"\x23\xff\xff", 0x94),
        (b"\x23\0\1\x23\0\1", 0x82),
        (b"\1\2", 0x82),
        (b"\x11\0\0\0\1", 0x81),
    ],
)
def test_properties_that_are_not_lawful_close_the_connection(
    properties: bytes, reason: int
) -> None:
    packet = octets.publish(V5, "a", qos=1, properties=properties)
    assert is_ended(Wire().speaker(V5), V5, packet, reason)


def test_a_message_whose_time_is_over_is_not_delivered_and_the_others_say_what_is_left() -> None:
    wire = Wire()
    reader, sender = wire.raw(), wire.speaker(V5, "sender")
    reader.ask(octets.keeping(V5))
    reader.ask(octets.subscribe(V5, ("a", 1)))
    reader.break_off()
    for packet_id, seconds in ((1, 0), (2, 9), (3, 10), (4, 30)):
        expiry = b"\x02" + octets.uint32(seconds)
        packet = octets.publish(V5, "a", qos=1, packet_id=packet_id, flags=1, properties=expiry)
        sender.ask(packet)
    wire.wait(10)
    back = wire.raw()
    ((_, body),) = back.ask(octets.keeping(V5))[1:]
    assert body[5:] == b"\5\x02" + octets.uint32(20) + b"x"
    wire.wait(20)
    assert len(back.ask(octets.subscribe(V5, ("a", 1)))) == 1


def test_a_topic_alias_stands_for_the_last_topic_it_was_given_on_its_connection() -> None:
    wire = Wire()
    reader = wire.speaker(V5, "reader")
    reader.ask(octets.subscribe(V5, ("#", 0)))
    sender = wire.speaker(V5, "sender")
    sent = [("a", 1), ("b", 16), ("", 1), ("", 16), ("c", 1), ("", 1)]
    for topic, alias in sent:
        sender.ask(octets.publish(V5, topic, properties=b"\x23" + octets.uint16(alias)))
    assert [body[2:3] for _, body in reader.ask()] == [b"a", b"b", b"a", b"b", b"c", b"c"]
    other = wire.speaker(V5, "other")
    assert is_ended(other, V5, octets.publish(V5, "", properties=b"\x23\0\1"), 0x82)


# -- who gets it, and how many --------------------------------------------------------------------------


@both
def test_subscriptions_that_overlap_give_one_copy_of_the_highest_qos(version: int) -> None:
    wire = Wire()
    client = wire.speaker(version)
    for number, (pattern, qos) in enumerate((("a/#", 0), ("a/+", 2), ("+/b", 1)), start=1):
        properties = bytes([0x0B, number])
        client.ask(octets.subscribe(version, (pattern, qos), properties=properties))
    found = wire.speaker(version, "s").ask(octets.publish(version, "a/b", qos=2))
    assert [first for first, _ in found] == [octets.PUBREC]
    ((first, body),) = client.ask()
    assert first == 0x34
    if version == V5:
        assert sorted(body[8:14:2]) == [0x0B] * 3
        assert {*body[9:15:2]} == {1, 2, 3}


def test_a_subscription_id_comes_with_the_messages_of_its_subscription() -> None:
    client = Wire().speaker(V5)
    client.ask(octets.subscribe(V5, ("a", 0), properties=b"\x0b\x80\1"))
    client.ask(octets.subscribe(V5, ("b", 0)))
    assert client.ask(octets.publish(V5, "a")) == [(0x30, b"\0\1a\3\x0b\x80\1x")]
    assert client.ask(octets.publish(V5, "b")) == [(0x30, b"\0\1b\0x")]
    client.ask(octets.subscribe(V5, ("a", 0)))  # replaced by one without
    assert client.ask(octets.publish(V5, "a")) == [(0x30, b"\0\1a\0x")]


def test_who_sends_more_than_receive_maximum_is_disconnected() -> None:
    wire = Wire(limits=Limits(receive_maximum=3))
    client = wire.speaker(V5)
    for packet_id in (1, 2, 3):
        client.ask(octets.publish(V5, "a", qos=2, packet_id=packet_id))
    again = client.ask(octets.publish(V5, "a", qos=2, packet_id=3, flags=8))
    assert again == [(octets.PUBREC, b"\0\3")]
    client.ask(octets.ack(octets.PUBREL, 2))
    assert len(client.ask(octets.publish(V5, "a", qos=2, packet_id=2))) == 1
    assert is_ended(client, V5, octets.publish(V5, "a", qos=1, packet_id=4), 0x93)


@pytest.mark.parametrize("version", [V311, V5])
def test_a_client_of_311_that_sends_many_waits_for_the_journal(version: int) -> None:
    wire = Wire(limits=Limits(receive_maximum=3), is_durable=True)
    wire.raw().ask(octets.keeping(version, "reader") + octets.subscribe(version, ("a", 1)))
    sender = wire.speaker(version, "sender")
    wire.writes_at_once = False
    packets = [octets.publish(version, "a", qos=1, packet_id=one) for one in range(1, 6)]
    found = sender.ask(b"".join(packets))
    if version == V5:
        assert (found, sender.is_closed) == ([(DISCONNECT, b"\x93")], True)
        return
    assert found == []
    for _ in range(2):
        wire.write_journal()
        found += sender.ask()
    assert found == [(octets.PUBACK, octets.uint16(one)) for one in range(1, 6)]


def test_no_more_is_on_its_way_than_a_client_takes_and_all_else_is_answered() -> None:
    wire = Wire()
    client = wire.raw()
    client.ask(octets.connect(V5, properties=b"\x21\0\2"))
    client.ask(octets.subscribe(V5, ("a", 2)))
    sender = wire.speaker(V5, "sender")
    for number in range(1, 6):
        sender.ask(octets.publish(V5, "a", bytes([number]), qos=1 + number % 2, packet_id=number))
    on_wire = client.ask(octets.PINGREQ)
    assert [first for first, _ in on_wire] == [0x34, 0x32, octets.PINGRESP]
    assert [first for first, _ in client.ask(octets.publish(V5, "b", qos=1))] == [octets.PUBACK]
    assert sender.ask(octets.publish(V5, "a")) == []
    assert [first for first, _ in client.ask()] == [0x30]  # QoS 0 is not counted
    assert client.ask(octets.ack(octets.PUBREC, 1)) == [(octets.PUBREL, b"\0\1")]
    assert [first for first, _ in client.ask(octets.ack(octets.PUBCOMP, 1))] == [0x34]
    assert [first for first, _ in client.ask(octets.ack(octets.PUBACK, 2))] == [0x32]
    assert client.ask(octets.ack(octets.PUBREC, 3, 0x80))[0][0] == 0x34
