"""Tells the services, by id, which messages have come: until then they are sent again.

Ids that come close together are sent in one receipt. A receipt that is lost needs no repeat: its
message comes again, and is confirmed again.
"""

import asyncio
from collections import defaultdict
from itertools import islice
from typing import Self
from uuid import UUID

from devices.device_connection import DeviceConnection, end
from schemas.codec import encode
from schemas.messages import DeliveryReceipt

_TOGETHER_S = 0.02
_MOST = 200  # ids in one receipt


class DeliveryReceipts:
    """The receipts that one connection owes, while the `async with` lasts."""

    def __init__(self, connection: DeviceConnection) -> None:
        self._connection = connection
        self._owed: dict[str, set[UUID]] = defaultdict(set)
        self._is_owed = asyncio.Event()
        self._sender: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send(), name="send delivery receipts")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._sender)

    def add(self, topic: str, identifier: UUID) -> None:
        """Tell on `topic` that the message `identifier` has come."""
        self._owed[topic].add(identifier)
        self._is_owed.set()

    async def _send(self) -> None:
        while True:
            await self._is_owed.wait()
            await asyncio.sleep(_TOGETHER_S)
            link = await self._connection.link()
            self._is_owed.clear()
            owed, self._owed = self._owed, defaultdict(set)
            for topic, identifiers in owed.items():
                left = iter(identifiers)
                while some := frozenset(islice(left, _MOST)):
                    await link.publish(topic, encode(DeliveryReceipt(ids=some)), qos=1)
