"""What is no lawful packet closes its connection with the right reason, and harms nobody else."""

import subprocess
import sys
from typing import Any

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.edge.packets import BadPacketError, PacketReader, Publish
from tests.edge import octets
from tests.edge.fuzz import Fuzz
from tests.edge.octets import V5, V311
from tests.edge.wire import Wire

MALFORMED, PROTOCOL_ERROR, TOO_LARGE, QUOTA = 0x81, 0x82, 0x95, 0x97
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
NAME = TEXT.filter(lambda text: text and not {"+", "#"} & {*text})
UINT16, UINT32 = st.integers(1, 65535), st.integers(0, 2**32 - 1)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return values of this kind, or None."""
    return st.none() | strategy


def some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return some of these properties; those that are None are left out."""
    return st.fixed_dictionaries(options).map(
        lambda found: {name: value for name, value in found.items() if value is not None}
    )


MESSAGE = some(
    payload_format_indicator=maybe(st.integers(0, 1)),
    message_expiry_interval=maybe(UINT32),
    content_type=maybe(TEXT),
    response_topic=maybe(NAME),
    correlation_data=maybe(st.binary(max_size=9)),
    user_properties=PAIRS,
)


@pytest.mark.parametrize("seed", range(2))
def test_random_damaged_and_lawful_packets_leave_the_broker_in_its_bounds(seed: int) -> None:
    fuzz = Fuzz(seed)
    fuzz.run(10_000)
    assert min(fuzz.closes[f"after CONNACK {code}"] for code in ("0x81", "0x82", "0x8e")) > 20
    assert fuzz.closes["before CONNACK"] > 10


@given(
    st.fixed_dictionaries(
        {"topic": NAME, "payload": st.binary(max_size=300), "retain": st.booleans()}
    ),
    maybe(st.tuples(st.integers(1, 2), UINT16)),
    MESSAGE,
)
def test_a_publish_is_read_as_the_codec_writes_it(
    options: dict[str, Any], sending: tuple[int, int] | None, properties: dict[str, Any]
) -> None:
    qos, packet_id = sending or (0, None)
    sent = mqtt5.PublishPacket(qos=mqtt5.QoS(qos), packet_id=packet_id, **options, **properties)
    found = read(octets.connect(V5), sent.write())
    assert {name: getattr(found, name) for name in options} == options
    assert (found.qos, found.packet_id) == (qos, packet_id or 0)
    assert_passed_on(found, sent, properties)


@given(
    some(
        client_id=TEXT,
        username=maybe(TEXT),
        password=maybe(st.binary(max_size=9)),
        clean_start=st.booleans(),
        keep_alive=UINT16,
        session_expiry_interval=UINT32,
        receive_max=UINT16,
        topic_alias_max=UINT16,
        max_packet_size=maybe(st.integers(1, 2**32 - 1)),
        request_problem_info=st.booleans(),
        request_response_info=st.booleans(),
        user_properties=PAIRS,
    ),
    maybe(
        st.fixed_dictionaries(
            {
                "topic": NAME,
                "payload": st.binary(max_size=9),
                "qos": st.integers(0, 2).map(mqtt5.QoS),
                "retain": st.booleans(),
                "will_delay_interval": UINT32,
            }
        )
    ),
    MESSAGE,
)
def test_a_connect_is_read_as_the_codec_writes_it(
    options: dict[str, Any], will: dict[str, Any] | None, properties: dict[str, Any]
) -> None:
    if will is not None:
        options["will"] = mqtt5.Will(**will, **properties)
    sent = mqtt5.ConnectPacket(**options)
    found = read(sent.write())
    assert {name: getattr(found, name) for name in CONNECT_FIELDS} == {
        name: getattr(sent, codecs) for name, codecs in CONNECT_FIELDS.items()
    }
    assert found.max_packet_bytes == (sent.max_packet_size or 0)
    assert (found.will is None) == (sent.will is None)
    if will is not None:
        assert (found.will.topic, found.will.payload) == (will["topic"], will["payload"])
        assert (found.will.qos, found.will.retain) == (will["qos"].value, will["retain"])
        assert found.will_delay_s == will["will_delay_interval"]
        assert_passed_on(found.will, sent.will, properties)


CONNECT_FIELDS = {
    **{name: name for name in ("client_id", "username", "password", "clean_start", "receive_max")},
    "keep_alive_s": "keep_alive",
    "session_expiry_s": "session_expiry_interval",
    "takes_user_properties": "request_problem_info",
}


def assert_passed_on(found: Publish, sent: Any, properties: dict[str, Any]) -> None:
    """The properties of a message stand in `found` as the codec has written them."""
    copy, _ = mqtt5.read(memoryview(octets.publish(V5, "t", properties=found.properties)))
    assert found.expiry_s == sent.message_expiry_interval
    for name in {*properties} - {"message_expiry_interval"}:
        assert getattr(copy, name) == getattr(sent, name)


def read(*packets: bytes) -> Any:
    """Return the last of these packets, as the MQTT broker reads it."""
    reader = PacketReader(1 << 20)
    found: Any = None
    for packet in packets:
        reader.feed(packet)
        found = reader.next()
    assert reader.unread == 0
    return found


@given(st.binary(min_size=1, max_size=60), st.sampled_from([V311, V5]))
def test_any_bytes_are_read_or_refused_wherever_they_are_cut(data: bytes, version: int) -> None:
    def outcome(pieces: list[bytes]) -> list[str]:
        reader, found = PacketReader(1 << 20), []
        reader.feed(octets.connect(version))
        try:
            for piece in ([], *pieces):
                reader.feed(bytes(piece))
                while (packet := reader.next()) is not None:
                    found.append(repr(packet))
        except BadPacketError as error:
            found.append(error.reason.name)
        return found

    assert outcome([data]) == outcome([data[at : at + 1] for at in range(len(data))])


def test_strings_that_are_not_utf_8_write_nothing_to_the_log() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _BAD_STRINGS], check=True, capture_output=True, text=True
    )
    assert (told.stdout, told.stderr) == ("done\n", "")


_BAD_STRINGS = """
from tests.edge import octets
from tests.edge.wire import Wire
for packet in (
    octets.connect(5, b"\\xff"),
    octets.connect(4, b"\\xff"),
    octets.connect(5, properties=b"\\x26\\0\\1\\xff\\0\\1a"),
    octets.connect(5, "a", octets.string(b"\\xff"), flags=0x82),
):
    client = Wire().raw()
    client.send(packet)
    assert client.is_closed
for packet in (
    octets.subscribe(5, (b"\\xff", 0)),
    octets.unsubscribe(5, b"\\xff"),
    octets.publish(5, b"\\xff"),
    octets.publish(5, "a", properties=b"\\x03\\0\\1\\xff"),
    octets.frame(0x40, b"\\0\\1\\0\\4\\x1f\\0\\1\\xff"),
):
    client = Wire().raw()
    client.send(octets.connect(5) + packet)
    assert client.is_closed
print("done")
"""


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x82\xff\xff\xff\xff\x01", MALFORMED),
        (b"\x82\x85\x00\0\1\0", MALFORMED),
        (b"\x00\0", PROTOCOL_ERROR),
        (b"\xc0\1\0", MALFORMED),
        (b"\x82\xff\xff\xff\x7f", TOO_LARGE),
        (octets.subscribe(V5, *[("a", 0)] * 1001), QUOTA),
        (octets.publish(V5, "a", properties=octets.pair("a", "b") * 1001), QUOTA),
        (octets.publish(V5, "a", properties=b"\x02\0\0\0\1" * 2), PROTOCOL_ERROR),
        (octets.publish(V5, "a", properties=b"\x02\0\0"), MALFORMED),
        (octets.frame(0x30, b"\0\1a\2\2\0\0\0\1x"), MALFORMED),  # longer than all of them
        (octets.publish(V5, "a", properties=b"\x21\0\1"), MALFORMED),
        (octets.publish(V5, "a", properties=b"\x7f\0\1"), MALFORMED),
        (octets.publish(V5, "a", properties=b"\1\2"), PROTOCOL_ERROR),
        (octets.publish(V5, "/".join("a" * 300)), 0x90),
        (octets.publish(V5, "a" * 1025), 0x90),
        (octets.ack(0x40, 1, 5), PROTOCOL_ERROR),
        (octets.ack(0x40, 0), PROTOCOL_ERROR),
        (octets.frame(0x40, b"\1"), MALFORMED),
        (octets.frame(0xE0, b"\0\5\x11\0\0\0\1"), PROTOCOL_ERROR),
        (octets.frame(0xF0, b"\x18\0"), PROTOCOL_ERROR),
    ],
)
def test_a_client_hears_why_it_is_disconnected(packet: bytes, reason: int) -> None:
    client = Wire().raw()
    client.send(octets.connect(V5))
    client.raw_bytes()
    client.send(packet + octets.PINGREQ)
    assert octets.frames(client.raw_bytes()) == [(octets.DISCONNECT, bytes([reason]))]
    assert client.is_closed


def test_nothing_is_kept_of_a_connection_that_is_closed() -> None:
    client = Wire().raw()
    client.send(octets.connect(V5) + b"\0\0")
    client.send(b"x" * 100_000)
    assert client.is_closed
    assert client.connection.unread == 0


@pytest.mark.parametrize("version", [V311, V5])
def test_a_client_that_has_not_said_who_it_is_gets_little_memory(version: int) -> None:
    client = Wire().raw()
    client.send(octets.connect(version, "a" * 40_000)[:5])
    assert (client.is_closed, client.raw_bytes()) == (True, b"")


def test_a_client_that_takes_nothing_is_not_read_from() -> None:
    wire = Wire()
    client = wire.raw()
    client.send(octets.connect(V5))
    client.connection.congested()
    client.send(octets.PINGREQ * 100)
    assert octets.frames(client.raw_bytes())[1:] == []
    assert client.connection.unread == 200
    client.connection.drained()
    wire.settle()
    assert octets.frames(client.raw_bytes()) == [(octets.PINGRESP, b"")] * 100


def test_the_same_filter_a_thousand_times_brings_what_is_retained_once_and_is_paid_for() -> None:
    wire = Wire()
    for number in range(200):
        wire.broker.router.publish_own(f"x/{number}", b"state")
    client = wire.speaker(V5)
    credit = wire.broker.accounts["all"].credit
    found = client.ask(octets.subscribe(V5, *[("x/#", 0)] * 500, *[("x/+", 0)] * 500))
    assert [first for first, _ in found] == [octets.SUBACK] + [0x31] * 400
    assert credit - wire.broker.accounts["all"].credit == 1000 + 400 // 50


def test_the_properties_of_a_message_count_in_the_quota_of_who_waits_for_it() -> None:
    wire = Wire()
    reader = wire.client("reader", session_expiry_interval=60)
    reader.subscribe("a")
    reader.break_off()
    pairs = octets.pair("name", "v" * 1000) * 100
    wire.speaker(V5).ask(octets.publish(V5, "a", qos=1, properties=pairs))
    assert wire.broker.accounts["all"].queued_bytes > 100_000
