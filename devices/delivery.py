"""Delivers the messages of a journal: sends each until its receipt comes, then deletes it.

    on disk ──▶ sent ──▶ receipt, accepted or rejected ──▶ deleted
       ▲          │
       └──────────┴── no receipt: sent again, across reconnections and restarts, for 72 hours

A message is on disk before it is first sent. A repeat waits one second plus full jitter. After each
new connection all messages are sent again, oldest first. The message's id makes repeats harmless:
the services keep receipts for 7 days (docs/protocol.md), longer than a journal keeps a message.
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
TRIES = 20  # and so often at least: a clock that jumped makes no message old
RECEIPT_WITHIN_S = 1.0  # before a repeat; with less, a slow service gets three times its load
RETRY_BASE_S = 0.5
RETRY_MOST_S = 30.0
_LOOK_AGAIN_S = 60.0  # how often to look for expired messages: a device may have slept
_ENDED = 256  # receipts that may come again, and are passed on once
_PUBACK_S = 2.0  # how long one message may hold up those behind it

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Pending:
    """A message without a receipt; it is sent again at `due_at`, in the event loop's time."""

    entry: UnsentMessage
    receipt: asyncio.Future[Receipt]
    reminder: asyncio.TimerHandle
    due_at: float = 0.0
    sent: int = 0  # over this connection
    callers: int = 0


class JournalDelivery:
    """Delivers one device's journal to the services, while the `async with` lasts.

    `on_journaled` gets each new message when it is on disk and not yet sent. `on_unconfirmed` gets
    what has no receipt `unconfirmed_after_s` after it was made, or after the restart that found it.
    `on_expired` gets what is given up after 72 hours and 20 tries.
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
        self._added: asyncio.Future[None]
        self._delivering: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._added = loop.create_future()
        for entry in await self._journal.entries():
            self._add_pending(entry)
        self._delivering = loop.create_task(self._deliver(), name=f"deliver {self._journal.path}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._admitting, return_exceptions=True)
        for pending in self._pending.values():
            pending.reminder.cancel()
        self._pending.clear()
        await end(self._delivering)

    async def confirmed(self, entry: UnsentMessage) -> Receipt:
        """Keep `entry` on disk, send it, and return its receipt.

        Raises:
            JournalError: it could not be written, and is not sent.
            NotConfirmed: no receipt in time; it stays in the journal and is sent again.
            MessageRejected: the receipt says so.
            ValueError: another message with this id is being sent.
        """
        known = self._pending.get(entry.id)
        if known is not None and known.entry.payload != entry.payload:
            raise ValueError(f"the id {entry.id} is that of another message")
        # Shielded: a message that is being written is also sent, even if its caller has gone.
        admitting = self._started(self._admit(entry))
        try:
            async with asyncio.timeout(self._unconfirmed_after_s):
                pending = await asyncio.shield(admitting)
                return accepted(await _awaited(pending))
        except TimeoutError:
            if admitting.done():
                pending = admitting.result()
                if pending.receipt.done():  # at the same moment
                    return accepted(pending.receipt.result())
                asyncio.get_running_loop().call_soon(self._remind, entry.id)
            raise NotConfirmed from None

    def take(self, receipt: Receipt, incoming: Incoming) -> bool:
        """Delete the message that `receipt` is for; False when it is for none of this journal."""
        key = key_of(receipt, incoming)
        if key is None:
            return False
        pending = self._pending.pop(key, None)
        if pending is None:
            return key in self._ended  # a repeated receipt is passed on once
        self._ended.append(key)
        pending.reminder.cancel()
        pending.receipt.set_result(receipt)
        self._journal.remove(key)
        return pending.callers > 0

    def _started(self, work: Coroutine[Any, Any, _Pending]) -> asyncio.Task[_Pending]:
        task = asyncio.create_task(work, name="into the journal")
        self._admitting.add(task)
        task.add_done_callback(self._admitted)
        return task

    def _admitted(self, task: asyncio.Task[_Pending]) -> None:
        self._admitting.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("not kept: %s", error)  # its caller, if still there, gets the error too

    async def _admit(self, entry: UnsentMessage) -> _Pending:
        await self._journal.add(entry)
        if self._on_journaled:
            self._on_journaled(entry)
        return self._add_pending(entry)

    def _add_pending(self, entry: UnsentMessage) -> _Pending:
        if known := self._pending.get(entry.id):
            return known
        loop = asyncio.get_running_loop()
        reminder = loop.call_later(self._unconfirmed_after_s, self._remind, entry.id)
        self._pending[entry.id] = pending = _Pending(entry, loop.create_future(), reminder)
        if not self._added.done():
            self._added.set_result(None)
        return pending

    def _remind(self, message: UUID) -> None:
        pending = self._pending.get(message)
        if pending is None or pending.reminder.cancelled():
            return
        pending.reminder.cancel()  # once
        if self._on_unconfirmed:
            self._on_unconfirmed(pending.entry)

    # -- delivery ---------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        while True:
            self._give_up_expired()
            link = self._connection.current
            if link is not self._link:
                self._link = link
                self._start_over()
            if link is not None:
                await self._send_due(link)
            await self._until_due(link)

    def _start_over(self) -> None:
        """Mark all messages as due: what the lost connection delivered is unknown."""
        for pending in self._pending.values():
            pending.due_at, pending.sent = 0.0, 0

    def _give_up_expired(self) -> None:
        oldest = datetime.now(UTC) - LIFETIME
        for pending in [*self._pending.values()]:
            if pending.entry.created_at < oldest and pending.entry.attempts >= TRIES:
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
        """Send once, and return the result for the journal; only a receipt ends the message."""
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
        if attempts > 1:  # most get their receipt at once: save this write
            self._journal.note_attempt(entry.id, attempts, outcome)
        most_s = min(RETRY_MOST_S, RETRY_BASE_S * 2 ** min(pending.sent - 1, 10))
        wait_s = RECEIPT_WITHIN_S + random.uniform(0, most_s)
        pending.due_at = asyncio.get_running_loop().time() + wait_s

    async def _until_due(self, link: DeviceLink | None) -> None:
        """Return when a message is due, a message was added, or the connection has changed."""
        loop = asyncio.get_running_loop()
        timeout_s = _LOOK_AGAIN_S
        if link is not None and self._pending:
            soonest = min(pending.due_at for pending in self._pending.values())
            timeout_s = min(timeout_s, max(0.0, soonest - loop.time()))
        changes: set[asyncio.Future[Any]] = {self._added, self._connection.changed}
        if self._connection.current is link:
            await asyncio.wait(changes, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._added.done():
            self._added = loop.create_future()


async def _awaited(pending: _Pending) -> Receipt:
    pending.callers += 1
    try:
        return await asyncio.shield(pending.receipt)
    finally:
        pending.callers -= 1
