"""The queue of deliveries between network and handlers: bounded, in order, in batches."""

import asyncio
from collections import deque

from broker.mqtt.message import Delivery


class Inbox:
    """A queue of deliveries that ends with an error once closed.

    QoS 1 is bounded by our Receive Maximum; QoS 0 beyond `max_items` is dropped and counted.
    """

    def __init__(self, max_items: int) -> None:
        self.dropped_qos0 = 0
        self._max_items = max_items
        self._items: deque[Delivery] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, delivery: Delivery) -> None:
        """Queue one delivery and wake a reader."""
        if delivery.message.qos == 0 and len(self._items) >= self._max_items:
            self.dropped_qos0 += 1
            return
        self._items.append(delivery)
        if self._readers:
            self._wake_one()

    def forget_unacknowledged(self) -> None:
        """Drop QoS 1 deliveries of a connection whose session goes on: they are delivered again."""
        self._items = deque(item for item in self._items if item.message.qos == 0)

    def close(self, error: BaseException) -> None:
        """Let readers take what is queued; then every reader gets `error`."""
        if self._error is None:
            self._error = error
        while self._readers:
            self._wake_one()

    async def take(self, max_items: int) -> list[Delivery]:
        """Wait for at least one delivery, then return all that are queued, up to `max_items`."""
        while not self._items:
            if self._error is not None:
                raise self._error
            await self._wait()
        items = self._items
        if len(items) <= max_items:
            self._items = deque()
            return list(items)
        return [items.popleft() for _ in range(max_items)]

    async def _wait(self) -> None:
        reader = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        try:
            await reader
        except asyncio.CancelledError:
            # Pass on a wake-up that came together with the cancellation.
            if reader.done() and not reader.cancelled() and self._readers and self._items:
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return
