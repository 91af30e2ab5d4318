"""What is sent when, in which order, and what becomes of it."""

from collections.abc import Iterator

import mqtt5
import pytest
from mqtt5 import QoS

from broker.mqtt.framing import PLAIN_PUBACK, PacketDecoder
from broker.mqtt.message import Message, encode_publish
from broker.mqtt.mqtt_errors import ConnectionLost, ProtocolError
from broker.mqtt.outbound import MAX_PACKET_BYTES, Outbound, Outcome, Publication, SendRefused
from broker.mqtt.reason_codes import PubAckReasonCode
from tests.mqtt.server import packets_in

OK = PubAckReasonCode.SUCCESS


class Sent:
    """An outbound side with a record of what it settled."""

    def __init__(self, window: int = 4, **connack: object) -> None:
        self.outbound = Outbound(window)
        self.settled: list[tuple[bytes, Outcome]] = []
        self.outbound.connected(mqtt5.ConnAckPacket(**connack))  # type: ignore[arg-type]

    def publication(self, payload: bytes, qos: int = 1, *, retain: bool = False) -> Publication:
        return Publication(
            Message("t", payload, qos, retain), lambda it: self.settled.append((payload, it))
        )

    def add(self, *payloads: bytes, qos: int = 1, retain: bool = False) -> None:
        for payload in payloads:
            self.outbound.add(self.publication(payload, qos, retain=retain))

    def batch(self, *payloads: bytes, qos: int = 1) -> None:
        self.outbound.add_batch(iter([self.publication(each, qos) for each in payloads]))

    def written(self) -> list[tuple[int | None, bytes, bool]]:
        out: list[bytes] = []
        while self.outbound.refill(out):
            pass
        packets = [packet for data in out for packet in packets_in(data)]
        return [(each.packet_id, each.payload, each.duplicate) for each in packets]  # type: ignore[union-attr]

    def resumed(self, **connack: object) -> None:
        self.outbound.disconnected()
        self.outbound.connected(mqtt5.ConnAckPacket(**connack))  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [0, -1, 65_535])
def test_a_window_holds_at_least_one_and_leaves_a_packet_id(window: int) -> None:
    with pytest.raises(ValueError, match=rf"^a window holds 1 to 65534 messages, not {window}$"):
        Outbound(window)
    Outbound(1)
    Outbound(65_534)


def test_a_new_one_is_empty_and_takes_what_mqtt_takes() -> None:
    outbound = Outbound(3)
    outcomes: list[Outcome] = []
    assert (outbound.waiting, outbound.in_flight, outbound.is_empty) == (0, 0, True)
    assert (outbound.refusals, outbound.reserved_id) == ([], 0)
    outbound.add(Publication(Message("t", b"x", retain=True), outcomes.append))
    assert (outbound.waiting, outbound.is_empty) == (1, False)
    out: list[bytes] = []
    assert outbound.refill(out) is False
    assert out == [encode_publish(Message("t", b"x", retain=True), 1)]
    assert (outbound.waiting, outbound.in_flight, outbound.is_empty) == (0, 1, False)
    outbound.acknowledged(2, OK)
    assert outcomes == []
    outbound.acknowledged(1, OK)
    outbound.acknowledged(1, OK)
    assert (outcomes, outbound.is_empty) == ([OK], True)


def test_it_is_not_empty_while_anything_waits_in_a_batch_or_is_to_be_resent() -> None:
    batched, resent = Sent(), Sent()
    batched.batch(b"a")
    assert not batched.outbound.is_empty
    resent.add(b"a")
    resent.written()
    resent.outbound.disconnected()
    assert (resent.outbound.in_flight, resent.outbound.is_empty) == (0, False)


def test_a_batch_waits_until_half_of_the_window_is_free() -> None:
    sent = Sent(window=4)
    sent.batch(*(b"%d" % number for number in range(9)))
    assert [payload for _, payload, _ in sent.written()] == [b"0", b"1", b"2", b"3"]
    sent.outbound.acknowledged(1, OK)
    assert sent.written() == []  # three of four are in flight
    sent.outbound.acknowledged(2, OK)
    assert [payload for _, payload, _ in sent.written()] == [b"4", b"5"]


def test_batches_go_one_after_another_and_an_empty_one_holds_up_nobody() -> None:
    sent = Sent(window=10)
    sent.batch(b"a", b"b")
    sent.batch()
    sent.batch(b"c")
    assert [payload for _, payload, _ in sent.written()] == [b"a", b"b", b"c"]
    for number in (1, 2, 3):
        sent.outbound.acknowledged(number, OK)
    assert sent.written() == []
    assert sent.outbound.is_empty


def test_in_a_full_window_qos_0_at_the_head_goes_and_qos_1_waits() -> None:
    sent = Sent(window=1)
    sent.add(b"one")
    sent.add(b"none", qos=0)
    sent.add(b"two")
    sent.add(b"behind", qos=0)
    assert sent.written() == [(1, b"one", False), (None, b"none", False)]
    assert sent.settled == [(b"none", OK)]
    sent.outbound.acknowledged(1, OK)
    assert sent.written() == [(2, b"two", False), (None, b"behind", False)]


def test_nothing_new_overtakes_what_is_to_be_resent() -> None:
    sent = Sent(window=3)
    sent.add(b"a", b"b", b"c")
    sent.written()
    sent.resumed(session_present=True, receive_max=2)
    sent.add(b"new")
    assert sent.written() == [(1, b"a", True), (2, b"b", True)]
    sent.resumed(session_present=True, receive_max=3)  # c was not resent yet: a and b are older
    assert sent.written() == [(1, b"a", True), (2, b"b", True), (3, b"c", True)]
    sent.outbound.acknowledged(1, OK)
    assert sent.written() == [(4, b"new", False)]


def test_what_is_to_be_resent_may_be_acknowledged_before_it_is() -> None:
    sent = Sent(window=2)
    sent.add(b"a", b"b")
    sent.written()
    sent.resumed(session_present=True)
    sent.outbound.acknowledged(2, PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)
    assert sent.settled == [(b"b", PubAckReasonCode.NO_MATCHING_SUBSCRIBERS)]
    assert sent.written() == [(1, b"a", True)]


def test_without_its_session_everything_is_sent_again_before_what_waits() -> None:
    sent = Sent(window=2)
    sent.add(b"a", b"b", b"c")
    sent.written()
    sent.resumed(session_present=False, receive_max=10)
    assert [(payload, again) for _, payload, again in sent.written()] == [
        (b"a", False),
        (b"b", False),
    ]
    assert sent.outbound.waiting == 1  # our own window counts, not only the server's


def test_packet_ids_in_flight_to_be_resent_or_reserved_are_given_to_nobody() -> None:
    sent = Sent(window=2)
    sent.add(b"a", b"b")
    sent.written()
    sent.resumed(session_present=True, receive_max=1)
    sent.written()  # 1 is in flight, 2 is to be resent
    sent.outbound.reserved_id = 65_535
    sent.outbound._last_id = 65_533
    assert [sent.outbound.next_id() for _ in range(2)] == [65_534, 3]


def test_one_refill_stops_after_66_kilobytes_and_says_so() -> None:
    sent = Sent(window=10)
    sent.add(*[bytes(30_000)] * 5)
    out: list[bytes] = []
    assert sent.outbound.refill(out) is True
    assert len(out) == 3
    assert sent.outbound.refill(out) is False
    assert len(out) == 5


def test_what_is_resent_counts_towards_the_size_of_a_refill() -> None:
    sent = Sent(window=10)
    sent.add(*[bytes(33_000)] * 2)
    sent.written()
    sent.resumed(session_present=True)
    sent.add(b"later")
    out: list[bytes] = []
    assert sent.outbound.refill(out) is True
    assert len(out) == 2


def test_the_size_of_a_refill_is_that_of_all_in_it_to_the_byte() -> None:
    sent = Sent(window=10)
    header = len(encode_publish(Message("t", bytes(60_000)), 1)) - 60_000
    sent.add(bytes(66_000 - header), b"over")
    assert sent.outbound.refill([]) is True
    just_below = Sent(window=10)
    just_below.add(bytes(65_999 - header), b"within", b"over")
    out: list[bytes] = []
    assert just_below.outbound.refill(out) is True
    assert len(out) == 2


def test_a_packet_of_the_servers_largest_size_goes_and_one_byte_more_is_refused() -> None:
    size = len(encode_publish(Message("t", b"12345"), 1))
    sent = Sent(max_packet_size=size)
    sent.add(b"12345", b"123456", bytes(size + 1))
    assert [payload for _, payload, _ in sent.written()] == [b"12345"]
    why = f"the MQTT broker takes packets of {size} bytes at most"
    assert sent.outbound.refusals == [SendRefused("t", PubAckReasonCode.QUOTA_EXCEEDED, why)] * 2
    assert [outcome for _, outcome in sent.settled] == [PubAckReasonCode.QUOTA_EXCEEDED] * 2
    assert sent.outbound.in_flight == 1
    assert MAX_PACKET_BYTES == 256 * 1024 * 1024 - 1


def test_limits_are_those_of_the_present_connection() -> None:
    sent = Sent(max_packet_size=10, max_qos=QoS.AT_MOST_ONCE, retain_available=False)
    sent.resumed()
    sent.add(bytes(100), retain=True)
    assert len(sent.written()) == 1
    assert sent.outbound.refusals == []


@pytest.mark.parametrize(
    ("connack", "qos", "retain", "why"),
    [
        ({"max_qos": QoS.AT_MOST_ONCE}, 1, False, "the MQTT broker takes QoS 0 at most"),
        ({"max_qos": QoS.AT_MOST_ONCE}, 0, True, ""),
        ({"retain_available": False}, 1, True, "the MQTT broker retains nothing"),
        ({"retain_available": False}, 1, False, ""),
        ({"retain_available": False}, 0, True, "the MQTT broker retains nothing"),
    ],
)
def test_what_the_server_cannot_do_is_refused_rather_than_weakened(
    connack: dict[str, object], qos: int, why: str, *, retain: bool
) -> None:
    sent = Sent(**connack)
    sent.add(b"x", qos=qos, retain=retain)
    assert len(sent.written()) == (not why)
    refused = PubAckReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
    assert sent.outbound.refusals == ([SendRefused("t", refused, why)] if why else [])
    if why:
        assert sent.settled == [(b"x", refused)]


def test_the_end_settles_what_is_in_flight_to_be_resent_waiting_and_batched_in_that_order() -> None:
    sent = Sent(window=3)
    sent.add(b"a", b"b", b"c")
    sent.written()
    sent.resumed(session_present=True, receive_max=2)
    sent.written()
    sent.add(b"d")
    sent.batch(b"e", b"f")
    sent.batch(b"g")
    error = ConnectionLost("over")
    sent.outbound.abandon(error)
    assert sent.settled == [
        (payload, error) for payload in (b"a", b"b", b"c", b"d", b"e", b"f", b"g")
    ]
    assert (sent.outbound.waiting, sent.outbound.in_flight, sent.outbound.is_empty) == (0, 0, True)
    sent.outbound.abandon(error)
    assert len(sent.settled) == 7


def test_what_is_added_while_the_end_is_told_is_not_lost_from_sight() -> None:
    sent = Sent()

    def batch() -> Iterator[Publication]:
        yield Publication(Message("t", b""), lambda _: sent.add(b"again"))

    sent.outbound.add_batch(batch())
    sent.outbound.abandon(ConnectionLost("over"))
    assert sent.outbound.waiting == 1


# -- framing -------------------------------------------------------------------------------------


def test_a_packet_of_our_largest_size_is_read_and_one_byte_more_is_refused_at_its_header() -> None:
    data = encode_publish(Message("t", bytes(200)), 1)
    exact, small = PacketDecoder(len(data)), PacketDecoder(len(data) - 1)

    assert len(list(exact.packets(data))) == 1
    for chunk in (data, data[:5]):
        with pytest.raises(
            ProtocolError, match=rf"^PACKET_TOO_LARGE: a packet of {len(data)} bytes$"
        ):
            list(small.packets(chunk))
    assert list(exact.packets(data[:5])) == []
    assert len(list(exact.packets(data[5:]))) == 1


@pytest.mark.parametrize("size", [0, 100, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_packet_is_read_whatever_the_length_of_its_length(size: int) -> None:
    body = b"\x00\x01t\x00"  # topic, no properties
    length, digits = size + len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            break
    data = bytes([0x30, *digits]) + body + bytes(size)
    for cut in (1, 2, 3, 4, 5, 6, len(data) - 1):
        decoder = PacketDecoder(len(data))
        found = [each for part in (data[:cut], data[cut:]) for each in decoder.packets(part)]
        assert [len(each.payload) for each in found] == [size]  # type: ignore[union-attr]


def test_plain_pubacks_are_told_as_numbers_also_in_pieces_and_among_others() -> None:
    ids = [1, 255, 256, 65_535]
    data = b"".join(PLAIN_PUBACK + each.to_bytes(2, "big") for each in ids)
    publish = encode_publish(Message("t", b"x", 0), None)

    assert list(PacketDecoder(100).packets(data)) == ids
    for cut in range(len(data)):
        decoder = PacketDecoder(100)
        found = [each for part in (data[:cut], data[cut:]) for each in decoder.packets(part)]
        assert [each if isinstance(each, int) else each.packet_id for each in found] == ids  # type: ignore[union-attr]
    mixed = [*PacketDecoder(100).packets(data[:4] + publish + data[4:8])]
    assert [isinstance(each, int) for each in mixed] == [True, False, True]


def test_a_puback_with_a_reason_is_told_whole() -> None:
    reason = mqtt5.PubAckReasonCode.NOT_AUTHORIZED
    [packet] = PacketDecoder(100).packets(mqtt5.PubAckPacket(7, reason_code=reason).write())
    assert isinstance(packet, mqtt5.PubAckPacket)
    assert (packet.packet_id, packet.reason_code.value) == (7, 135)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_string_that_is_no_utf8_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"^MALFORMED_PACKET: a string is not UTF-8$"):
        list(PacketDecoder(100).packets(b"\x30\x05\x00\x01\xffa\x00"))


def test_a_codec_that_wants_more_of_a_whole_packet_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wants_more(_: memoryview) -> None:
        raise IndexError

    monkeypatch.setattr(mqtt5, "read", wants_more)
    whole, half = b"\x30\x05\x00\x01t\x00x", b"\x30\x05\x00\x01"
    with pytest.raises(
        ProtocolError, match=r"^MALFORMED_PACKET: a field is longer than its packet$"
    ):
        list(PacketDecoder(100).packets(whole))
    assert list(PacketDecoder(100).packets(half)) == []


def test_a_fault_of_ours_is_not_taken_for_one_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: memoryview) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mqtt5, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(PacketDecoder(100).packets(b"\xd0\x00"))


def test_a_large_packet_is_parsed_once_when_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, read = [], mqtt5.read
    monkeypatch.setattr(mqtt5, "read", lambda view: calls.append(len(view)) or read(view))
    data = encode_publish(Message("t", bytes(1_000)), 1)
    decoder = PacketDecoder(2_000)

    found = [each for byte in data for each in decoder.packets(bytes([byte]))]

    assert len(found) == 1
    assert calls == [1, 2, 3, len(data)]  # of one and two bytes the length is not known yet
