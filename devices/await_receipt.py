"""Sends a message until its receipt comes or the time is up.

Only the receipt says that a message is stored: a PUBACK of Mosquitto means "in memory". A receipt
is matched by its correlation data, or else by the message's id.
"""

import asyncio
import math
import uuid
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.device_connection import DeviceConnection, DeviceLink, Incoming
from schemas.messages import Outcome, Receipt

REPEAT_AFTER_S = 2.0


class NotConfirmed(Exception):  # noqa: N818 - read as `except NotConfirmed`
    """No receipt came in time: the message may or may not have arrived."""

    def __init__(self) -> None:
        super().__init__("Not confirmed. Call 112 if it is urgent.")


class MessageRejected(Exception):  # noqa: N818 - read as `except MessageRejected`
    """The broker refused the message; `receipt` has the code, the field and the reason."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(why_rejected(receipt))
        self.receipt = receipt


@dataclass(frozen=True, slots=True)
class Request:
    """A message that asks for a receipt. `key` is its id, or a new one when it has none.

    With an `expiry_s` the MQTT broker drops it after that time.
    """

    topic: str
    payload: bytes
    response_topic: str
    key: UUID
    expiry_s: int | None = None

    async def send(self, link: DeviceLink) -> None:
        """Send once, with the response topic and the correlation data (MQTT 5, 4.10)."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = self.response_topic
        properties.CorrelationData = self.key.bytes
        if self.expiry_s is not None:
            properties.MessageExpiryInterval = self.expiry_s
        await link.publish(self.topic, self.payload, qos=1, properties=properties)


class Receipts:
    """The receipts that calls wait for; `devices/delivery.py` has those of messages on disk."""

    def __init__(self, connection: DeviceConnection, *, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._awaited: dict[UUID, asyncio.Future[Receipt]] = {}

    async def confirmed(
        self,
        request: Request,
        *,
        repeat_after_s: float | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Send `request` until its receipt comes: after `repeat_after_s` (2 s), or on a new connection.

        Raises:
            NotConfirmed: no receipt in time.
            MessageRejected: the receipt says so.
        """
        fresh: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        awaited = self._awaited.setdefault(request.key, fresh)
        try:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                while not awaited.done():
                    await self._send(request, awaited, repeat_after_s or REPEAT_AFTER_S)
        except TimeoutError:
            raise NotConfirmed from None
        finally:
            if awaited is fresh:
                self._awaited.pop(request.key, None)
        return accepted(awaited.result())

    def take(self, receipt: Receipt, incoming: Incoming) -> bool:
        """Give `receipt` to the call that awaits it; False when no call does."""
        key = key_of(receipt, incoming)
        awaited = self._awaited.get(key) if key else None
        if awaited is None or awaited.done():
            return False
        awaited.set_result(receipt)
        return True

    async def _send(
        self, request: Request, awaited: asyncio.Future[Receipt], most_s: float
    ) -> None:
        """Send once; return when the receipt came, the connection was lost, or the time is up."""
        link = await self._connection.link()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(request.send(link), name=f"send {request.key}")
            news: set[asyncio.Future[Any]] = {awaited, link.lost}
            await asyncio.wait(
                news,
                timeout=None if math.isinf(most_s) else most_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            sending.cancel()


def key_of(receipt: Receipt, incoming: Incoming) -> UUID | None:
    """Return the id of the message that `receipt` is for, by correlation data or else by id."""
    correlation = incoming.correlation
    if correlation is not None and len(correlation) == 16:
        return UUID(bytes=correlation)
    return receipt.id


def accepted(receipt: Receipt) -> Receipt:
    """Return `receipt` if it accepts the message.

    Raises:
        MessageRejected: it does not.
    """
    if receipt.outcome is Outcome.REJECTED:
        raise MessageRejected(receipt)
    return receipt


def why_rejected(receipt: Receipt) -> str:
    """Return the reason, for the user. An outcome unknown to this device comes without one."""
    if receipt.code is None:
        return "The answer says neither that it is accepted nor why not."
    return f"{receipt.code} at {receipt.field}: {receipt.reason}"


def fresh_key() -> UUID:
    """Return a key for a message that has no id of its own."""
    return uuid.uuid4()
