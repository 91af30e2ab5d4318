"""Many messages published as one, without a task or a future for each."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError
from broker.mqtt.outbound import Outcome, Publication
from broker.mqtt.reason_codes import PubAckReasonCode


class Batch:
    """Collects the outcomes of `messages`, in their order."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self._outcomes: list[PubAckReasonCode] = [PubAckReasonCode.UNSPECIFIED_ERROR] * len(
            messages
        )
        self._left = len(messages)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def publications(self) -> Iterator[Publication]:
        """Each message in turn, until the caller of the batch is cancelled."""
        for index, message in enumerate(self._messages):
            if self._done.done():
                return
            yield Publication(message, partial(self._settle, index))

    async def outcomes(self) -> list[PubAckReasonCode]:
        """Wait for all; an MqttError if the connection ended before."""
        await self._done
        return self._outcomes

    def _settle(self, index: int, outcome: Outcome) -> None:
        if isinstance(outcome, MqttError):
            if not self._done.done():
                self._done.set_exception(outcome)
            return
        self._outcomes[index] = outcome
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)


def settle_future(future: asyncio.Future[PubAckReasonCode], outcome: Outcome) -> None:
    """Resolve a single message's future, unless its waiter was cancelled."""
    if future.done():
        return
    if isinstance(outcome, MqttError):
        future.set_exception(outcome)
        future.exception()  # retrieve it: no caller has to wait for it
    else:
        future.set_result(outcome)
