"""Several independent MQTT brokers that serve one city as one: a connection to each.

A message for one device goes to the broker that the device uses (`Message.broker_index`), if that
is known. Everything else goes to all, and clients get it where they have subscribed. A lost broker
holds up nothing: a message for its devices alone fails, and is sent again later like one that an
MQTT broker refuses.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from broker.mqtt.connection import Connection
from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError, Overloaded, Unreachable
from broker.mqtt.reason_codes import PubAckReasonCode

_GONE = PubAckReasonCode.UNSPECIFIED_ERROR

Outcome = asyncio.Future[PubAckReasonCode]


class BrokerPool:
    """Connections to several MQTT brokers, by number; with the publishing half of `Connection`.

    `connections` must call `lost` with their number when they lose their broker.

    Raises:
        Unreachable: on entering: none of them can be reached.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections
        # In the order of sending: sets would settle them in another order each time.
        self._awaited: list[dict[Outcome, None]] = [{} for _ in connections]

    async def __aenter__(self) -> Self:
        entering = [connection.__aenter__() for connection in self.connections]
        results = await asyncio.gather(*entering, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if not errors and not any(connection.connected for connection in self.connections):
            errors = [Unreachable("none of the MQTT brokers answers")]
        if errors:
            await self.__aexit__(None, None, None)
            raise errors[0]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leaving = [one.__aexit__(kind, error, traceback) for one in self.connections]
        await asyncio.gather(*leaving, return_exceptions=True)

    def lost(self, number: int) -> None:
        """End the waiting for messages sent there: they may be delivered later, twice, or never."""
        for outcome in [*self._awaited[number]]:
            if not outcome.done():
                outcome.set_result(_GONE)

    async def publish(self, message: Message) -> PubAckReasonCode:
        """`publish_nowait`, awaited."""
        return await self.publish_nowait(message)

    def publish_nowait(self, message: Message) -> Outcome:
        """Publish on the message's broker, or on all; the outcome is the best of theirs.

        Lost brokers are included: they get it when they are back. Only if all are lost is it waited
        for.

        Raises:
            MqttError: none of them can take it.
        """
        if message.broker_index is not None:
            return self._by(message, message.broker_index)
        outcomes: list[Outcome] = []
        waiting: list[Outcome] = []
        problem: MqttError | None = None
        for number, connection in enumerate(self.connections):
            try:
                if connection.connected:
                    outcomes.append(self._awaiting(number, connection.publish_nowait(message)))
                else:
                    waiting.append(connection.publish_nowait(message))
            except Overloaded as error:
                problem = error
        if not outcomes and not waiting and problem is not None:
            raise problem
        return _best(outcomes or waiting)

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        """Publish many, each on its broker or on all connected ones; outcomes in their order."""
        shares: list[list[int]] = [[] for _ in self.connections]
        whole = list(messages)
        for index, message in enumerate(whole):
            for number in (
                range(len(shares)) if message.broker_index is None else (message.broker_index,)
            ):
                shares[number].append(index)
        outcomes: list[list[PubAckReasonCode]] = [[] for _ in whole]
        batches = [
            self._batch(number, [whole[index] for index in share])
            for number, share in enumerate(shares)
        ]
        for share, results in zip(shares, await asyncio.gather(*batches), strict=True):
            for index, outcome in zip(share, results, strict=True):
                outcomes[index].append(outcome)
        return [best_of(several) for several in outcomes]

    async def _batch(self, number: int, some: Sequence[Message]) -> Sequence[PubAckReasonCode]:
        connection = self.connections[number]
        if not some or not connection.connected:
            return [_GONE] * len(some)
        gone: Outcome = asyncio.get_running_loop().create_future()
        self._awaited[number][gone] = None
        sending = asyncio.create_task(connection.publish_batch(some), name=f"batch by {number}")
        try:
            either: set[asyncio.Future[Any]] = {sending, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._awaited[number].pop(gone, None)
        if sending.done():
            return sending.result()
        sending.add_done_callback(_retrieve)  # it is sent again when the broker is back
        return [_GONE] * len(some)

    def _by(self, message: Message, number: int) -> Outcome:
        connection = self.connections[number]
        if not connection.connected:
            outcome: Outcome = asyncio.get_running_loop().create_future()
            outcome.set_result(_GONE)
            return outcome
        return self._awaiting(number, connection.publish_nowait(message))

    def _awaiting(self, number: int, acknowledged: Outcome) -> Outcome:
        """Return a future that is done when `acknowledged` is, or when that broker is lost."""
        outcome: Outcome = asyncio.get_running_loop().create_future()
        self._awaited[number][outcome] = None
        outcome.add_done_callback(lambda done: self._awaited[number].pop(done, None))

        def settle(done: Outcome) -> None:
            if outcome.done():
                _retrieve(done)
            elif (error := done.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(done.result())

        acknowledged.add_done_callback(settle)
        return outcome


def connections_of(mqtt: Connection | BrokerPool) -> Sequence[Connection]:
    """Return the connection to each MQTT broker."""
    return mqtt.connections if isinstance(mqtt, BrokerPool) else [mqtt]


def best_of(outcomes: Sequence[PubAckReasonCode]) -> PubAckReasonCode:
    """Return the outcome of several brokers: taken if one took it, else failed if one failed.

    A broker that did not get the message may have the only subscriber.
    """
    if PubAckReasonCode.SUCCESS in outcomes:
        return PubAckReasonCode.SUCCESS
    return max(outcomes)


def _best(outcomes: Sequence[Outcome]) -> Outcome:
    """Return a future that is done when one has taken the message, or all have answered."""
    if len(outcomes) == 1:
        return outcomes[0]
    best: Outcome = asyncio.get_running_loop().create_future()

    def settle(_: Outcome) -> None:
        if best.done():
            return
        done = [one for one in outcomes if one.done()]
        codes = [one.result() for one in done if one.exception() is None]
        if PubAckReasonCode.SUCCESS in codes:
            best.set_result(PubAckReasonCode.SUCCESS)
        elif len(done) == len(outcomes):
            if codes:
                best.set_result(best_of(codes))
            else:
                best.set_exception(done[0].exception() or MqttError("no outcome"))

    for outcome in outcomes:
        outcome.add_done_callback(settle)
    return best


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Retrieve an outcome for which no caller waits."""
    if not done.cancelled():
        done.exception()
