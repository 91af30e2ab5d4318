"""Asks for what was missed: after every (re)connection, every 5 minutes, and at a gap.

The time asked from is that of the last sync's receipt, hence the services' own clock, less an
overlap for what was under way then. Repeats are dropped by id.
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
FIRST = timedelta(days=1)  # asked for by a journal that has never synced
RETRY_BASE_S, RETRY_MOST_S = 1.0, 30.0  # after each time without an answer
_BACK_S = 2.0  # so long services may take to reconnect
_LATE_S = 1.0  # so long what is missing may still come by itself
_GAP_APART_S = 5.0  # so soon after a question, a gap does not ask again

log = logging.getLogger(__name__)


class CatchUp:
    """Keeps one device's journal up to date, while the `async with` lasts.

    `sync` asks the services for what came since; `is_missing` says whether a gap is still open.
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
        self._watch: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        name = f"catch up {self._journal.path}"
        self._watch = asyncio.create_task(self._keep_up(), name=name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._watch)

    def note_gap(self) -> None:
        """Something between what was heard and what is heard now has been missed."""
        if self._gap is not None and not self._gap.done():
            self._gap.set_result(None)

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        waits: set[asyncio.Future[Any]]
        while True:
            link = await self._connection.link()
            if self._connection.connections > 1 and await self._lost_soon(link.lost):
                continue
            self._gap = gap = loop.create_future()
            asked_at = loop.time()
            if not await self._ask():
                failures = min(failures + 1, 5)
                waits = {link.lost}  # unless the connection changes: then at once
                wait_s = random.uniform(0, min(RETRY_MOST_S, RETRY_BASE_S * 2**failures))
                await asyncio.wait(waits, timeout=wait_s)
                continue
            failures = 0
            await self._until_due(link.lost, gap, asked_at)

    async def _lost_soon(self, lost: asyncio.Future[None]) -> bool:
        """Leave the services a moment to come back too; return whether the connection is lost.

        When the MQTT broker has restarted they may not have subscribed yet, and it drops what has
        no subscriber. Nor need all devices ask at once.
        """
        waits: set[asyncio.Future[None]] = {lost}
        await asyncio.wait(waits, timeout=random.uniform(_BACK_S / 2, _BACK_S))
        return lost.done()

    async def _until_due(
        self, lost: asyncio.Future[None], gap: asyncio.Future[None], asked_at: float
    ) -> None:
        """Return when it is time to ask again.

        What is missing may only be late: events go by several workers, and pass each other.
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
            # Our clock is ahead, or theirs was: the last day by theirs, at the next turn.
            self._journal.note_synced(error.receipt.at - FIRST)
            return False
        self._journal.note_synced(receipt.at)
        return True
