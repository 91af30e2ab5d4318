"""Sessions, wills, keep alive, and what a client takes: section 3.1 of both versions."""

import pytest

from broker.edge.accounts import Grant
from tests.edge import octets
from tests.edge.octets import DISCONNECT, V5, V311, keeping, refusal, string, with_will
from tests.edge.wire import ALL, Wire, WireClient, reader_of

both = pytest.mark.parametrize("version", [V311, V5])
CLEAN, WILL, WILL_RETAIN, NAME = 2, 4, 0x20, 0x80


@both
def test_a_session_goes_on_unless_a_clean_start_is_asked_for(version: int) -> None:
    wire = Wire()
    sender = wire.speaker(version, "sender")
    for flags, is_present, waiting in ((0, 0, 0), (0, 1, 1), (CLEAN, 0, 0), (0, 0, 0)):
        client = wire.raw()
        (_, body), *messages = client.ask(keeping(version, flags=flags))
        assert (body[0], len(messages)) == (is_present, waiting)
        if not is_present:
            client.ask(octets.subscribe(version, ("a", 1)))
        client.break_off()
        sender.ask(octets.publish(version, "a", qos=1))
        if flags:  # in 3.1.1 the session has ended with the connection, in 5 it does so later
            wire.wait(61)


@both
def test_a_session_that_is_not_kept_ends_with_its_connection(version: int) -> None:
    wire = Wire()
    for _ in range(2):
        client = wire.raw()
        ((_, body),) = client.ask(octets.connect(version, flags=CLEAN))
        assert body[0] == 0
        client.ask(octets.subscribe(version, ("a", 1)))
        client.break_off()
    ((_, body),) = wire.raw().ask(octets.connect(version, flags=0))
    assert body[0] == 0


def test_a_session_ends_when_its_expiry_has_passed_and_not_before() -> None:
    wire = Wire()
    for seconds, is_present in ((59, 1), (61, 0)):
        client = wire.raw()
        client.ask(keeping(V5, flags=CLEAN))
        wire.wait(100)
        client.break_off()
        wire.wait(seconds)
        ((_, body),) = wire.raw().ask(keeping(V5))
        assert body[0] == is_present


@both
def test_retained_messages_do_not_end_with_a_session(version: int) -> None:
    wire = Wire()
    client = wire.speaker(version)
    client.ask(octets.publish(version, "a", flags=1))
    client.ask(octets.GOODBYE)
    found = wire.speaker(version, "late").ask(octets.subscribe(version, ("a", 0)))
    assert [first for first, _ in found] == [octets.SUBACK, 0x31]


# -- wills ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("how", ["breaks off", "is malformed"])
@pytest.mark.parametrize("retain", [0, WILL_RETAIN])
def test_a_will_is_published_once_when_its_connection_ends_without_a_goodbye(
    version: int, how: str, retain: int
) -> None:
    wire = Wire()
    reader = reader_of(wire, version)
    client = wire.raw()
    client.ask(with_will(version, flags=CLEAN | WILL | 1 << 3 | retain))
    assert reader.ask() == []
    if how == "breaks off":
        client.break_off()
    else:
        client.ask(b"\0\0")
    wire.wait(5)
    ((first, _),) = reader.ask()
    assert first == (0x33 if retain and version == V5 else 0x32)
    late = wire.speaker(version, "late").ask(octets.subscribe(version, ("gone", 1)))
    assert len(late) == (2 if retain else 1)


@both
def test_a_will_is_forgotten_with_a_goodbye(version: int) -> None:
    wire = Wire()
    reader = reader_of(wire, version)
    client = wire.raw()
    client.ask(with_will(version))
    client.ask(octets.GOODBYE)
    assert (client.is_closed, reader.ask()) == (True, [])
    client = wire.raw()
    client.ask(octets.connect(version))
    client.break_off()
    assert reader.ask() == []


def test_a_will_is_published_after_a_goodbye_that_asks_for_it() -> None:
    wire = Wire()
    reader = reader_of(wire, V5)
    client = wire.raw()
    client.ask(with_will(V5))
    client.ask(octets.frame(0xE0, b"\4"))
    assert [first for first, _ in reader.ask()] == [0x30]


def test_a_will_keeps_its_properties_in_their_order() -> None:
    wire = Wire()
    reader = reader_of(wire, V5)
    pairs = b"".join(octets.pair(name, "v") for name in ("b", "a", "b"))
    will = (octets.with_properties(V5, pairs), string("gone"), string("!"))
    client = wire.raw()
    client.ask(octets.connect(V5, "c", *will, flags=CLEAN | WILL))
    client.break_off()
    ((_, body),) = reader.ask()
    assert pairs in body


def test_a_will_that_its_account_may_not_publish_is_refused_and_ends_nobody() -> None:
    grant = Grant(name="ann", writes=("mine",), quotas=ALL.quotas)
    wire = Wire(grants={"ann": grant})
    first = wire.speaker(V5, "c", string("ann"), flags=CLEAN | NAME)
    will = (octets.with_properties(V5, b""), string("gone"), string("!"))
    client = wire.raw()
    packet = octets.connect(V5, "c", *will, string("ann"), flags=CLEAN | WILL | NAME)
    assert client.ask(packet) == refusal(V5, 0x87, None)
    assert not first.is_closed


# -- keep alive, and what a client takes ------------------------------------------------------------------


@both
def test_a_client_that_is_silent_for_one_and_a_half_keep_alives_is_disconnected(
    version: int,
) -> None:
    wire = Wire()
    reader = reader_of(wire, version)
    will = (octets.with_properties(version, b""), string("gone"), string("!"))
    client = wire.speaker(version, "c", *will, flags=CLEAN | WILL, keep_alive=10)
    for _ in range(3):
        wire.wait(14)
        assert client.ask(octets.PINGREQ) == [(octets.PINGRESP, b"")]
    wire.wait(15)
    assert not client.is_closed
    wire.wait(1)
    assert client.ask() == ([(DISCONNECT, b"\x8d")] if version == V5 else [])
    assert client.is_closed
    assert [first for first, _ in reader.ask()] == [0x30]


@both
def test_a_keep_alive_of_0_lets_a_client_be_silent(version: int) -> None:
    wire = Wire()
    client = wire.speaker(version)
    wire.wait(10_000)
    assert client.ask(octets.PINGREQ) == [(octets.PINGRESP, b"")]


def limited(wire: Wire, max_packet_bytes: int) -> WireClient:
    """Return a client that has asked for packets of at most this size."""
    client = wire.raw()
    client.send(octets.connect(V5, properties=b"\x27" + octets.uint32(max_packet_bytes)))
    return client


def test_what_is_larger_than_a_client_takes_is_not_sent_and_done() -> None:
    wire = Wire()
    client = limited(wire, 40)
    client.ask(octets.subscribe(V5, ("a", 1)))
    sender = wire.speaker(V5, "s")
    found = []
    for payload_bytes in (32, 33, 31):
        assert sender.ask(octets.publish(V5, "a", b"x" * payload_bytes, qos=1)) == [(0x40, b"\0\1")]
        found += [len(octets.frame(*one)) for one in client.ask()]
    assert found == [40, 39]
    assert client.connection.session is not None
    assert len(client.connection.session.in_flight) == 2


@pytest.mark.parametrize(
    ("most", "packet"),
    [
        (4, b""),
        (18, octets.subscribe(V5, *[("a", 0)] * 20)),
        (18, octets.unsubscribe(V5, *["a"] * 20)),
    ],
)
def test_an_answer_that_is_larger_than_a_client_takes_closes_its_connection(
    most: int, packet: bytes
) -> None:
    client = limited(Wire(), most)
    assert client.is_closed == (most < 16)  # CONNACK has 16 bytes
    found = client.ask(packet)
    assert all(len(octets.frame(*one)) <= most for one in found)
    assert client.is_closed


@both
def test_a_packet_that_is_too_large_for_the_broker_closes_the_connection(version: int) -> None:
    client = Wire().speaker(version)
    expected = [(DISCONNECT, b"\x95")] if version == V5 else []
    assert client.ask(octets.publish(version, "a", b"x" * 200_000)[:10]) == expected
    assert client.is_closed


def test_no_packet_has_a_reason_string_topic_alias_or_response_information() -> None:
    wire = Wire()  # where all are services, which get outcomes as user properties otherwise
    asked = b"\x17\0\x19\1\x22\0\x0a"  # no problem information, response information, aliases
    client = wire.raw()
    ((_, connack),) = client.ask(octets.connect(V5, properties=asked))
    assert b"\x1a" not in connack[3:]
    assert len(connack) == 14
    found = client.ask(
        octets.subscribe(V5, ("a/#/b", 0), ("a", 0))
        + octets.unsubscribe(V5, "none")
        + octets.publish(V5, "a")
        + octets.publish(V5, "none", qos=1)
        + octets.publish(V5, "none", qos=2)
        + octets.publish(V5, "$crowd", b"\x92\x91\xa1b\xc4\1x", qos=1)
        + octets.ack(octets.PUBREL, 9)
        + octets.ack(octets.PUBREC, 9)
        + b"\0\0"
    )
    assert found == [
        (0x90, b"\0\1\0\x8f\0"),
        (0xB0, b"\0\1\0\x11"),
        (0x30, b"\0\1a\0x"),
        (0x40, b"\0\1\x10"),
        (0x50, b"\0\1\x10"),
        (0x40, b"\0\1\x87"),
        (0x70, b"\0\x09\x92"),
        (0x62, b"\0\x09\x92"),
        (DISCONNECT, b"\x82"),
    ]
