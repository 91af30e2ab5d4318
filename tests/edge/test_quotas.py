"""One account cannot take what is everybody's: connections, sessions, memory, time."""

import mqtt5
import pytest

from broker.edge.accounts import Grant, Quotas
from broker.edge.limits import Limits
from tests.edge.wire import Wire, WireClient, payloads

QUOTA, NOT_AUTHORIZED, TAKEN_OVER, TIMEOUT = 151, 135, 142, 160


def wire_of(quotas: Quotas, limits: Limits | None = None, *, is_durable: bool = False) -> Wire:
    """An MQTT broker where `ann` has these quotas, and `bob` others; both may do everything."""
    grants = {
        name: Grant(name=name, reads=("#",), writes=("#",), quotas=one)
        for name, one in (("ann", quotas), ("bob", Quotas(publishes_per_s=1e9)))
    }
    return Wire(grants=grants, limits=limits, is_durable=is_durable)


def connack(client: WireClient) -> int:
    """Return the reason code with which it was let in or not."""
    code: int = client.read()[0].reason_code.value
    return code


def codes(client: WireClient) -> list[int]:
    """Return the reason codes of what has come."""
    return [one.reason_code.value for one in client.read()]


def test_an_account_has_so_many_connections_and_another_still_gets_in() -> None:
    wire = wire_of(Quotas(connections=2))
    first, second, third = (wire.client(f"c{one}", username="ann") for one in range(3))
    assert [connack(one) for one in (first, second, third)] == [0, 0, QUOTA]
    assert third.is_closed
    assert connack(wire.client("c", username="bob")) == 0
    first.break_off()
    assert connack(wire.client("c4", username="ann")) == 0


def test_a_client_that_comes_back_needs_no_connection_more() -> None:
    wire = wire_of(Quotas(connections=1))
    first = wire.client("same", username="ann")
    assert connack(first) == 0
    assert connack(wire.client("same", username="ann")) == 0
    assert first.is_closed


def test_of_more_sessions_than_an_account_may_have_the_one_longest_gone_ends() -> None:
    wire = wire_of(Quotas(connections=2))
    for name in ("old", "new"):
        wire.client(name, username="ann", session_expiry_interval=3600).break_off()
        wire.wait(1)
    wire.client("third", username="ann", session_expiry_interval=3600).break_off()

    def is_there(name: str) -> bool:
        client = wire.client(name, username="ann", session_expiry_interval=3600, clean_start=False)
        present: bool = client.read()[0].session_present
        client.break_off()
        return present

    assert [is_there(name) for name in ("new", "third", "old")] == [True, True, False]


def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    wire = wire_of(Quotas(connections=3))
    for number in range(1000):
        wire.client(f"c{number}", username="ann", session_expiry_interval=604_800).break_off()
        wire.client("same", username="ann", session_expiry_interval=604_800).break_off()
    broker = wire.broker
    assert len(broker.sessions) <= 3
    assert broker.accounts["ann"].sessions == len(broker.sessions)
    assert len(broker._due) <= 2 * len(broker.sessions) + 101
    assert not broker.connections


def test_what_expires_does_so_after_many_reconnections() -> None:
    wire = wire_of(Quotas())
    for _ in range(5):
        wire.client("c", username="ann", session_expiry_interval=10).break_off()
        wire.wait(8)
    assert len(wire.broker.sessions) == 1
    wire.wait(3)
    assert not wire.broker.sessions


def test_an_account_has_so_many_subscriptions() -> None:
    wire = wire_of(Quotas(subscriptions=2))
    client = wire.client("c", username="ann")
    assert client.subscribe("a", "b", "c") == [1, 1, QUOTA]
    assert client.subscribe("a", "b") == [1, 1]  # it has these
    client.unsubscribe("a")
    assert client.subscribe("c") == [1]
    assert wire.client("d", username="ann").subscribe("e") == [QUOTA]


@pytest.mark.parametrize("quotas", [Quotas(retained=2), Quotas(queued_bytes=2 * (65 + 1000))])
def test_an_account_has_so_much_retained_and_may_replace_it(quotas: Quotas) -> None:
    wire = wire_of(quotas)
    client, other = wire.client("c", username="ann"), wire.client("d", username="bob")
    client.read()
    for topic, code in (("a", 16), ("b", 16), ("c", QUOTA), ("a", 16)):
        client.publish(topic, b"x" * 1000, qos=1, retain=True)
        assert codes(client) == [code]
    client.publish("b", b"", qos=1, retain=True)
    client.read()
    client.publish("c", b"y" * 1000, qos=1, retain=True)
    assert codes(client) == [16]
    other.subscribe("#")
    assert sorted(message.topic for message in other.messages()) == ["a", "c"]


def test_what_waits_for_a_client_is_bounded_and_its_sender_is_told() -> None:
    wire = wire_of(Quotas(queued_bytes=5 * (65 + 100)))
    wire.client("gone", username="ann", session_expiry_interval=60).subscribe("a")
    wire.clients[-1].break_off()
    sender, reader = wire.client("s", username="bob"), wire.client("r", username="bob")
    sender.read()
    answers = []
    for number in range(7):
        sender.publish("a", bytes([number]) * 100, qos=1)
        answers += codes(sender)
    assert answers == [0, 0, 0, 0, 0, QUOTA, QUOTA]
    assert wire.broker.router.counters.dropped == 2
    reader.subscribe("a")
    sender.publish("a", b"last", qos=1)
    assert codes(sender) == [0]  # somebody has it
    assert payloads(reader.messages()) == [b"last"]
    back = wire.client("gone", username="ann", session_expiry_interval=60, clean_start=False)
    found = back.messages()
    assert [message.payload[0] for message in found] == [0, 1, 2, 3, 4]
    for message in found:
        back.puback(message.packet_id)
    assert wire.broker.accounts["ann"].queued_bytes == 0


def test_who_publishes_more_than_its_share_waits_and_loses_nothing() -> None:
    wire = wire_of(Quotas(publishes_per_s=10))
    reader = wire.client("r", username="bob")
    reader.subscribe("a")
    sender, other = wire.client("s", username="ann"), wire.client("s2", username="ann")
    packets = [
        mqtt5.PublishPacket("a", bytes([one]), qos=mqtt5.QoS(1), packet_id=one).write()
        for one in range(1, 51)
    ]
    sender.send(b"".join(packets))
    found = payloads(reader.messages())
    assert len(found) <= 21  # its credit, and what it had saved
    wire.client("x", username="bob").publish("a", b"b")
    assert payloads(reader.messages()) == [b"b"]  # the other account does not wait
    other.publish("a", b"o")
    for _ in range(6):
        wire.wait(1)
        found += payloads(reader.messages())
    assert found[-1] == bytes([50])
    assert b"o" in found  # its own other client waits with it, and gets its turn
    assert [one for one in found if one != b"o"] == [bytes([one]) for one in range(1, 51)]


@pytest.mark.parametrize(
    "packet",
    [
        mqtt5.PingReqPacket().write(),
        mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("a")]).write(),
        mqtt5.UnsubscribePacket(1, ["a"]).write(),
        mqtt5.PublishPacket("a", b"").write(),
    ],
)
def test_all_that_makes_work_is_counted(packet: bytes) -> None:
    wire = wire_of(Quotas(publishes_per_s=10))
    client = wire.client("c", username="ann")
    client.send(packet * 100)
    assert client.connection.unread >= 70 * len(packet)
    wire.wait(10)
    assert client.connection.unread == 0
    assert not client.is_closed


def test_one_packet_with_many_filters_counts_as_many() -> None:
    wire = wire_of(Quotas(publishes_per_s=10))
    client = wire.client("c", username="ann")
    filters = [mqtt5.TopicFilter(f"a/{one}") for one in range(200)]
    client.send(mqtt5.SubscribePacket(1, filters).write())
    assert [code.value for code in client.read()[-1].reason_codes].count(QUOTA) == 100
    client.send(mqtt5.PingReqPacket().write())
    wire.wait(17)
    assert client.read() == []
    wire.wait(2)
    assert len(client.read()) == 1


def test_acknowledgements_are_not_counted() -> None:
    wire = wire_of(Quotas(publishes_per_s=10, queued_bytes=1 << 20))
    reader, sender = wire.client("r", username="ann"), wire.client("s", username="bob")
    reader.subscribe("a", qos=2)
    for number in range(1, 101):
        sender.publish("a", b"x", qos=2, packet_id=number)
    for message in reader.messages():
        reader.send(mqtt5.PubRecPacket(message.packet_id).write())
        reader.send(mqtt5.PubCompPacket(message.packet_id).write())
    assert wire.broker.accounts["ann"].queued_bytes == 0


def test_a_client_that_waits_for_its_quota_is_not_closed_as_silent() -> None:
    wire = wire_of(Quotas(publishes_per_s=1))
    client = wire.client("c", username="ann", keep_alive=2)
    client.send(mqtt5.PublishPacket("a", b"").write() * 20)
    wire.wait(10)
    assert not client.is_closed
    wire.wait(20)
    assert client.is_closed


def test_who_says_nothing_is_closed_in_time_also_byte_by_byte() -> None:
    wire = wire_of(Quotas(), Limits(connect_timeout_s=10))
    silent, slow = wire.raw(), wire.raw()
    known = wire.client("c", username="bob")
    hello = mqtt5.ConnectPacket("d", username="bob").write()
    for byte in hello[:9]:
        wire.wait(1)
        slow.send(bytes([byte]))
    assert not silent.is_closed
    wire.wait(2)
    assert (silent.is_closed, slow.is_closed, known.is_closed) == (True, True, False)


def test_of_many_strangers_the_one_that_came_first_goes() -> None:
    wire = wire_of(Quotas(), Limits(strangers=3))
    known = wire.client("c", username="bob")
    strangers = [wire.raw() for _ in range(5)]
    wire.settle()
    assert [one.is_closed for one in strangers] == [True, True, False, False, False]
    assert not known.is_closed
    strangers[2].send(mqtt5.ConnectPacket("d", username="bob").write())
    wire.raw()
    wire.settle()
    assert [one.is_closed for one in strangers[2:]] == [False, False, False]


def test_long_topics_are_not_remembered() -> None:
    wire = wire_of(Quotas(publishes_per_s=1e9))
    client = wire.client("c", username="ann")
    for number in range(50):
        client.publish(f"a/{number}/" + "x" * 600)
        client.publish(f"a/{number}")
    account = wire.broker.accounts["ann"]
    assert max(map(len, account.known_topics)) < 10
    assert len(account.known_topics) == 50
    assert len(wire.broker.router.subscriptions._routes) == 50


def test_a_packet_beyond_the_limit_ends_its_connection_with_the_reason() -> None:
    wire = wire_of(Quotas(), Limits(max_packet_bytes=1000))
    client = wire.client("c", username="ann")
    client.read()
    client.publish("a", b"x" * 980, qos=1)
    assert codes(client) == [16]
    client.send(mqtt5.PublishPacket("a", b"x" * 1000).write()[:5])  # known before it is there
    assert codes(client) == [149]
    assert client.is_closed


def test_with_a_full_quota_nothing_of_a_durable_session_is_forgotten() -> None:
    wire = wire_of(Quotas(queued_bytes=3 * (65 + 10), connections=1), is_durable=True)
    wire.client("gone", username="ann", session_expiry_interval=600).subscribe("a")
    wire.clients[-1].break_off()
    sender = wire.client("s", username="bob")
    sender.read()
    for number in range(5):
        sender.publish("a", bytes([number]) * 10, qos=1)
    assert codes(sender) == [0, 0, 0, QUOTA, QUOTA]
    wire.kill()
    back = wire.client("gone", username="ann", session_expiry_interval=600, clean_start=False)
    assert [message.payload[0] for message in back.messages()] == [0, 1, 2]
    assert wire.broker.accounts["ann"].sessions == 1
