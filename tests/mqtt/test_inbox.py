"""Who waits for deliveries and for the outcomes of a batch: in order, woken once, never left behind."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.mqtt.batch import Batch, settle_future
from broker.mqtt.message import Delivery, Message
from broker.mqtt.mqtt_errors import ConnectionLost
from broker.mqtt.reason_codes import PubAckReasonCode
from broker.mqtt.unacknowledged import Inbox
from tests.mqtt.outcomes import FAILED, LOST, NOBODY, OK, turn


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
