"""QoS 0, 1 and 2 in every order, order, DISCONNECT, AUTH and errors: section 4, 3.14 and 3.15."""

import pytest

from tests.edge import octets
from tests.edge.octets import (
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    V5,
    V311,
    keeping,
    string,
)
from tests.edge.wire import Wire, WireClient, is_ended

both = pytest.mark.parametrize("version", [V311, V5])


def kept_reader(wire: Wire, version: int) -> WireClient:
    """Return a client, `c`, whose session is kept and which reads `a`."""
    reader = wire.raw()
    reader.ask(keeping(version))
    reader.ask(octets.subscribe(version, ("a", 2)))
    return reader


def again(wire: Wire, version: int, reader: WireClient) -> tuple[WireClient, list[octets.Frame]]:
    """Break a connection off; return the next of its session, and what comes with it."""
    reader.break_off()
    back = wire.raw()
    return back, back.ask(keeping(version))[1:]


# -- the broker as the receiver -------------------------------------------------------------------------


@both
def test_after_a_puback_the_same_packet_id_is_another_message(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    for flags in (0, 0, 8):
        assert sender.ask(octets.publish(version, "a", qos=1, flags=flags)) == [(PUBACK, b"\0\1")]
        assert len(reader.ask()) == 1


@both
def test_a_message_of_qos_2_is_delivered_once_until_it_is_released(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.raw()
    sender.ask(keeping(version, "sender"))
    for flags, count in ((0, 1), (8, 0), (0, 0)):
        assert sender.ask(octets.publish(version, "a", qos=2, flags=flags)) == [(PUBREC, b"\0\1")]
        assert len(reader.ask()) == count
    sender.break_off()
    sender = wire.raw()
    sender.ask(keeping(version, "sender"))
    assert sender.ask(octets.publish(version, "a", qos=2, flags=8)) == [(PUBREC, b"\0\1")]
    assert reader.ask() == []
    assert sender.ask(octets.ack(PUBREL)) == [(PUBCOMP, b"\0\1")]
    assert sender.ask(octets.publish(version, "a", qos=2, flags=8)) == [(PUBREC, b"\0\1")]
    assert len(reader.ask()) == 1


@both
def test_a_message_of_qos_2_that_is_refused_leaves_its_packet_id_free(version: int) -> None:
    sender = Wire().speaker(version)
    body = b"\0\1\x87" if version == V5 else b"\0\1"
    for _ in range(2):
        assert sender.ask(octets.publish(version, "$x", qos=2)) == [(PUBREC, body)]
    missing = b"\0\1\x92" if version == V5 else b"\0\1"
    assert sender.ask(octets.ack(PUBREL)) == [(PUBCOMP, missing)]


@both
def test_a_message_of_qos_2_whose_time_is_over_is_completed_all_the_same(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    reader.break_off()
    expiry = b"\x02" + octets.uint32(1)
    assert len(sender.ask(octets.publish(version, "a", qos=2, properties=expiry))) == 1
    wire.wait(5)
    assert sender.ask(octets.ack(PUBREL)) == [(PUBCOMP, b"\0\1")]


@both
def test_acknowledgements_come_in_the_order_of_the_messages(version: int) -> None:
    wire = Wire(is_durable=True)
    kept_reader(wire, version)
    sender = wire.speaker(version, "sender")
    topics = ("a", "none", "a", "none")
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        packets = [
            octets.publish(version, topic, qos=qos, packet_id=one)
            for one, topic in enumerate(topics, start=10 * qos)
        ]
        found = sender.ask(b"".join(packets))
        assert [(first, body[1]) for first, body in found] == [
            (kind, one) for one in range(10 * qos, 10 * qos + 4)
        ]


# -- the broker as the sender ---------------------------------------------------------------------------


@both
def test_a_message_of_qos_1_is_unacknowledged_until_its_puback(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    sender.ask(octets.publish(version, "a", qos=1))
    ((first, body),) = reader.ask()
    assert first == 0x32
    reader, found = again(wire, version, reader)
    assert found == [(0x3A, body)]
    reader.ask(octets.ack(PUBACK, 2))  # of nothing
    reader, found = again(wire, version, reader)
    assert found == [(0x3A, body)]
    reader.ask(octets.ack(PUBACK, 1))
    assert again(wire, version, reader)[1] == []


@both
def test_a_message_of_qos_2_goes_through_its_four_packets_over_any_number_of_connections(
    version: int,
) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    sender.ask(octets.publish(version, "a", qos=2))
    ((first, body),) = reader.ask()
    assert first == 0x34
    reader, found = again(wire, version, reader)
    assert found == [(0x3C, body)]
    assert reader.ask(octets.ack(PUBREC)) == [(PUBREL, b"\0\1")]
    assert reader.ask(octets.ack(PUBREC)) == [(PUBREL, b"\0\1")]
    reader, found = again(wire, version, reader)
    assert found == [(PUBREL, b"\0\1")]
    assert reader.ask(octets.ack(PUBCOMP)) == []
    assert again(wire, version, reader)[1] == []


@both
def test_pubrels_come_in_the_order_of_the_pubrecs(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    for packet_id in (1, 2, 3):
        sender.ask(octets.publish(version, "a", qos=2, packet_id=packet_id))
    assert len(reader.ask()) == 3
    found = reader.ask(b"".join(octets.ack(PUBREC, one) for one in (2, 3, 1)))
    assert found == [(PUBREL, octets.uint16(one)) for one in (2, 3, 1)]


@both
def test_acknowledgements_out_of_order_harm_nothing(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    missing = b"\0\x07\x92" if version == V5 else b"\0\x07"
    for kind, answer in (
        (PUBACK, []),
        (PUBREC, [(PUBREL, missing)]),
        (PUBREL, [(PUBCOMP, missing)]),
        (PUBCOMP, []),
    ):
        assert reader.ask(octets.ack(kind, 7)) == answer
    sender.ask(octets.publish(version, "a", qos=2))
    ((first, body),) = reader.ask(octets.ack(PUBCOMP, 1))  # before PUBREC: of nothing
    assert first == 0x34
    assert again(wire, version, reader)[1] == [(0x3C, body)]


@both
@pytest.mark.parametrize(("qos", "kind"), [(1, PUBREC), (2, PUBACK)])
def test_an_acknowledgement_of_the_wrong_qos_closes_the_connection(
    version: int, qos: int, kind: int
) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    sender.ask(octets.publish(version, "a", qos=qos))
    reader.ask()
    assert is_ended(reader, version, octets.ack(kind), 0x82)


@pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
def test_a_message_that_a_client_refuses_is_not_sent_again(qos: int, kind: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, V5), wire.speaker(V5, "sender")
    sender.ask(octets.publish(V5, "a", qos=qos))
    reader.ask()
    assert reader.ask(octets.ack(kind, 1, 0x97)) == []
    assert again(wire, V5, reader)[1] == []


def test_an_acknowledgement_of_what_was_not_sent_again_yet_does_not_count() -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, V5), wire.speaker(V5, "sender")
    for number in range(1, 4):
        sender.ask(octets.publish(V5, "a", bytes([number]), qos=1, packet_id=number))
    assert len(reader.ask()) == 3
    reader.break_off()
    narrow = wire.raw()
    found = narrow.ask(octets.connect(V5, flags=0, properties=octets.KEPT + b"\x21\0\1"))[1:]
    assert [body[-1] for _, body in found] == [1]
    assert narrow.ask(octets.ack(PUBACK, 3) + octets.ack(PUBREC, 9)) == [(PUBREL, b"\0\x09\x92")]
    for packet_id, following in ((1, [2]), (2, [3]), (3, [])):
        assert [body[-1] for _, body in narrow.ask(octets.ack(PUBACK, packet_id))] == following


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_was_sent_is_sent_again_whatever_its_expiry(qos: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, V5), wire.speaker(V5, "sender")
    expiry = b"\x02" + octets.uint32(1)
    sender.ask(octets.publish(V5, "a", qos=qos, properties=expiry))
    assert len(reader.ask()) == 1
    wire.wait(30)
    assert len(again(wire, V5, reader)[1]) == 1


@both
def test_messages_of_a_topic_come_in_order_also_when_they_are_sent_again(version: int) -> None:
    wire = Wire()
    reader, sender = kept_reader(wire, version), wire.speaker(version, "sender")
    numbers = bytes(range(1, 20))
    for number in numbers:
        qos = 1 + number % 2
        sender.ask(octets.publish(version, "a", bytes([number]), qos=qos, packet_id=number))
        if number == 10:
            assert bytes(body[-1] for _, body in reader.ask()) == numbers[:10]
            reader.break_off()
    back = wire.raw()
    assert bytes(body[-1] for _, body in back.ask(keeping(version))[1:]) == numbers
    back.send(b"".join(octets.ack(PUBACK, one) for one in range(2, 20, 2)))
    assert [body[-1] for _, body in again(wire, version, back)[1]] == [*numbers[::2]]


@both
def test_what_is_acknowledged_is_in_every_session_that_subscribes(version: int) -> None:
    wire = Wire()
    readers = [wire.raw() for _ in range(3)]
    for number, reader in enumerate(readers):
        reader.ask(keeping(version, f"reader{number}"))
        reader.ask(octets.subscribe(version, ("a", 1)))
        reader.break_off()
    wire.speaker(version, "sender").ask(octets.publish(version, "a", qos=1))
    for number in range(3):
        assert len(wire.raw().ask(keeping(version, f"reader{number}"))) == 2


# -- the end of a connection ----------------------------------------------------------------------------


@both
def test_nothing_is_read_or_sent_after_a_goodbye(version: int) -> None:
    wire = Wire()
    reader = kept_reader(wire, version)
    sender = wire.speaker(version, "sender")
    data = octets.GOODBYE + octets.publish(version, "a", qos=1) + octets.PINGREQ
    assert (sender.ask(data), sender.is_closed, reader.ask()) == ([], True, [])
    assert sender.ask(octets.PINGREQ) == []


@both
def test_a_goodbye_with_flags_or_more_fields_is_malformed(version: int) -> None:
    assert is_ended(Wire().speaker(version), version, b"\xe1\0", 0x81)
    more = b"\xe0\3\0\0\0" if version == V5 else b"\xe0\1\0"
    assert is_ended(Wire().speaker(version), version, more, 0x81)


@pytest.mark.parametrize("reason", [1, 3, 5, 0x92, 0x8E, 0xFF])
def test_a_goodbye_with_a_reason_that_no_client_has_closes_the_connection(reason: int) -> None:
    assert is_ended(Wire().speaker(V5), V5, octets.frame(0xE0, bytes([reason])), 0x82)


@pytest.mark.parametrize(
    ("before_s", "said_s", "waited_s", "is_present"),
    [(60, None, 58, 1), (60, 0, 1, 0), (60, 600, 300, 1), (10, 5, 6, 0), (60, 2**32 - 1, 86400, 1)],
)
def test_a_goodbye_may_change_how_long_the_session_lasts(
    before_s: int, said_s: int | None, waited_s: int, is_present: int
) -> None:
    wire = Wire()
    client = wire.raw()
    client.ask(octets.connect(V5, properties=b"\x11" + octets.uint32(before_s)))
    said = b"" if said_s is None else b"\0\5\x11" + octets.uint32(said_s)
    client.ask(octets.frame(0xE0, said))
    wire.time_s += waited_s
    wire.wait(1)
    ((_, body),) = wire.raw().ask(octets.connect(V5, flags=0))
    assert body[0] == is_present


def test_a_goodbye_does_not_keep_a_session_that_was_to_end() -> None:
    client = Wire().speaker(V5)
    assert is_ended(client, V5, octets.frame(0xE0, b"\0\5\x11\0\0\0\1"), 0x82)


@pytest.mark.parametrize("body", [b"", b"\x18\0", b"\x19\7\x15" + string("SCRAM")[:-1], b"\0"])
def test_auth_closes_the_connection_for_no_method_was_agreed_on(body: bytes) -> None:
    assert is_ended(Wire().speaker(V5), V5, octets.frame(0xF0, body), 0x82)


@both
def test_an_error_closes_the_connection_it_is_on_and_no_other(version: int) -> None:
    wire = Wire()
    reader, bad = kept_reader(wire, version), wire.speaker(version, "bad")
    found = bad.ask(octets.PINGREQ + octets.publish(version, "a") + b"\x36\0" + octets.PINGREQ)
    expected = [(octets.PINGRESP, b"")] + [(DISCONNECT, b"\x81")] * (version == V5)
    assert (found, bad.is_closed) == (expected, True)
    assert [first for first, _ in reader.ask(octets.PINGREQ)] == [PUBLISH, octets.PINGRESP]
