"""What the journal promises: answers wait for it, and it comes back as it was."""

import mqtt5

from tests.edge.wire import Wire


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
