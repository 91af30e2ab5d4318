"""A session ends when nothing is subscribed to, queued or unacknowledged any more."""

import asyncio

import mqtt5
import pytest

from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import ConnectionLost, ConnectRefused, MqttError
from broker.mqtt.session import Session
from broker.mqtt.session_end import SessionEnd
from broker.mqtt.session_events import Answered, PublishReceived
from broker.mqtt.subscription_changes import SubscriptionChanges
from tests.mqtt.outcomes import LOST, turn
from tests.mqtt.server import QOS1, online, packets_in


class Ending:
    """A session that ends, and what it writes to a server that answers by hand."""

    def __init__(self) -> None:
        self.session: Session = online()
        self.last = Message("own/end", b"", correlation=b"mine")
        self.written: list[mqtt5.Packet] = []
        self.published: list[Message] = []
        self.is_connected = True
        self.changes = SubscriptionChanges(self.flush, lambda: self.is_connected)
        self.end = SessionEnd(self.session, self.last, self.flush, self.changes)

    def flush(self) -> None:
        self.written += packets_in(self.session.take(0.0))

    async def publish(self, message: Message) -> None:
        self.published.append(message)

    def run(self, *filters: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.end.run(filters, self.publish))

    def lose(self, error: MqttError) -> None:
        self.changes.lost(error)
        self.end.lost(error)

    def receives(
        self, topic: str, packet_id: int, correlation: bytes | None = None
    ) -> PublishReceived:
        packet = mqtt5.PublishPacket(
            topic, b"", qos=QOS1, packet_id=packet_id, correlation_data=correlation
        )
        [event] = self.session.receive(packet.write(), 0.0)
        assert isinstance(event, PublishReceived)
        return event

    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.written]


async def test_a_session_ends_when_its_own_last_message_has_come_and_all_is_acknowledged() -> None:
    one = Ending()
    queued = one.receives("t", 1)
    running = one.run("a", "b")
    await turn()
    assert one.kinds() == ["SubscribePacket"]
    assert [each.pattern for each in one.written[0].topic_filters] == ["own/end"]  # type: ignore[union-attr]
    one.changes.answered(Answered(()))
    one.changes.answered(Answered(("ignored",)))
    await turn()
    assert one.kinds() == ["SubscribePacket", "UnsubscribePacket"]
    assert one.written[1].patterns == ["a", "b"]  # type: ignore[union-attr]
    assert one.published == []
    one.changes.answered(Answered(()))
    await turn()
    assert one.published == [one.last]
    assert not one.end.is_ours(queued)
    assert one.end.is_ours(one.receives("own/end", 2, b"another's"))
    assert one.end.is_ours(one.receives("own/end", 3, b"mine"))
    await turn()
    assert not running.done()  # the first is not acknowledged yet
    one.session.acknowledge(1, 1)
    one.end.look()
    await asyncio.wait_for(running, 5)
    one.flush()
    assert one.kinds()[2:] == ["PubAckPacket"] * 3
    one.session.disconnect()
    [goodbye] = packets_in(one.session.take(0.0))
    assert goodbye.session_expiry_interval == 0  # type: ignore[union-attr]
    one.end.look()
    one.end.lost(LOST)


async def test_a_session_without_subscriptions_ends_without_asking_to_end_them() -> None:
    one = Ending()
    running = one.run()
    await turn()
    one.changes.answered(Answered(()))
    await turn()
    assert one.kinds() == ["SubscribePacket"]
    assert one.published == [one.last]
    one.end.is_ours(one.receives("own/end", 3, b"mine"))
    await asyncio.wait_for(running, 5)


async def test_another_sessions_last_message_ends_nothing() -> None:
    one = Ending()
    one.end.is_ours(one.receives("own/end", 3, b"another's"))
    assert one.session.unacknowledged == 0
    assert not one.end._done.done()


async def test_a_refusal_or_a_loss_ends_the_attempt() -> None:
    refused, lost, later = Ending(), Ending(), Ending()
    running = refused.run("a")
    await turn()
    refused.changes.answered(Answered(("own/end (NOT_AUTHORIZED)", "x")))
    with pytest.raises(
        ConnectRefused,
        match=r"^the MQTT broker refused a change of subscriptions: own/end \(NOT_AUTHORIZED\), x$",
    ):
        await running
    running = lost.run("a")
    await turn()
    lost.lose(LOST)
    lost.lose(ConnectionLost("later"))
    with pytest.raises(ConnectionLost, match=r"^lost$"):
        await running
    running = later.run()
    await turn()
    later.changes.answered(Answered(()))
    await turn()
    later.lose(LOST)
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(running, 5)


async def test_changes_of_subscriptions_wait_for_each_other_also_for_one_that_was_cancelled() -> (
    None
):
    one = Ending()
    first, second, third = (
        asyncio.create_task(one.changes.ask(one.session.unsubscribe, [name])) for name in "abc"
    )
    await turn()
    first.cancel()
    await turn()
    assert [each.patterns for each in one.written] == [["a"]]  # type: ignore[union-attr]
    one.changes.answered(Answered(()))
    await turn()
    assert [each.patterns for each in one.written] == [["a"], ["b"]]  # type: ignore[union-attr]
    one.changes.answered(Answered(()))
    await second
    await turn()
    one.changes.lost(LOST)
    one.changes.lost(ConnectionLost("later"))
    with pytest.raises(ConnectionLost, match=r"^lost$"):
        await third


async def test_without_a_connection_no_change_of_subscriptions_is_asked_for() -> None:
    one = Ending()
    one.is_connected = False
    with pytest.raises(ConnectionLost, match=r"^not connected$"):
        await one.changes.ask(one.session.unsubscribe, ["a"])
    assert one.written == []


async def test_the_last_message_is_published_again_until_it_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.mqtt.session_end._AGAIN_S", 0.001)
    one = Ending()
    running = one.run()
    await turn()
    one.changes.answered(Answered(()))
    async with asyncio.timeout(5):
        while len(one.published) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    one.end.is_ours(one.receives("own/end", 3, b"mine"))
    await asyncio.wait_for(running, 5)
    assert set(one.published) == {one.last}
