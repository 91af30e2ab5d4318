"""SUBSCRIBE, UNSUBSCRIBE, topic filters and shares: sections 3.8 to 3.11, 4.7 and 4.8."""

import pytest

from broker.edge.topic_filters import is_topic_filter
from tests.edge import octets
from tests.edge.octets import SUBACK, UNSUBACK, V5, V311, string
from tests.edge.wire import ALL, Wire, WireClient, is_ended, payloads

both = pytest.mark.parametrize("version", [V311, V5])
NO_LOCAL = 4


def codes(client: WireClient, version: int, *filters: tuple[str, int]) -> list[int]:
    """Subscribe; return the reason codes, or return codes."""
    (first, body), *_ = client.ask(octets.subscribe(version, *filters, packet_id=9))
    assert (first, body[:2]) == (SUBACK, b"\0\x09")
    return [*body[3 if version == V5 else 2 :]]


# -- SUBSCRIBE ------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("options", [0x40, 0x80, 0xC1])
def test_reserved_subscription_options_close_the_connection(version: int, options: int) -> None:
    packet = octets.subscribe(version, ("a", 0), ("b", options))
    assert is_ended(Wire().speaker(version), version, packet, 0x81)


@pytest.mark.parametrize("options", [4, 8, 0x10, 0x20, 0x0C])
def test_options_of_mqtt_5_are_reserved_in_311(options: int) -> None:
    packet = octets.subscribe(V311, ("a", options))
    assert is_ended(Wire().speaker(V311), V311, packet, 0x81)


@both
@pytest.mark.parametrize("options", [3, 0x30])
def test_qos_3_and_retain_handling_3_close_the_connection(version: int, options: int) -> None:
    packet = octets.subscribe(version, ("a", options))
    assert is_ended(Wire().speaker(version), version, packet, 0x82)


@both
@pytest.mark.parametrize("first", [0x82, 0xA2])
def test_a_packet_without_a_topic_filter_closes_the_connection(version: int, first: int) -> None:
    packet = octets.subscribe(version, first=first)
    assert is_ended(Wire().speaker(version), version, packet, 0x82)


@both
@pytest.mark.parametrize(
    ("first", "rest"),
    [(0x82, b"\0"), (0x82, b"\0\1a"), (0x82, b"\0\3ab\1"), (0xA2, b"\0"), (0xA2, b"\0\2a")],
)
def test_a_packet_that_ends_within_a_field_closes_the_connection(
    version: int, first: int, rest: bytes
) -> None:
    packet = octets.frame(first, b"\0\1", octets.with_properties(version, b""), rest)
    assert is_ended(Wire().speaker(version), version, packet, 0x81)


@both
def test_several_filters_are_answered_at_once_in_their_order(version: int) -> None:
    client = Wire().speaker(version)
    filters = (("a", 2), ("b/#/c", 1), ("c", 0), ("$share/g/d", 1), ("a+", 0), ("e", 1))
    bad = 0x8F if version == V5 else 0x80
    assert codes(client, version, *filters) == [2, bad, 0, 1, bad, 1]
    (one,) = client.ask(octets.unsubscribe(version, "a", "none", "c", packet_id=5))
    assert one == (UNSUBACK, b"\0\5\0\0\x11\0" if version == V5 else b"\0\5")
    assert client.ask(octets.publish(version, "a") + octets.publish(version, "c")) == []
    assert len(client.ask(octets.publish(version, "e"))) == 1


@both
def test_the_same_filter_replaces_its_subscription_and_brings_what_is_retained(
    version: int,
) -> None:
    client = Wire().speaker(version)
    client.ask(octets.publish(version, "a", flags=1))
    for qos in (2, 0, 1):
        found = client.ask(octets.subscribe(version, ("a", qos)))
        assert [first for first, _ in found] == [SUBACK, 0x31]
        found = client.ask(octets.publish(version, "a", qos=2, packet_id=qos + 1))
        assert [first for first, _ in found if first != octets.PUBREC] == [0x30 | qos << 1]
    client.ask(octets.unsubscribe(version, "a"))
    assert client.ask(octets.publish(version, "a")) == []


@both
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_a_message_comes_with_the_lower_qos_of_publication_and_subscription(
    version: int, published: int, granted: int
) -> None:
    wire = Wire()
    client, sender = wire.speaker(version), wire.speaker(version, "sender")
    assert codes(client, version, ("a", granted)) == [granted]
    sender.ask(octets.publish(version, "a", qos=published))
    assert [first for first, _ in client.ask()] == [0x30 | min(published, granted) << 1]


def test_no_local_keeps_a_clients_own_messages_from_it_and_only_those() -> None:
    wire = Wire()
    client, other = wire.speaker(V5), wire.speaker(V5, "other")
    client.ask(octets.subscribe(V5, ("a", NO_LOCAL)))
    assert client.ask(octets.publish(V5, "a")) == []
    other.ask(octets.publish(V5, "a"))
    assert len(client.ask()) == 1
    packet = octets.subscribe(V5, ("$share/g/a", NO_LOCAL))
    assert is_ended(client, V5, packet, 0x82)


@pytest.mark.parametrize(
    ("properties", "reason"), [(b"\x0b\0", 0x82), (b"\x0b\1\x0b\2", 0x82), (b"\x23\0\1", 0x81)]
)
def test_properties_of_subscribe_that_are_not_lawful_close_the_connection(
    properties: bytes, reason: int
) -> None:
    packet = octets.subscribe(V5, ("a", 0), properties=properties)
    assert is_ended(Wire().speaker(V5), V5, packet, reason)


# -- UNSUBSCRIBE ----------------------------------------------------------------------------------------


@both
def test_only_the_same_filter_character_by_character_ends_a_subscription(version: int) -> None:
    client = Wire().speaker(version)
    client.ask(octets.subscribe(version, ("a/+", 0), ("A", 0)))
    client.ask(octets.unsubscribe(version, "a/b", "#", "+/+", "a/#", "a", "$share/g/a/+", "a/#/b"))
    assert len(client.ask(octets.publish(version, "a/b") + octets.publish(version, "A"))) == 2
    client.ask(octets.unsubscribe(version, "a/+"))
    assert len(client.ask(octets.publish(version, "a/b") + octets.publish(version, "A"))) == 1


@both
@pytest.mark.parametrize("qos", [1, 2])
def test_what_is_on_its_way_is_completed_after_unsubscribe(version: int, qos: int) -> None:
    wire = Wire()
    client = wire.raw()
    client.ask(octets.keeping(version))
    client.ask(octets.subscribe(version, ("a", 2)))
    sender = wire.speaker(version, "sender")
    sender.ask(octets.publish(version, "a", b"before", qos=qos))
    assert [first for first, _ in client.ask()] == [0x30 | qos << 1]
    client.ask(octets.unsubscribe(version, "a"))
    sender.ask(octets.publish(version, "a", b"after", qos=qos, packet_id=2))
    assert client.ask() == []
    client.break_off()
    ((first, body),) = wire.raw().ask(octets.keeping(version))[1:]
    assert (first, body[-6:]) == (0x38 | qos << 1, b"before")


# -- topic filters --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "pattern",
    [
        "a#",
        "a/#/b",
        "#/",
        "##",
        "a/b#",
        "+a",
        "a+",
        "a/+b",
        "a/b+/c",
        "++",
        "",
        "/".join("a" * 201),
    ],
)
def test_a_filter_with_wildcards_in_wrong_places_is_refused(version: int, pattern: str) -> None:
    client = Wire().speaker(version)
    assert codes(client, version, (pattern, 0)) == [0x8F if version == V5 else 0x80]
    assert not client.is_closed


MATCHES = [
    (
        "sport/tennis/#",
        ["sport/tennis", "sport/tennis/x", "sport/tennis/x/y"],
        ["sport", "sport/x"],
    ),
    ("sport/+", ["sport/", "sport/x"], ["sport", "sport/x/y"]),
    ("+/tennis/#", ["a/tennis", "/tennis/x"], ["tennis", "a/b/tennis"]),
    ("+", ["a"], ["/a", "a/", "a/b"]),
    ("/+", ["/a", "/"], ["a"]),
    ("+/+", ["/finance", "a/b"], ["a"]),
    ("#", ["a", "/", "a/b/c"], ["$SYS/x", "$x"]),
    ("+/x", ["a/x"], ["$SYS/x"]),
    ("$SYS/#", ["$SYS/x"], ["SYS/x"]),
    ("a/B", ["a/B"], ["a/b", "a/B/", "a/ B"]),
    ("é", ["é"], ["e\u0301", "e"]),
]


@both
@pytest.mark.parametrize(("pattern", "inside", "outside"), MATCHES)
def test_a_filter_matches_what_section_47_says(
    version: int, pattern: str, inside: list[str], outside: list[str]
) -> None:
    wire = Wire()
    client = wire.speaker(version)
    client.ask(octets.subscribe(version, (pattern, 0)))
    for topic in (*inside, *outside):
        wire.broker.router.publish_own(topic, b"x")
    found = [body for first, body in client.ask() if first == 0x30]
    assert found == [
        string(topic) + octets.with_properties(version, b"") + b"x" for topic in inside
    ]


def test_a_filter_of_65_535_bytes_is_no_error_and_neither_is_it_taken() -> None:
    client = Wire().speaker(V5)
    assert codes(client, V5, ("é" * 32_767, 0)) == [0x8F]
    assert not is_topic_filter("a" * 1025)
    assert is_topic_filter("a" * 1024)


# -- shares ---------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "pattern",
    [
        "$share//x",
        "$share/a",
        "$share/a/",
        "$share/+/x",
        "$share/#/x",
        "$share/a+/x",
        "$share/g/a#",
    ],
)
def test_a_share_without_a_name_or_filter_or_with_wildcards_in_its_name_is_refused(
    version: int, pattern: str
) -> None:
    client = Wire().speaker(version)
    assert codes(client, version, (pattern, 0)) == [0x8F if version == V5 else 0x80]


def test_each_member_of_a_share_gets_messages_with_its_own_qos() -> None:
    wire = Wire()
    members = [wire.speaker(V5, f"m{qos}") for qos in range(3)]
    for qos, member in enumerate(members):
        assert codes(member, V5, ("$share/g/a", qos)) == [qos]
    sender = wire.speaker(V5, "sender")
    for packet_id in (1, 2, 3):
        sender.ask(octets.publish(V5, "a", qos=2, packet_id=packet_id))
    assert [[first for first, _ in member.ask()] for member in members] == [[0x30], [0x32], [0x34]]


def test_a_message_of_qos_2_stays_with_its_member_of_a_share() -> None:
    wire = Wire()
    first = wire.client("m1", session_expiry_interval=60)
    first.subscribe("$share/g/a", qos=2)
    wire.speaker(V5, "sender").ask(octets.publish(V5, "a", b"once", qos=2))
    assert payloads(first.messages()) == [b"once"]
    second = wire.client("m2", session_expiry_interval=60)
    second.subscribe("$share/g/a", qos=2)
    first.break_off()
    assert second.messages() == []
    back = wire.client("m1", session_expiry_interval=60)
    (again,) = back.messages()
    assert (again.payload, again.duplicate) == (b"once", True)
    back.break_off()
    wire.wait(61)
    assert second.messages() == []


@pytest.mark.parametrize(("qos", "kind"), [(1, octets.PUBACK), (2, octets.PUBREC)])
def test_what_a_member_of_a_share_refuses_goes_to_no_other(qos: int, kind: int) -> None:
    wire = Wire()
    members = [wire.speaker(V5, name) for name in ("m1", "m2")]
    for member in members:
        member.ask(octets.subscribe(V5, ("$share/g/a", 2)))
    wire.speaker(V5, "sender").ask(octets.publish(V5, "a", qos=qos))
    ((_, body),) = members[0].ask()
    members[0].ask(octets.ack(kind, int.from_bytes(body[3:5]), 0x83))
    members[0].break_off()
    assert [member.ask() for member in members] == [[], []]


def test_only_services_share() -> None:
    ann = Wire(grants={"ann": ALL.__class__(name="ann", reads=("#",))})
    client = ann.speaker(V5, "c", string("ann"), flags=0x82)
    assert codes(client, V5, ("$share/g/a", 0), ("a", 0)) == [0x87, 0]
