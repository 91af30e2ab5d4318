"""Several MQTT brokers as one: which of them a message goes by, and whose answer counts."""

import asyncio
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, Self

import pytest

from broker.mqtt.broker_pool import BrokerPool, connections_of
from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import (
    ConnectionLost,
    ConnectRefused,
    MqttError,
    Overloaded,
    Unreachable,
)
from broker.mqtt.reason_codes import PubAckReasonCode
from tests.mqtt.outcomes import FAILED, LOST, NOBODY, OK, turn


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
    assert pool._awaited == [{}, {}]
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
    assert pool._awaited == [{}, {}, {}]


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
