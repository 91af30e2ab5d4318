"""Many messages published as one, without a task or a future for each.

Where the MQTT broker takes a crowd in one packet, messages in a row that differ in their topic alone
are one.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from broker.mqtt.crowd import outcomes_of, packets_for
from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError
from broker.mqtt.outbound import Outcome, Publication, UserProperties
from broker.mqtt.reason_codes import PubAckReasonCode

_FEWEST = 4  # topics that are a crowd


class Batch:
    """Collects the outcomes of `messages`, in their order."""

    def __init__(self, messages: Sequence[Message], *, takes_crowds: bool = False) -> None:
        self._messages = messages
        self._takes_crowds = takes_crowds
        self._outcomes: list[PubAckReasonCode] = [PubAckReasonCode.UNSPECIFIED_ERROR] * len(
            messages
        )
        self._left = len(messages)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def publications(self) -> Iterator[Publication]:
        """What is to be sent, in turn, until the caller of the batch is cancelled."""
        for publication in self._crowds() if self._takes_crowds else self._singles():
            if self._done.done():
                return
            yield publication

    def _singles(self) -> Iterator[Publication]:
        for index, message in enumerate(self._messages):
            yield Publication(message, partial(self._settle, index, 1, ()))

    def _crowds(self) -> Iterator[Publication]:
        index = 0
        for _, run in groupby(self._messages, _common):
            alike = [*run]
            if len(alike) < _FEWEST or not _may_be_crowd(alike[0]):
                packets: Iterator[tuple[Message, int]] = ((message, 1) for message in alike)
            else:
                packets = packets_for(alike[0], [message.topic for message in alike])
            for message, count in packets:
                told: list[UserProperties] = []
                settle = partial(self._settle, index, count, told)
                yield Publication(message, settle, told.append)
                index += count

    async def outcomes(self) -> list[PubAckReasonCode]:
        """Wait for all; an MqttError if the connection ended before."""
        await self._done
        return self._outcomes

    def _settle(
        self, first: int, count: int, told: Sequence[UserProperties], outcome: Outcome
    ) -> None:
        if isinstance(outcome, MqttError):
            if not self._done.done():
                self._done.set_exception(outcome)
            return
        if count == 1:
            self._outcomes[first] = outcome
        else:
            properties = told[-1] if told else ()
            self._outcomes[first : first + count] = outcomes_of(outcome, properties, count)
        self._left -= count
        if not self._left and not self._done.done():
            self._done.set_result(None)


def _common(message: Message) -> object:
    """Return what messages of one crowd have in common; the payload is the same object."""
    return id(message.payload), message.expiry_s, message.qos, message.retain, message.correlation


def _may_be_crowd(message: Message) -> bool:
    is_plain = not message.user_properties and message.response_topic is None
    return message.qos == 1 and not message.retain and is_plain


def settle_future(future: asyncio.Future[PubAckReasonCode], outcome: Outcome) -> None:
    """Resolve a single message's future, unless its waiter was cancelled."""
    if future.done():
        return
    if isinstance(outcome, MqttError):
        future.set_exception(outcome)
        future.exception()  # retrieve it: no caller has to wait for it
    else:
        future.set_result(outcome)
