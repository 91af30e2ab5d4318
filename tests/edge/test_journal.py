"""What the journal promises: answers wait for it, and it comes back as it was."""

import mqtt5
import pytest

from broker.edge.accounts import Grant, Quotas
from tests.edge.wire import Wire, payloads


def test_connack_comes_before_what_waits_for_the_session_and_both_before_a_goodbye() -> None:
    wire = Wire(is_durable=True)
    bob = wire.client("bob", session_expiry_interval=600)
    bob.subscribe("a")
    bob.break_off()
    wire.client("ann").publish("a", b"1", qos=1)
    wire.writes_at_once = False
    back = wire.client("bob", session_expiry_interval=600)
    back.send(mqtt5.PingReqPacket().write())
    assert back.sent_bytes == b""
    wire.write_journal()
    wire.settle()
    kinds = [type(one) for one in back.read()]
    assert kinds == [mqtt5.ConnAckPacket, mqtt5.PublishPacket, mqtt5.PingRespPacket]
    early = wire.client("bob", session_expiry_interval=600)
    wire.client("bob", session_expiry_interval=600)
    assert (early.is_closed, early.sent_bytes) == (True, b"\x20\3\0\x89\0")  # no DISCONNECT


def test_what_waits_keeps_its_order_though_some_of_it_was_retained_before() -> None:
    wire = Wire(is_durable=True)
    ann = wire.client("ann")
    ann.publish("state", b"retained", qos=1, retain=True)
    bob = wire.client("bob", session_expiry_interval=600, receive_max=1)
    bob.subscribe("a")
    for payload in (b"1", b"2"):
        ann.publish("a", payload, qos=1)
    bob.subscribe("state", "sta/#", "+")  # twice: for two of them
    ann.publish("a", b"3", qos=1)
    wire.kill()
    bob = wire.client("bob", session_expiry_interval=600)
    assert payloads(bob.messages()) == [b"1", b"2", b"retained", b"retained", b"3"]


@pytest.mark.parametrize("delay_s", [0, 10])
@pytest.mark.parametrize("is_back", [False, True])
def test_the_will_of_who_was_connected_when_the_broker_was_killed(
    delay_s: int, *, is_back: bool
) -> None:
    wire = Wire(is_durable=True)
    wire.client("bob", session_expiry_interval=600).subscribe("gone")
    will = mqtt5.Will("gone", payload=b"!", qos=mqtt5.QoS(1), will_delay_interval=delay_s)
    wire.client("ann", session_expiry_interval=600, will=will)
    wire.kill()
    if is_back:
        wire.client("ann", session_expiry_interval=600)
    wire.wait(delay_s + 1)
    wire.kill()
    wire.wait(20)
    bob = wire.client("bob", session_expiry_interval=600)
    assert payloads(bob.messages()) == ([] if is_back else [b"!"])


def test_a_queue_that_is_full_of_what_has_expired_has_room_again() -> None:
    quotas = Quotas(queued_bytes=10_000, publishes_per_s=1e9)
    wire = Wire(grants={"bob": Grant(name="bob", reads=("#",), quotas=quotas)})
    bob = wire.client("bob", username="bob", session_expiry_interval=600)
    bob.subscribe("a")
    bob.break_off()
    ann = wire.client("ann")
    for number in range(20):
        ann.publish("a", b"x" * 1000, qos=1, packet_id=number + 1, message_expiry_interval=10)
    ann.read()
    wire.wait(11)
    ann.publish("a", b"y" * 1000, qos=1)
    assert ann.read()[0].reason_code.value == 0
    bob = wire.client("bob", username="bob", session_expiry_interval=600)
    assert payloads(bob.messages()) == [b"y" * 1000]
