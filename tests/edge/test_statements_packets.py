"""Strings, numbers, flags, packet ids and properties: sections 1.5 and 2 of MQTT 5 and of 3.1.1."""

from collections.abc import Callable

import pytest

from tests.edge import octets
from tests.edge.octets import V5, V311, string
from tests.edge.wire import Wire, is_ended

both = pytest.mark.parametrize("version", [V311, V5])
MALFORMED, PROTOCOL_ERROR = 0x81, 0x82
WILL, NAME = 0b0000_0110, 0b1000_0010  # connect flags

Build = Callable[[int, bytes], bytes]


def in_connect(version: int, text: bytes) -> bytes:
    """Return a CONNECT with this client id."""
    return octets.connect(version, text)


def in_will_topic(version: int, text: bytes) -> bytes:
    """Return a CONNECT with this will topic."""
    will = (octets.with_properties(version, b""), string(text), string(b"gone"))
    return octets.connect(version, "c", *will, flags=WILL)


def in_user_name(version: int, text: bytes) -> bytes:
    """Return a CONNECT with this user name."""
    return octets.connect(version, "c", string(text), flags=NAME)


def in_property(identifier: int) -> Build:
    """Return what builds a PUBLISH with text in this property."""

    def build(version: int, text: bytes) -> bytes:
        return octets.publish(version, "a", properties=bytes([identifier]) + string(text))

    return build


def in_pair_name(version: int, text: bytes) -> bytes:
    """Return a PUBLISH with a user property of this name."""
    return octets.publish(version, "a", properties=b"\x26" + string(text) + string("v"))


def in_pair_value(version: int, text: bytes) -> bytes:
    """Return a PUBLISH with a user property of this value."""
    return octets.publish(version, "a", properties=b"\x26" + string("n") + string(text))


def in_filter(version: int, text: bytes) -> bytes:
    """Return a SUBSCRIBE."""
    return octets.subscribe(version, (text, 0))


BAD_TEXTS = [b"a\xed\xa0\x80", b"\xc0\x80", b"\xff", b"\xc3", b"a\0b"]  # a surrogate; overlong; …


@both
@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("build", [in_connect, in_will_topic, in_user_name])
def test_a_connect_with_text_that_is_not_utf_8_is_refused(
    version: int, text: bytes, build: Build
) -> None:
    client = Wire().raw()
    answer = [(octets.CONNACK, bytes([0, MALFORMED, 0]))] if version == V5 else []
    assert client.ask(build(version, text)) == answer
    assert client.is_closed


@both
@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("build", [octets.publish, in_filter, octets.unsubscribe])
def test_a_topic_that_is_not_utf_8_closes_the_connection(
    version: int, text: bytes, build: Build
) -> None:
    assert is_ended(Wire().speaker(version), version, build(version, text), MALFORMED)


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize("build", [in_property(3), in_property(8), in_pair_name, in_pair_value])
def test_a_property_that_is_not_utf_8_closes_the_connection(text: bytes, build: Build) -> None:
    assert is_ended(Wire().speaker(V5), V5, build(V5, text), MALFORMED)


@both
def test_a_byte_order_mark_is_kept_and_topics_are_not_normalised(version: int) -> None:
    wire = Wire()
    client = wire.speaker(version)
    client.ask(octets.subscribe(version, ("\ufeffa", 0), ("é", 0)))
    assert client.ask(octets.publish(version, "a")) == []
    assert client.ask(octets.publish(version, "e\u0301")) == []
    ((_, body),) = client.ask(octets.publish(version, "\ufeffa"))
    assert body.startswith(string("\ufeffa"))


@both
@pytest.mark.parametrize("size", [b"\x80\0", b"\x84\x80\0", b"\xff\xff\xff\xff\1"])
def test_a_length_that_is_longer_than_needed_closes_the_connection(
    version: int, size: bytes
) -> None:
    assert is_ended(Wire().speaker(version), version, b"\x82" + size, MALFORMED)


@both
@pytest.mark.parametrize("payload_bytes", [0, 100, 127, 128, 16_370, 16_390])
def test_lengths_are_sent_in_as_few_bytes_as_possible(version: int, payload_bytes: int) -> None:
    client = Wire().speaker(version)
    client.ask(octets.subscribe(version, ("a", 0)))
    sent = octets.publish(version, "a", b"x" * payload_bytes)
    client.send(sent)
    assert client.raw_bytes() == sent


@both
@pytest.mark.parametrize("flags", [0, 1, 3, 4, 8, 15])
@pytest.mark.parametrize("kind", [0x40, 0x50, 0x60, 0x70, 0x80, 0xA0, 0xC0, 0xE0])
def test_wrong_flags_in_a_fixed_header_close_the_connection(
    version: int, kind: int, flags: int
) -> None:
    right = 2 if kind in {0x60, 0x80, 0xA0} else 0
    body = b"" if kind in {0xC0, 0xE0} else b"\0\1"
    if flags == right:
        flags = 10
    packet = octets.frame(kind | flags, body)
    assert is_ended(Wire().speaker(version), version, packet, MALFORMED)


def test_wrong_flags_of_auth_close_the_connection() -> None:
    assert is_ended(Wire().speaker(V5), V5, b"\xf1\0", MALFORMED)


@both
def test_wrong_flags_of_connect_close_the_connection(version: int) -> None:
    client = Wire().raw()
    client.ask(b"\x11" + octets.connect(version)[1:])
    assert client.is_closed


@both
@pytest.mark.parametrize("kind", [0x00, 0x20, 0x90, 0xB0, 0xD0, 0xF0])
def test_packets_that_no_client_sends_close_the_connection(version: int, kind: int) -> None:
    packet = octets.frame(kind, b"\0\0")
    assert is_ended(Wire().speaker(version), version, packet, PROTOCOL_ERROR)


@both
def test_a_message_of_qos_0_has_no_packet_id(version: int) -> None:
    client = Wire().speaker(version)
    client.ask(octets.subscribe(version, ("a", 2)))
    ((first, body),) = client.ask(octets.publish(version, "a", b"\0\7hello"))
    assert (first, body) == (
        octets.PUBLISH,
        string("a") + octets.with_properties(version, b"") + b"\0\7hello",
    )


@both
@pytest.mark.parametrize(
    "build",
    [
        lambda version: octets.publish(version, "a", qos=1, packet_id=0),
        lambda version: octets.publish(version, "a", qos=2, packet_id=0),
        lambda version: octets.subscribe(version, ("a", 0), packet_id=0),
        lambda version: octets.unsubscribe(version, "a", packet_id=0),
        lambda _: octets.ack(octets.PUBACK, 0),
        lambda _: octets.ack(octets.PUBREL, 0),
    ],
)
def test_packet_id_0_closes_the_connection(version: int, build: Callable[[int], bytes]) -> None:
    assert is_ended(Wire().speaker(version), version, build(version), PROTOCOL_ERROR)


@both
def test_packet_ids_of_messages_are_not_0_and_not_in_use(version: int) -> None:
    client = Wire().speaker(version)
    client.ask(octets.subscribe(version, ("a", 1)))
    session = client.connection.session
    assert session is not None
    ids = []
    for _ in range(2):
        session._last_id = 65533  # 65,000 messages would take seconds
        sent = [octets.publish(version, "a", qos=1, packet_id=one) for one in range(1, 5)]
        found = client.ask(b"".join(sent))
        ids += [int.from_bytes(body[3:5]) for first, body in found if first == 0x32]
    assert ids == [65534, 65535, 1, 2, 3, 4, 5, 6]


@both
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
def test_an_answer_has_the_packet_id_of_what_it_answers(version: int, packet_id: int) -> None:
    client = Wire().speaker(version)

    def ids_of(packet: bytes) -> list[tuple[int, int]]:
        return [(first, int.from_bytes(body[:2])) for first, body in client.ask(packet)]

    assert ids_of(octets.subscribe(version, ("b", 0), packet_id=packet_id)) == [(0x90, packet_id)]
    assert ids_of(octets.unsubscribe(version, "b", packet_id=packet_id)) == [(0xB0, packet_id)]
    assert ids_of(octets.publish(version, "a", qos=1, packet_id=packet_id)) == [(0x40, packet_id)]
    assert ids_of(octets.publish(version, "a", qos=2, packet_id=packet_id)) == [(0x50, packet_id)]
    assert ids_of(octets.ack(octets.PUBREL, packet_id)) == [(0x70, packet_id)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (V5, [(0x90, b"\0\1\0\1"), (0xB0, b"\0\1\0\0"), (0x30, b"\0\1b\0x")]),
        (V311, [(0x90, b"\0\1\1"), (0xB0, b"\0\1"), (0x30, b"\0\1bx")]),
    ],
)
def test_packets_without_properties_say_so_in_5_and_have_no_such_field_in_311(
    version: int, expected: list[octets.Frame]
) -> None:
    client = Wire().speaker(version)
    client.send(octets.subscribe(version, ("a", 1)) + octets.unsubscribe(version, "a"))
    client.send(octets.subscribe(version, ("b", 1)))
    found = client.ask(octets.publish(version, "b"))
    assert [found[0], found[1], found[3]] == expected


def test_a_client_of_311_gets_nothing_that_only_mqtt_5_has() -> None:
    wire = Wire()
    old, new = wire.speaker(V311, "old"), wire.speaker(V5, "new")
    old.ask(octets.subscribe(V311, ("a/#", 1)))
    new.ask(octets.subscribe(V5, ("a/#", 1), properties=b"\x0b\7"))
    properties = b"\x03" + string("text") + b"\x08" + string("r") + b"\x02" + octets.uint32(60)
    message = octets.publish(V5, "a/1", qos=1, packet_id=3, properties=properties)
    assert [first for first, _ in new.ask(message)] == [0x32, 0x40]
    assert old.ask() == [(0x32, string("a/1") + b"\0\1x")]
    assert old.ask(octets.publish(V311, "nobody", qos=1, packet_id=9)) == [(0x40, b"\0\x09")]
    assert old.ask(octets.publish(V311, "nobody", qos=2, packet_id=9)) == [(0x50, b"\0\x09")]
    assert old.ask(octets.ack(octets.PUBREL, 8)) == [(0x70, b"\0\x08")]
    assert old.ask(octets.unsubscribe(V311, "none", packet_id=2)) == [(0xB0, b"\0\2")]
    assert old.ask(octets.subscribe(V311, ("a/#/b", 0))) == [(0x90, b"\0\1\x80")]
    assert old.ask(octets.frame(0x40, b"\0\1\0\0")) == []
    assert old.is_closed
