"""Messages reach whom they are for: QoS, sessions, retained messages, wills, shares."""

import mqtt5
import pytest

from broker.edge.accounts import Grant, Quotas
from tests.edge.wire import Wire, payloads

SHARED = "$share/workers/jobs/+"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_reaches_who_subscribed_and_nobody_else(qos: int) -> None:
    wire = Wire()
    ann, bob, cleo = wire.client("ann"), wire.client("bob"), wire.client("cleo")
    assert bob.subscribe("a/+", qos=2) == [2]
    assert cleo.subscribe("b/#", qos=2) == [2]
    ann.publish("a/1", b"hello", qos=qos)
    (message,) = bob.messages()
    assert (message.topic, message.payload, message.qos.value) == ("a/1", b"hello", qos)
    assert cleo.messages() == []


def test_what_waits_for_a_session_comes_when_it_is_back_in_order() -> None:
    wire = Wire()
    bob = wire.client("bob", session_expiry_interval=100)
    bob.subscribe("a/#")
    bob.break_off()
    ann = wire.client("ann")
    for number in range(5):
        ann.publish(f"a/{number}", bytes([number]), qos=1)
    back = wire.client("bob", session_expiry_interval=100)
    connack, *_ = found = back.read()
    assert connack.session_present
    assert payloads(found[1:]) == [bytes([number]) for number in range(5)]


def test_what_was_not_acknowledged_comes_again_as_a_duplicate_with_its_packet_id() -> None:
    wire = Wire()
    bob = wire.client("bob", session_expiry_interval=100)
    bob.subscribe("a")
    wire.client("ann").publish("a", b"1", qos=1)
    (first,) = bob.messages()
    bob.break_off()
    back = wire.client("bob", session_expiry_interval=100)
    (again,) = back.messages()
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.packet_id == first.packet_id
    back.puback(again.packet_id)
    back.break_off()
    assert wire.client("bob", session_expiry_interval=100).messages() == []


def test_a_puback_says_whether_anybody_subscribed() -> None:
    wire = Wire()
    ann = wire.client("ann")
    ann.read()
    ann.publish("a", qos=1)
    (nobody,) = ann.read()
    wire.client("bob").subscribe("a", qos=0)
    ann.publish("a", qos=1)
    (somebody,) = ann.read()
    assert (nobody.reason_code.value, somebody.reason_code.value) == (16, 0)


def test_a_retained_message_comes_to_who_subscribes_later() -> None:
    wire = Wire()
    ann, bob = wire.client("ann"), wire.client("bob")
    ann.publish("a/b", b"state", retain=True)
    bob.subscribe("a/#")
    (message,) = bob.messages()
    assert (message.payload, message.retain) == (b"state", True)
    ann.publish("a/b", b"", retain=True)
    bob.messages()
    bob.subscribe("a/#")
    assert bob.messages() == []


def test_a_will_is_published_when_its_client_vanishes_and_not_when_it_says_goodbye() -> None:
    wire = Wire()
    bob = wire.client("bob")
    bob.subscribe("gone/+")
    for name in ("ann", "eva"):
        client = wire.client(name, will=mqtt5.Will(f"gone/{name}", payload=b"!"))
        if name == "ann":
            client.break_off()
        else:
            client.send(mqtt5.DisconnectPacket().write())
    assert [message.topic for message in bob.messages()] == ["gone/ann"]


def test_a_will_waits_for_its_delay_and_is_dropped_if_the_client_is_back() -> None:
    wire = Wire()
    bob = wire.client("bob")
    bob.subscribe("gone")
    will = mqtt5.Will("gone", payload=b"!", will_delay_interval=10)
    ann = wire.client("ann", session_expiry_interval=60, will=will)
    ann.break_off()
    wire.wait(5)
    assert bob.messages() == []
    ann = wire.client("ann", session_expiry_interval=60, will=will)
    wire.wait(20)
    assert bob.messages() == []
    ann.break_off()
    wire.wait(11)
    assert payloads(bob.messages()) == [b"!"]


def test_a_session_is_taken_over_by_a_second_connection_with_its_id() -> None:
    wire = Wire()
    first = wire.client("ann", session_expiry_interval=60)
    first.read()
    second = wire.client("ann", session_expiry_interval=60)
    (goodbye,) = first.read()
    assert (goodbye.reason_code.value, first.is_closed) == (142, True)
    assert second.read()[0].session_present


def test_members_of_a_share_get_messages_in_turn() -> None:
    wire = Wire()
    members = [wire.client(name, session_expiry_interval=60) for name in ("m1", "m2")]
    for member in members:
        assert member.subscribe(SHARED) == [1]
    ann = wire.client("ann")
    for number in range(6):
        ann.publish(f"jobs/{number}", bytes([number]), qos=1)
    assert [len(member.messages()) for member in members] == [3, 3]


def test_what_a_member_had_not_acknowledged_goes_to_another_in_order() -> None:
    wire = Wire()
    first = wire.client("m1", session_expiry_interval=60)
    first.subscribe(SHARED)
    ann = wire.client("ann")
    for number in range(4):
        ann.publish("jobs/x", bytes([number]), qos=1)
    held = first.messages()
    first.puback(held[0].packet_id)
    second = wire.client("m2", session_expiry_interval=60)
    second.subscribe(SHARED)
    first.break_off()
    assert payloads(second.messages()) == [bytes([number]) for number in (1, 2, 3)]


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_last_member_that_leaves_a_share_is_still_sent_what_waits_in_it(
    is_kept: bool,  # noqa: FBT001 - a parameter
) -> None:
    wire = Wire(is_durable=True)
    last = wire.client("m1", session_expiry_interval=600 if is_kept else 0, receive_max=2)
    last.subscribe(SHARED)
    ann = wire.client("ann")
    for number in range(5):
        ann.publish("jobs/x", bytes([number]), qos=1)
    assert last.unsubscribe(SHARED) == [0]
    ann.read()
    ann.publish("jobs/x", b"late", qos=1)
    assert ann.read()[0].reason_code.value == 0x10  # nobody subscribes
    seen = last.messages()
    assert payloads(seen) == [b"\0", b"\1"]
    last.puback(seen[0].packet_id)
    if is_kept:
        wire.kill()
        last = wire.client("m1", session_expiry_interval=600)
        assert payloads(last.messages()) == [bytes([number]) for number in (1, 2, 3, 4)]
    else:
        last.puback(seen[1].packet_id)
        assert payloads(last.messages()) == [b"\2", b"\3"]


def test_a_share_without_a_connected_member_keeps_messages_for_the_next() -> None:
    wire = Wire()
    first = wire.client("m1", session_expiry_interval=60)
    first.subscribe(SHARED)
    first.break_off()
    ann = wire.client("ann")
    ann.read()
    ann.publish("jobs/1", b"1", qos=1)
    assert ann.read()[0].reason_code.value == 0
    second = wire.client("m2", session_expiry_interval=60)
    second.subscribe(SHARED)
    assert payloads(second.messages()) == [b"1"]


def test_receive_maximum_bounds_what_is_on_its_way() -> None:
    wire = Wire()
    bob = wire.client("bob", receive_max=2)
    bob.subscribe("a")
    ann = wire.client("ann")
    for number in range(5):
        ann.publish("a", bytes([number]), qos=1)
    first, second = bob.messages()
    bob.puback(first.packet_id)
    (third,) = bob.messages()
    assert third.payload == b"\2"
    assert second.payload == b"\1"


def test_a_pubrel_is_sent_again_whatever_the_window() -> None:
    wire = Wire()
    bob = wire.client("bob", session_expiry_interval=600)
    bob.subscribe("a", qos=2)
    ann = wire.client("ann")
    for qos in (1, 2, 2, 1):
        ann.publish("a", qos=qos, packet_id=qos)
        ann.send(mqtt5.PubRelPacket(qos).write())
    first, *released, last = [one.packet_id for one in bob.messages()]
    for packet_id in released:
        bob.send(mqtt5.PubRecPacket(packet_id).write())
    bob.break_off()
    bob = wire.client("bob", session_expiry_interval=600, receive_max=1)
    pubrels = [one.packet_id for one in bob.read() if isinstance(one, mqtt5.PubRelPacket)]
    assert pubrels == released  # 3.3.4-10
    for packet_id in released:
        bob.send(mqtt5.PubCompPacket(packet_id).write())
    assert [one.packet_id for one in bob.messages()] == [first]  # 3.3.4-9
    bob.puback(first)
    assert [one.packet_id for one in bob.messages()] == [last]


def test_one_may_not_read_or_write_what_is_anothers() -> None:
    quotas = Quotas(publishes_per_s=1e9)
    ann = Grant(name="ann", reads=("u/ann/down/#",), writes=("u/ann/up/#",), quotas=quotas)
    wire = Wire(grants={"ann": ann})
    client = wire.client("x", username="ann")
    client.read()
    asked = ("u/ann/down/+", "u/bob/down/#", "#", "$share/g/u/ann/down/#", "u/+/down/x")
    assert client.subscribe(*asked) == [1, 135, 135, 135, 135]
    client.publish("u/bob/up/x", qos=1)
    assert client.read()[0].reason_code.value == 135


def test_accounts_do_not_share_client_ids() -> None:
    grants = {name: Grant(name=name, reads=("#",)) for name in ("ann", "bob")}
    wire = Wire(grants=grants)
    first = wire.client("same", username="ann", session_expiry_interval=60)
    second = wire.client("same", username="bob", session_expiry_interval=60)
    assert not first.is_closed
    assert not second.read()[0].session_present


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_acknowledged_survives_a_kill_and_what_was_not_is_not_acknowledged(
    qos: int,
) -> None:
    wire = Wire(is_durable=True)
    bob = wire.client("bob", session_expiry_interval=600)
    bob.subscribe("a", qos=2)
    bob.break_off()
    wire.writes_at_once = False
    ann = wire.client("ann")
    ann.read()
    ann.publish("a", b"kept", qos=qos)
    assert ann.read() == []
    wire.write_journal()
    wire.settle()
    assert len(ann.read()) == 1
    ann.publish("a", b"lost", qos=qos, packet_id=2)
    wire.kill()
    wire.writes_at_once = True
    back = wire.client("bob", session_expiry_interval=600)
    assert payloads(back.messages()) == [b"kept"]


def test_a_message_of_qos_2_comes_once_over_kills_of_the_broker() -> None:
    wire = Wire(is_durable=True)
    bob = wire.client("bob", session_expiry_interval=600)
    bob.subscribe("a", qos=2)
    ann = wire.client("ann", session_expiry_interval=600)
    ann.read()
    ann.publish("a", b"once", qos=2, packet_id=7)
    (message,) = bob.messages()
    wire.kill()
    ann = wire.client("ann", session_expiry_interval=600)
    ann.read()
    ann.publish("a", b"once", qos=2, packet_id=7, duplicate=True)
    assert type(ann.read()[0]) is mqtt5.PubRecPacket
    bob = wire.client("bob", session_expiry_interval=600)
    (again,) = bob.messages()
    assert (again.packet_id, again.duplicate) == (message.packet_id, True)
    bob.send(mqtt5.PubRecPacket(again.packet_id).write())
    wire.kill()
    bob = wire.client("bob", session_expiry_interval=600)
    kinds = [type(one) for one in bob.read()]
    assert kinds == [mqtt5.ConnAckPacket, mqtt5.PubRelPacket]


def test_sessions_subscriptions_and_retained_messages_survive_a_kill() -> None:
    wire = Wire(is_durable=True)
    wire.client("bob", session_expiry_interval=600).subscribe("a/#")
    ann = wire.client("ann")
    ann.publish("a/state", b"s", qos=1, retain=True)
    wire.kill()
    wire.client("eva").publish("a/1", b"later", qos=1)
    bob = wire.client("bob", session_expiry_interval=600)
    assert payloads(bob.messages()) == [b"s", b"later"]
    late = wire.client("late")
    late.subscribe("a/state")
    assert payloads(late.messages()) == [b"s"]


def test_share_groups_survive_a_kill_with_what_waits_in_them() -> None:
    wire = Wire(is_durable=True)
    first = wire.client("m1", session_expiry_interval=600)
    first.subscribe(SHARED)
    ann = wire.client("ann")
    for number in range(3):
        ann.publish("jobs/1", bytes([number]), qos=1)
    held = first.messages()
    first.puback(held[1].packet_id)
    wire.kill()
    second = wire.client("m2", session_expiry_interval=600)
    second.subscribe(SHARED)
    assert payloads(second.messages()) == [b"\0", b"\2"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_member_was_sent_before_it_left_its_share_is_delivered_to_it(
    *, is_killed: bool
) -> None:
    """3.10.4-3."""
    wire = Wire(is_durable=True)
    member = wire.client("m1", session_expiry_interval=600)
    member.subscribe(SHARED)
    wire.client("ann").publish("jobs/1", b"mine", qos=1)
    assert payloads(member.messages()) == [b"mine"]
    member.unsubscribe(SHARED)
    if is_killed:
        wire.kill()
    else:
        member.break_off()
    assert payloads(wire.client("m1", session_expiry_interval=600).messages()) == [b"mine"]


def test_a_message_of_qos_0_does_not_wait_for_the_window_of_a_member_of_a_share() -> None:
    wire = Wire()
    member = wire.client("m1", receive_max=1)
    member.subscribe(SHARED)
    ann = wire.client("ann")
    for qos in (1, 1, 0):
        ann.publish("jobs/1", str(qos).encode(), qos=qos)
    assert payloads(member.messages()) == [b"1", b"0"]
