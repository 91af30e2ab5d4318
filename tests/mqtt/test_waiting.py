"""Who waits for messages, outcomes and ends: in order, woken once, and never left behind."""

import asyncio
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, Self

import mqtt5
import pytest

from broker.mqtt.batch import Batch, settle_future
from broker.mqtt.broker_pool import BrokerPool, connections_of
from broker.mqtt.message import Delivery, Message
from broker.mqtt.mqtt_errors import (
    ConnectionLost,
    ConnectRefused,
    MqttError,
    Overloaded,
    Unreachable,
)
from broker.mqtt.reason_codes import PubAckReasonCode
from broker.mqtt.session import Session
from broker.mqtt.session_end import SessionEnd
from broker.mqtt.session_events import Answered, PublishReceived
from broker.mqtt.subscription_changes import SubscriptionChanges
from broker.mqtt.unacknowledged import Inbox
from tests.mqtt.server import QOS1, online, packets_in

OK, FAILED = PubAckReasonCode.SUCCESS, PubAckReasonCode.UNSPECIFIED_ERROR
NOBODY = PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
LOST = ConnectionLost("lost")


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


def delivery(payload: bytes, qos: int = 1) -> Delivery:
    return Delivery(
        Message("t", payload, qos),
        0.0,
        duplicate=False,
        packet_id=1,
        epoch=1,
        acknowledge=lambda *_: None,
    )


def payloads(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [each.message.payload for each in deliveries]


# -- inbox ---------------------------------------------------------------------------------------


async def test_what_is_queued_comes_in_order_and_never_more_than_asked_for() -> None:
    inbox = Inbox(10)
    for payload in (b"a", b"b", b"c"):
        inbox.put(delivery(payload))
    assert len(inbox) == 3
    assert payloads(await inbox.take(2)) == [b"a", b"b"]
    assert payloads(await inbox.take(2)) == [b"c"]
    assert len(inbox) == 0
    inbox.put(delivery(b"d"))
    assert payloads(await inbox.take(1)) == [b"d"]


async def test_qos_0_beyond_the_limit_is_dropped_and_counted_and_qos_1_never() -> None:
    inbox = Inbox(2)
    for payload in (b"a", b"b", b"c"):
        inbox.put(delivery(payload, 0))
    assert (len(inbox), inbox.dropped_qos0) == (2, 1)
    inbox.put(delivery(b"d", 1))
    assert (len(inbox), inbox.dropped_qos0) == (3, 1)
    inbox.put(delivery(b"e", 0))
    assert inbox.dropped_qos0 == 2
    inbox.forget_unacknowledged()
    assert payloads(await inbox.take(9)) == [b"a", b"b"]


async def test_each_delivery_wakes_one_reader_and_what_is_left_the_next() -> None:
    inbox = Inbox(10)
    readers = [asyncio.create_task(inbox.take(1)) for _ in range(3)]
    await turn()
    inbox.put(delivery(b"a"))
    inbox.put(delivery(b"b"))
    await turn()
    assert [reader.done() for reader in readers] == [True, True, False]
    inbox.put(delivery(b"c"))
    assert [payloads(await reader) for reader in readers] == [[b"a"], [b"b"], [b"c"]]


async def test_no_reader_waits_while_something_is_queued_however_much_each_takes() -> None:
    inbox, numbers = Inbox(10), iter(range(100))
    for sizes in ((1, 1), (1, 2), (2, 1), (1, 1, 1), (3, 1)):
        for early in range(len(sizes) + 1):
            readers = [asyncio.create_task(inbox.take(size)) for size in sizes[:early]]
            await turn()
            for _ in sizes:
                inbox.put(delivery(b"%d" % next(numbers)))
            readers += [asyncio.create_task(inbox.take(size)) for size in sizes[early:]]
            await turn()
            assert not len(inbox) or all(reader.done() for reader in readers)
            for reader in readers:
                reader.cancel()
            await turn()
            inbox.forget_unacknowledged()


async def test_a_reader_that_is_cancelled_passes_its_waking_on() -> None:
    inbox = Inbox(10)
    readers = [asyncio.create_task(inbox.take(1)) for _ in range(2)]
    await turn()
    inbox.put(delivery(b"a"))
    readers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await readers[0]
    assert payloads(await asyncio.wait_for(readers[1], 5)) == [b"a"]


async def test_a_cancelled_reader_that_was_not_woken_is_passed_over() -> None:
    inbox = Inbox(10)
    readers = [asyncio.create_task(inbox.take(1)) for _ in range(2)]
    await turn()
    readers[0].cancel()
    await turn()
    inbox.put(delivery(b"a"))
    assert payloads(await asyncio.wait_for(readers[1], 5)) == [b"a"]


async def test_the_end_comes_after_what_is_queued_to_every_reader_and_the_first_error_counts() -> (
    None
):
    inbox = Inbox(10)
    readers = [asyncio.create_task(inbox.take(1)) for _ in range(2)]
    await turn()
    inbox.close(LOST)
    inbox.close(ValueError("later"))
    for reader in readers:
        with pytest.raises(ConnectionLost):
            await reader
    inbox.put(delivery(b"a"))
    assert payloads(await inbox.take(1)) == [b"a"]
    with pytest.raises(ConnectionLost):
        await inbox.take(1)


# -- batches -------------------------------------------------------------------------------------


async def test_outcomes_of_a_batch_stand_in_the_order_of_its_messages() -> None:
    batch = Batch([Message("t", b"%d" % number) for number in range(3)])
    first, second, third = batch.publications()
    assert [each.message.payload for each in (first, second, third)] == [b"0", b"1", b"2"]
    waiting = asyncio.create_task(batch.outcomes())
    third.settle(OK)
    first.settle(NOBODY)
    await turn()
    assert not waiting.done()
    second.settle(FAILED)
    assert await waiting == [NOBODY, FAILED, OK]


async def test_a_batch_fails_once_when_the_connection_ends() -> None:
    batch = Batch([Message("t", b"")] * 2)
    first, second = batch.publications()
    first.settle(LOST)
    second.settle(ConnectionLost("later"))
    with pytest.raises(ConnectionLost, match=r"^lost$"):
        await batch.outcomes()
    assert list(batch.publications()) == []  # nobody waits for the rest


async def test_a_batch_that_nobody_waits_for_any_more_is_not_sent_further() -> None:
    batch = Batch([Message("t", b"")] * 3)
    publications = batch.publications()
    one = next(publications)
    waiting = asyncio.create_task(batch.outcomes())
    await turn()
    waiting.cancel()
    await turn()
    assert list(publications) == []
    one.settle(OK)
    one.settle(LOST)


async def test_a_single_outcome_is_told_unless_its_waiter_has_given_up() -> None:
    def future() -> asyncio.Future[PubAckReasonCode]:
        return asyncio.get_running_loop().create_future()

    told, failed, gone = future(), future(), future()
    settle_future(told, NOBODY)
    settle_future(told, OK)
    settle_future(failed, LOST)
    gone.cancel()
    settle_future(gone, OK)
    assert await told is NOBODY
    assert failed.exception() is LOST
    assert gone.cancelled()


# -- the end of a session ------------------------------------------------------------------------


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


# -- several MQTT brokers ------------------------------------------------------------------------


class OneBroker:
    """A connection as `BrokerPool` sees it; its outcomes are given by hand."""

    def __init__(self, *, connected: bool = True, fails: BaseException | None = None) -> None:
        self.connected = connected
        self.sent: list[Message] = []
        self.outcomes: list[asyncio.Future[PubAckReasonCode]] = []
        self.batches: list[asyncio.Future[list[PubAckReasonCode]]] = []
        self.left = 0
        self.is_full = False
        self._fails = fails

    async def __aenter__(self) -> Self:
        if self._fails:
            raise self._fails
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.left += 1

    def publish_nowait(self, message: Message) -> asyncio.Future[PubAckReasonCode]:
        if self.is_full:
            raise Overloaded("full")
        self.sent.append(message)
        self.outcomes.append(asyncio.get_running_loop().create_future())
        return self.outcomes[-1]

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        self.sent += messages
        self.batches.append(asyncio.get_running_loop().create_future())
        return await self.batches[-1]


def several(*brokers: OneBroker) -> BrokerPool:
    return BrokerPool(brokers)  # type: ignore[arg-type]


async def outcome_of(awaited: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaited, 5)


async def test_entering_needs_one_that_answers_and_leaves_all_if_one_fails() -> None:
    up, down = OneBroker(), OneBroker(connected=False)
    async with several(up, down) as entered:
        assert entered.connections == (up, down)
        assert (up.left, down.left) == (0, 0)
    assert (up.left, down.left) == (1, 1)
    with pytest.raises(Unreachable, match=r"^none of the MQTT brokers answers$"):
        await several(down, OneBroker(connected=False)).__aenter__()
    assert down.left == 2
    refused = OneBroker(fails=ConnectRefused("no"))
    with pytest.raises(ConnectRefused):
        await several(up, refused).__aenter__()
    assert (up.left, refused.left) == (2, 1)


async def test_a_message_without_a_broker_goes_by_all_and_is_taken_as_soon_as_one_has_it() -> None:
    brokers = OneBroker(), OneBroker()
    message = Message("t", b"")
    outcome = several(*brokers).publish_nowait(message)
    assert [broker.sent for broker in brokers] == [[message], [message]]
    brokers[0].outcomes[0].set_result(NOBODY)
    await turn()
    assert not outcome.done()
    brokers[1].outcomes[0].set_result(OK)
    assert await outcome_of(outcome) is OK


async def test_the_best_of_all_answers_counts_and_an_error_only_if_there_is_nothing_else() -> None:
    async def best(*answers: PubAckReasonCode | MqttError) -> PubAckReasonCode:
        brokers = [OneBroker() for _ in answers]
        waiting = asyncio.ensure_future(several(*brokers).publish(Message("t", b"")))
        await turn()
        for broker, answer in zip(brokers, answers, strict=True):
            assert not waiting.done()
            if isinstance(answer, MqttError):
                broker.outcomes[0].set_exception(answer)
            else:
                broker.outcomes[0].set_result(answer)
            await turn()
        return await asyncio.wait_for(waiting, 5)

    assert await best(NOBODY, FAILED) is FAILED
    assert await best(NOBODY, NOBODY) is NOBODY
    assert await best(LOST, NOBODY) is NOBODY
    assert await best(LOST, OK) is OK
    assert await best(NOBODY) is NOBODY
    with pytest.raises(ConnectionLost, match=r"^lost$"):
        await best(LOST, ConnectionLost("later"))


async def test_a_message_of_one_broker_goes_by_it_alone_and_has_failed_when_it_is_gone() -> None:
    first, second, gone = OneBroker(), OneBroker(), OneBroker(connected=False)
    pool = several(first, second, gone)
    outcome = pool.publish_nowait(Message("t", b"", broker_index=1))
    assert (len(first.sent), len(second.sent)) == (0, 1)
    second.outcomes[0].set_result(NOBODY)
    assert await outcome_of(outcome) is NOBODY
    assert await outcome_of(pool.publish_nowait(Message("t", b"", broker_index=2))) is FAILED
    assert gone.sent == []


async def test_the_loss_of_a_broker_ends_the_waiting_for_it_and_for_no_other() -> None:
    first, second = OneBroker(), OneBroker()
    pool = several(first, second)
    by_first = pool.publish_nowait(Message("t", b"1", broker_index=0))
    by_second = pool.publish_nowait(Message("t", b"2", broker_index=1))
    pool.lost(1)
    await turn()
    assert await outcome_of(by_second) is FAILED
    assert not by_first.done()
    second.outcomes[0].set_result(OK)  # too late, and no matter
    await turn()
    first.outcomes[0].set_result(OK)
    assert await outcome_of(by_first) is OK
    assert pool._awaited == [set(), set()]
    pool.lost(0)


async def test_who_is_gone_gets_it_later_and_is_waited_for_only_if_all_are() -> None:
    up, down = OneBroker(), OneBroker(connected=False)
    outcome = several(up, down).publish_nowait(Message("t", b""))
    assert len(down.sent) == 1
    up.outcomes[0].set_result(NOBODY)
    assert await outcome_of(outcome) is NOBODY
    others = OneBroker(connected=False), OneBroker(connected=False)
    outcome = several(*others).publish_nowait(Message("t", b""))
    await turn()
    assert not outcome.done()
    others[1].outcomes[0].set_result(OK)
    assert await outcome_of(outcome) is OK


async def test_one_that_is_full_is_passed_over_and_all_are_an_error() -> None:
    full, free = OneBroker(), OneBroker()
    full.is_full = True
    outcome = several(full, free).publish_nowait(Message("t", b""))
    free.outcomes[0].set_result(OK)
    assert await outcome_of(outcome) is OK
    waiting = OneBroker(connected=False)
    outcome = several(full, waiting).publish_nowait(Message("t", b""))
    assert not outcome.done()
    free.is_full = True
    with pytest.raises(Overloaded):
        several(full, free).publish_nowait(Message("t", b""))


async def test_a_batch_is_shared_out_and_its_outcomes_put_together_in_order() -> None:
    first, second, gone = OneBroker(), OneBroker(), OneBroker(connected=False)
    pool = several(first, second, gone)
    messages = [
        Message("t", b"%d" % n, broker_index=broker_index)
        for n, broker_index in enumerate((None, 0, 1, 2))
    ]
    waiting = asyncio.create_task(pool.publish_batch(messages))
    await turn()
    assert [each.payload for each in first.sent] == [b"0", b"1"]
    assert [each.payload for each in second.sent] == [b"0", b"2"]
    first.batches[0].set_result([NOBODY, OK])
    second.batches[0].set_result([OK, NOBODY])
    assert await outcome_of(waiting) == [OK, OK, NOBODY, FAILED]
    assert gone.sent == []
    assert pool._awaited == [set(), set(), set()]


async def test_a_batch_by_a_broker_that_is_lost_has_failed_and_goes_on_unheeded() -> None:
    broker, idle = OneBroker(), OneBroker()
    pool = several(broker, idle)
    waiting = asyncio.create_task(pool.publish_batch([Message("t", b"", broker_index=0)] * 2))
    await turn()
    assert idle.batches == []
    pool.lost(0)
    assert await outcome_of(waiting) == [FAILED, FAILED]
    broker.batches[0].set_exception(LOST)
    await turn()


def test_connections_of_one_or_several_are_a_list() -> None:
    brokers = (OneBroker(), OneBroker())
    one: Any = OneBroker()
    assert connections_of(several(*brokers)) == brokers
    assert connections_of(one) == [one]
