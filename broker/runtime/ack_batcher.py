"""Entries of a stream that are done, and are acknowledged together: one fsync for all."""

import asyncio
from collections.abc import Sequence

from broker.runtime.dispatch import Dispatcher
from broker.store import Store

TOGETHER_S = 0.05  # so long entries that are done wait for others


class AckBatcher:
    """The done entries of one partition's stream: acknowledged at once, or together later."""

    def __init__(self, store: Store, dispatcher: Dispatcher) -> None:
        self.store = store
        self._dispatcher = dispatcher
        self._done: list[str] = []
        self._is_done = asyncio.Event()

    async def now(self, identifiers: Sequence[str]) -> None:
        """Acknowledge entries at once."""
        await self.store.events.acknowledge(self._dispatcher.service.name, identifiers)

    async def later(self, identifiers: Sequence[str]) -> None:
        """Have entries acknowledged with the next batch."""
        self._done += identifiers
        self._is_done.set()

    async def run(self) -> None:
        """Acknowledge what is done. After a crash it is handled again, to the same effect."""
        while True:
            await self._is_done.wait()
            await asyncio.sleep(TOGETHER_S)
            self._is_done.clear()
            await self._dispatcher.persist(self.acknowledge)

    async def acknowledge(self) -> None:
        """Acknowledge what waits."""
        some = list(self._done)
        await self.now(some)
        del self._done[: len(some)]
