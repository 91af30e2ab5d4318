"""Asks for missed messages: after every (re)connection, every 5 minutes, and at a gap.

It asks for what came since the last sync's receipt, by the services' clock, less an overlap for
messages that were under way then. Repeats are dropped by id.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from devices.await_receipt import MessageRejected, NotConfirmed
from devices.device_connection import DeviceConnection, end
from devices.journal import Journal
from schemas.codec import Code
from schemas.messages import Receipt

EVERY_S = 300.0
OVERLAP = timedelta(seconds=30)
FIRST = timedelta(days=1)  # how far back a journal asks that has never synced
RETRY_BASE_S, RETRY_MOST_S = 1.0, 30.0  # after each sync without an answer
_BACK_S = 2.0  # how long services may take to reconnect
_LATE_S = 1.0  # how long a missing event may still come by itself
_GAP_APART_S = 5.0  # how soon after a sync a gap asks again

log = logging.getLogger(__name__)


class DeviceSynchronizer:
    """Keeps one device's journal up to date, while the `async with` lasts.

    `sync` asks the services for what came since a time; `is_missing` says whether a gap is open.
    """

    def __init__(
        self,
        connection: DeviceConnection,
        journal: Journal,
        sync: Callable[[datetime], Awaitable[Receipt]],
        *,
        is_missing: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._sync = sync
        self._is_missing = is_missing
        self._gap: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        name = f"sync {self._journal.path}"
        self._keeper = asyncio.create_task(self._keep_up(), name=name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._keeper)

    def note_gap(self) -> None:
        """Ask soon: an event came, and one before it did not."""
        if self._gap is not None and not self._gap.done():
            self._gap.set_result(None)

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        waits: set[asyncio.Future[Any]]
        while True:
            link = await self._connection.link()
            if self._connection.connections > 1 and await self._lost_after_pause(link.lost):
                continue
            self._gap = gap = loop.create_future()
            asked_at = loop.time()
            if not await self._ask():
                failures = min(failures + 1, 5)
                waits = {link.lost}  # at once if the connection changes
                wait_s = random.uniform(0, min(RETRY_MOST_S, RETRY_BASE_S * 2**failures))
                await asyncio.wait(waits, timeout=wait_s)
                continue
            failures = 0
            await self._until_due(link.lost, gap, asked_at)

    async def _lost_after_pause(self, lost: asyncio.Future[None]) -> bool:
        """Give the services time to reconnect too; return whether the connection is lost again.

        After a restart of the MQTT broker they may not have subscribed yet, and it drops messages
        without a subscriber. The jitter also keeps devices from asking all at once.
        """
        waits: set[asyncio.Future[None]] = {lost}
        await asyncio.wait(waits, timeout=random.uniform(_BACK_S / 2, _BACK_S))
        return lost.done()

    async def _until_due(
        self, lost: asyncio.Future[None], gap: asyncio.Future[None], asked_at: float
    ) -> None:
        """Return when it is time to ask again.

        A missing event may only be late: several workers send events, so they may overtake each other.
        """
        loop = asyncio.get_running_loop()
        await asyncio.wait({lost, gap}, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        while gap.done() and not lost.done():
            apart_s = max(0.0, asked_at + _GAP_APART_S - loop.time())
            await asyncio.wait({lost}, timeout=apart_s + random.uniform(_LATE_S, 2 * _LATE_S))
            if self._is_missing() or lost.done():
                return
            self._gap = gap = loop.create_future()
            left_s = max(0.0, asked_at + EVERY_S - loop.time())
            await asyncio.wait({lost, gap}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    async def _ask(self) -> bool:
        since = self._journal.synced_at or datetime.now(UTC) - FIRST
        try:
            receipt = await self._sync(since - OVERLAP)
        except NotConfirmed:
            return False
        except MessageRejected as error:
            log.warning("%s: sync: %s", self._journal.path, error)
            if error.receipt.code is not Code.TOO_FAR_AHEAD:
                return True
            # Our clock is ahead, or theirs was: next time, ask for the last day by their clock.
            self._journal.note_synced(error.receipt.at - FIRST)
            return False
        self._journal.note_synced(receipt.at)
        return True
