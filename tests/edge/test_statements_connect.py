"""Which CONNECT is let in, and what CONNACK says: sections 3.1 and 3.2 of both versions."""

from dataclasses import replace

import pytest

from broker.edge.accounts import Answer, Credentials
from tests.edge import octets
from tests.edge.octets import CONNACK, DISCONNECT, V5, V311, keeping, refusal, string, with_will
from tests.edge.wire import ALL, Wire, reader_of

both = pytest.mark.parametrize("version", [V311, V5])
CLEAN, WILL, NAME, PASSWORD = 2, 4, 0x80, 0x40
KEPT = octets.KEPT


# -- what is no CONNECT -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"\xc0\0", b"\x30\3\0\1a", b"\x82\0", b"\xe0\0", b"GET / HTTP"])
def test_a_first_packet_that_is_no_connect_closes_the_connection(first: bytes) -> None:
    client = Wire().raw()
    assert client.ask(first) == []
    assert client.is_closed


@both
def test_a_second_connect_closes_the_connection(version: int) -> None:
    client = Wire().speaker(version)
    expected = [(DISCONNECT, b"\x82")] if version == V5 else []
    assert client.ask(octets.connect(version) + octets.PINGREQ) == expected
    assert client.is_closed


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"MQIsdp", 3, b"\x20\2\0\1"),
        (b"mqtt", 5, b"\x20\2\0\1"),
        (b"MQTT", 3, b"\x20\2\0\1"),
        (b"MQTT", 0, b"\x20\2\0\1"),
        (b"MQTT", 6, b"\x20\3\0\x84\0"),
        (b"MQTT", 0x85, b"\x20\3\0\x84\0"),
    ],
)
def test_another_protocol_is_refused_in_words_that_its_client_may_know(
    name: bytes, level: int, answer: bytes
) -> None:
    client = Wire().raw()
    client.send(octets.frame(0x10, string(name), bytes([level, 2, 0, 0]), string("c")))
    assert (client.raw_bytes(), client.is_closed) == (answer, True)


@both
@pytest.mark.parametrize("flags", [0b11, 0b1010, 0b10010, 0b100010, 0b11110])
def test_connect_flags_that_contradict_close_the_connection(version: int, flags: int) -> None:
    client = Wire().raw()
    assert client.ask(with_will(version, flags=flags)) == refusal(version, 0x81, None)
    assert client.is_closed


@both
@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        (CLEAN | NAME, ()),
        (CLEAN | NAME | PASSWORD, (string("ann"),)),
        (CLEAN, (string("ann"),)),
        (CLEAN | NAME, (string("ann"), string("secret"))),
        (CLEAN | WILL, ()),
        (CLEAN | WILL, (string("gone"),)),
    ],
)
def test_fields_of_connect_are_there_as_its_flags_say(
    version: int, flags: int, rest: tuple[bytes, ...]
) -> None:
    client = Wire().raw()
    assert client.ask(octets.connect(version, "c", *rest, flags=flags)) == refusal(
        version, 0x81, None
    )
    assert client.is_closed


def test_a_password_without_a_user_name_is_lawful_in_5_and_not_in_311() -> None:
    wire, rest = Wire(), string("secret")
    new = wire.raw()
    ((_, body),) = new.ask(octets.connect(V5, "c", rest, flags=CLEAN | PASSWORD))
    assert body[1] == 0
    old = wire.raw()
    assert old.ask(octets.connect(V311, "c", rest, flags=CLEAN | PASSWORD)) == []
    assert old.is_closed


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (b"\x21\0\0", 0x82),
        (b"\x27\0\0\0\0", 0x82),
        (b"\x17\2", 0x82),
        (b"\x19\2", 0x82),
        (KEPT + KEPT, 0x82),
        (b"\x16" + string("data"), 0x82),
        (b"\x15" + string("SCRAM"), 0x8C),
        (b"\x23\0\1", 0x81),
        (b"\x12" + string("x"), 0x81),
    ],
)
def test_properties_of_connect_that_are_not_lawful_are_refused(
    properties: bytes, reason: int
) -> None:
    client = Wire().raw()
    assert client.ask(octets.connect(V5, properties=properties)) == refusal(V5, reason, None)
    assert client.is_closed


@both
@pytest.mark.parametrize("topic", ["", "a/+", "#"])
def test_a_will_on_what_is_no_topic_name_is_refused(version: int, topic: str) -> None:
    will = (octets.with_properties(version, b""), string(topic), string("!"))
    client = Wire().raw()
    packet = octets.connect(version, "c", *will, flags=CLEAN | WILL)
    assert client.ask(packet) == refusal(version, 0x90, None)
    assert client.is_closed


# -- who is let in --------------------------------------------------------------------------------------


@both
def test_the_fields_of_connect_are_read_in_their_order(version: int) -> None:
    seen: list[Credentials] = []

    class Asked(Wire):
        def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
            seen.append(credentials)
            answer(ALL)

    wire = Asked()
    will = (octets.with_properties(version, b""), string("gone"), string("!"))
    flags = CLEAN | WILL | NAME | PASSWORD
    client = wire.speaker(version, "me", *will, string("ann"), string(b"\xff\0"), flags=flags)
    assert seen == [Credentials(client_id="me", username="ann", password=b"\xff\0")]
    reader = reader_of(wire, version)
    client.break_off()
    assert [first for first, _ in reader.ask()] == [0x30]


@both
@pytest.mark.parametrize(("name", "reason", "return_code"), [("nobody", 0x86, 4), (None, 0x87, 5)])
def test_who_may_not_come_in_hears_why_and_nothing_else_is_read(
    version: int, name: str | None, reason: int, return_code: int
) -> None:
    class Refusing(Wire):
        def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
            answer(ALL if credentials.client_id == "reader" else None)

    wire = Refusing()
    reader = reader_of(wire, version, "a")
    rest, flags = ((string(name),), CLEAN | NAME) if name else ((), CLEAN)
    client = wire.raw()
    packets = octets.connect(version, "c", *rest, flags=flags) + octets.publish(version, "a")
    assert client.ask(packets) == refusal(version, reason, return_code)
    assert (client.is_closed, reader.ask()) == (True, [])


@both
def test_an_account_with_too_many_connections_is_refused(version: int) -> None:
    grant = replace(ALL, name="ann", quotas=replace(ALL.quotas, connections=1))
    wire = Wire(grants={"ann": grant})
    first, second = wire.raw(), wire.raw()
    first.ask(octets.connect(version, "1", string("ann"), flags=CLEAN | NAME))
    packet = octets.connect(version, "2", string("ann"), flags=CLEAN | NAME)
    assert second.ask(packet) == refusal(version, 0x97, 3)
    assert (first.is_closed, second.is_closed) == (False, True)


@both
def test_who_says_nothing_or_waits_for_authentication_too_long_is_closed(version: int) -> None:
    class Slow(Wire):
        def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
            """Never answer."""

    wire = Slow()
    silent, waiting = wire.raw(), wire.raw()
    assert waiting.ask(octets.connect(version) + octets.PINGREQ) == []
    wire.wait(12)
    assert (silent.ask(), silent.is_closed) == ([], True)
    assert (waiting.ask(), waiting.is_closed) == (refusal(version, 0x89, None), True)


@both
@pytest.mark.parametrize("client_id", ["a", "0123456789ABCDEFGHIJabc", "é/#", "x" * 300])
def test_a_client_id_of_any_length_is_accepted(version: int, client_id: str) -> None:
    Wire().speaker(version, client_id)


def test_a_client_without_an_id_is_given_one_and_told() -> None:
    wire = Wire()
    ids = []
    for flags in (CLEAN, 0):
        ((_, body),) = wire.raw().ask(octets.connect(V5, "", flags=flags))
        at = body.index(b"\x12") + 1
        ids.append(body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2])].decode())
    assert len({*ids}) == 2
    ((_, body),) = wire.raw().ask(octets.connect(V5, ids[0], flags=CLEAN))
    assert b"\x12" not in body[3:]
    assert wire.clients[0].is_closed  # it is the id of that client


def test_a_client_of_311_without_an_id_has_a_clean_session_or_is_refused() -> None:
    wire = Wire()
    first, second, refused = wire.raw(), wire.raw(), wire.raw()
    for client in (first, second):
        assert client.ask(octets.connect(V311, "")) == [(CONNACK, b"\0\0")]
    assert not first.is_closed
    assert refused.ask(octets.connect(V311, "", flags=0)) == [(CONNACK, b"\0\2")]
    assert refused.is_closed


@both
def test_the_client_id_names_the_session(version: int) -> None:
    wire = Wire()
    for client_id, is_present in (("a", 0), ("b", 0), ("a", 1)):
        client = wire.raw()
        ((_, body),) = client.ask(keeping(version, client_id))
        assert body[0] == is_present
        client.break_off()


@both
def test_a_second_client_with_the_same_id_ends_the_first(version: int) -> None:
    wire = Wire()
    first = wire.raw()
    first.ask(keeping(version))
    ((_, body),) = wire.raw().ask(keeping(version))
    assert body[0] == 1
    assert first.ask() == ([(DISCONNECT, b"\x8e")] if version == V5 else [])
    assert first.is_closed


@both
def test_connack_comes_once_and_says_what_differs_from_the_defaults(version: int) -> None:
    wire = Wire(grants={"ann": replace(ALL, is_service=False)})
    connect = octets.connect(version, "c", string("ann"), flags=CLEAN | NAME)
    found = wire.raw().ask(connect + octets.PINGREQ)
    assert [first for first, _ in found] == [CONNACK, octets.PINGRESP]
    properties = b"\x21\x07\xd0\x22\0\x10\x27\0\3\0\0"  # Receive Maximum, aliases, packet size
    body = b"\0\0" + octets.with_properties(version, properties)
    assert sorted(found[0][1]) == sorted(body)
