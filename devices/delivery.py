"""Delivers what a journal holds: from disk, again and again, until the receipt; then it is deleted.

    on disk ──▶ sent ──▶ receipt, accepted or rejected ──▶ deleted
       ▲          │
       └──────────┴── no receipt: again, over reconnections and restarts, for 72 hours

A message is on disk before it is first sent. Repeats wait a second and full jitter, and go in the
order of their making after each new connection. The message's id makes repeats harmless: the
services keep their receipts for 7 days (docs/protocol.md), longer than any journal goes on.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from devices.await_receipt import NotConfirmed, Request, accepted, key_of
from devices.device_connection import DeviceConnection, DeviceLink, Incoming, end, ended
from devices.journal import Journal, OnEntry, UnsentMessage
from schemas.messages import Receipt

LIFETIME = timedelta(hours=72)
RECEIPT_WITHIN_S = 1.0  # before a repeat: sooner, and a slow service gets its load three times over
RETRY_BASE_S = 0.5
RETRY_MOST_S = 30.0
_LOOK_AGAIN_S = 60.0  # for what has expired: a device that slept has no other clock
_ENDED = 256  # receipts that may be repeated, and are told once
_PUBACK_S = 2.0  # so long a message may hold up the ones behind it

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Pending:
    """A message on its way; `due_at` is the event loop's time at which it is sent again."""

    entry: UnsentMessage
    receipt: asyncio.Future[Receipt]
    reminder: asyncio.TimerHandle
    due_at: float = 0.0
    sent: int = 0  # over this connection
    callers: int = 0


class Courier:
    """Brings one device's journal to the services, while the `async with` lasts.

    `on_journaled` gets each new message when it is on disk and not yet sent. `on_unconfirmed` gets
    what has no receipt `unconfirmed_after_s` after it was made, or after the
    restart that found it; `on_expired` what is given up after 72 hours.
    """

    def __init__(
        self,
        connection: DeviceConnection,
        journal: Journal,
        *,
        response_topic: str,
        unconfirmed_after_s: float,
        on_journaled: OnEntry | None = None,
        on_unconfirmed: OnEntry | None = None,
        on_expired: OnEntry | None = None,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._response_topic = response_topic
        self._unconfirmed_after_s = unconfirmed_after_s
        self._on_journaled = on_journaled
        self._on_unconfirmed = on_unconfirmed
        self._on_expired = on_expired
        self._pending: dict[UUID, _Pending] = {}
        self._ended: deque[UUID] = deque(maxlen=_ENDED)
        self._admitting: set[asyncio.Task[_Pending]] = set()
        self._link: DeviceLink | None = None
        self._news: asyncio.Future[None]
        self._walk: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        for entry in await self._journal.entries():
            self._take_on(entry)
        self._walk = loop.create_task(self._deliver(), name=f"courier of {self._journal.path}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._admitting, return_exceptions=True)
        for pending in self._pending.values():
            pending.reminder.cancel()
        self._pending.clear()
        await end(self._walk)

    async def confirmed(self, entry: UnsentMessage) -> Receipt:
        """Keep `entry` on disk, send it, and return its receipt.

        Raises:
            JournalError: it could not be kept, and is not sent.
            NotConfirmed: no receipt within the time; it stays in the journal and is sent again.
            Rejected: the receipt says so.
            ValueError: another message with this id is on its way.
        """
        known = self._pending.get(entry.id)
        if known is not None and known.entry.payload != entry.payload:
            raise ValueError(f"the id {entry.id} is that of another message")
        # Shielded: what is on its way to the disk is sent, though its caller has gone.
        admitting = self._begun(self._admit(entry))
        try:
            async with asyncio.timeout(self._unconfirmed_after_s):
                pending = await asyncio.shield(admitting)
                return accepted(await _awaited(pending))
        except TimeoutError:
            if admitting.done():
                pending = admitting.result()
                if pending.receipt.done():  # in this very moment
                    return accepted(pending.receipt.result())
                asyncio.get_running_loop().call_soon(self._remind, entry.id)
            raise NotConfirmed from None

    def take(self, receipt: Receipt, incoming: Incoming) -> bool:
        """End the message that `receipt` is of; False when it is of no message of this journal."""
        key = key_of(receipt, incoming)
        if key is None:
            return False
        pending = self._pending.pop(key, None)
        if pending is None:
            return key in self._ended  # a repeated receipt is told once
        self._ended.append(key)
        pending.reminder.cancel()
        pending.receipt.set_result(receipt)
        self._journal.remove(key)
        return pending.callers > 0

    def _begun(self, work: Coroutine[Any, Any, _Pending]) -> asyncio.Task[_Pending]:
        task = asyncio.create_task(work, name="into the journal")
        self._admitting.add(task)
        task.add_done_callback(self._admitted)
        return task

    def _admitted(self, task: asyncio.Task[_Pending]) -> None:
        self._admitting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("not kept: %s", error)  # its caller, if still there, is told too

    async def _admit(self, entry: UnsentMessage) -> _Pending:
        await self._journal.add(entry)
        if self._on_journaled:
            self._on_journaled(entry)
        return self._take_on(entry)

    def _take_on(self, entry: UnsentMessage) -> _Pending:
        if known := self._pending.get(entry.id):
            return known
        loop = asyncio.get_running_loop()
        reminder = loop.call_later(self._unconfirmed_after_s, self._remind, entry.id)
        self._pending[entry.id] = pending = _Pending(entry, loop.create_future(), reminder)
        if not self._news.done():
            self._news.set_result(None)
        return pending

    def _remind(self, message: UUID) -> None:
        pending = self._pending.get(message)
        if pending is None or pending.reminder.cancelled():
            return
        pending.reminder.cancel()  # once
        if self._on_unconfirmed:
            self._on_unconfirmed(pending.entry)

    # -- the walk ---------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            self._give_up_expired()
            link = self._connection.current
            if link is not self._link:
                self._link = link
                self._start_over()
            if link is not None:
                await self._send_due(link)
            await self._rest(link)

    def _start_over(self) -> None:
        """Nobody knows what a lost connection has delivered: send all of it again."""
        for pending in self._pending.values():
            pending.due_at, pending.sent = 0.0, 0

    def _give_up_expired(self) -> None:
        oldest = datetime.now(UTC) - LIFETIME
        for pending in [*self._pending.values()]:
            if pending.entry.created_at < oldest:
                self._give_up(pending)

    def _give_up(self, pending: _Pending) -> None:
        entry = pending.entry
        log.error("%s: %s %s expired", self._journal.path, entry.subject, entry.id)
        del self._pending[entry.id]
        pending.reminder.cancel()
        if self._on_expired:
            asyncio.get_running_loop().call_soon(self._on_expired, entry)
        self._journal.remove(entry.id)

    async def _send_due(self, link: DeviceLink) -> None:
        loop = asyncio.get_running_loop()
        for pending in [*self._pending.values()]:
            if link.lost.done():
                return
            if pending.due_at <= loop.time() and not pending.receipt.done():
                outcome = await self._send(pending.entry, link)
                self._note_sent(pending, outcome)

    async def _send(self, entry: UnsentMessage, link: DeviceLink) -> str:
        """Send once, and say what came of it; only a receipt would be news."""
        request = Request(entry.topic, entry.payload, self._response_topic, entry.id)
        sending = asyncio.create_task(request.send(link), name=f"send {entry.id}")
        waits: set[asyncio.Future[Any]] = {sending, link.lost}
        try:
            await asyncio.wait(waits, timeout=_PUBACK_S, return_when=asyncio.FIRST_COMPLETED)
            acknowledged = sending.done()
        finally:
            await ended(sending)
        if not sending.cancelled() and (error := sending.exception()):
            log.error("%s: %s cannot be sent: %r", self._journal.path, entry.id, error)
            return f"{error!r}"
        if link.lost.done():
            return "The connection was lost."
        return "No receipt." if acknowledged else "No PUBACK, no receipt."

    def _note_sent(self, pending: _Pending, outcome: str) -> None:
        pending.sent += 1
        entry = pending.entry
        attempts = entry.attempts + 1
        pending.entry = replace(entry, attempts=attempts, last_error=outcome)
        if pending.receipt.done():
            return
        if attempts > 1:  # most are receipted at once, and spared this write
            self._journal.note_attempt(entry.id, attempts, outcome)
        most_s = min(RETRY_MOST_S, RETRY_BASE_S * 2 ** min(pending.sent - 1, 10))
        wait_s = RECEIPT_WITHIN_S + random.uniform(0, most_s)
        pending.due_at = asyncio.get_running_loop().time() + wait_s

    async def _rest(self, link: DeviceLink | None) -> None:
        """Return when something is due, something new is here, or the connection has changed."""
        loop = asyncio.get_running_loop()
        timeout_s = _LOOK_AGAIN_S
        if link is not None and self._pending:
            soonest = min(pending.due_at for pending in self._pending.values())
            timeout_s = min(timeout_s, max(0.0, soonest - loop.time()))
        changes: set[asyncio.Future[Any]] = {self._news, self._connection.changed}
        if self._connection.current is link:
            await asyncio.wait(changes, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._news.done():
            self._news = loop.create_future()


async def _awaited(pending: _Pending) -> Receipt:
    pending.callers += 1
    try:
        return await asyncio.shield(pending.receipt)
    finally:
        pending.callers -= 1
