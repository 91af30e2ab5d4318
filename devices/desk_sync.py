"""Asks for what a desk missed: after every (re)connection, and every 5 minutes.

The sync also shows that the zone has a desk: operators are told of a zone that never sent one.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from devices.await_receipt import MessageRejected, NotConfirmed, Receipts, Request, fresh_key
from devices.device_connection import DeviceConnection, end
from schemas.codec import encode
from schemas.messages import DeskSync as Sync

EVERY_S = 300.0
_RETRY_S = 2.0
_TIMEOUT_S = 6  # the services do not answer a sync that is older

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """One zone or municipality of a desk: the topic of its sync, and that of the sync's receipt."""

    sync_topic: str
    receipt_topic: str


class DeskSynchronizer:
    """Keeps a desk up to date in its scopes, while the `async with` lasts.

    `has` returns the ids that the desk has, the newest first, at most 200.
    """

    def __init__(
        self,
        connection: DeviceConnection,
        receipts: Receipts,
        scopes: Sequence[Scope],
        has: Callable[[], Iterable[UUID]],
    ) -> None:
        self._connection = connection
        self._receipts = receipts
        self._scopes = scopes
        self._has = has
        self._keeper: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_up(), name="desk sync")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._keeper)

    async def _keep_up(self) -> None:
        while True:
            link = await self._connection.link()
            answered = [await self._ask(scope) for scope in self._scopes]
            wait_s = EVERY_S if all(answered) else random.uniform(_RETRY_S / 2, _RETRY_S)
            lost: set[asyncio.Future[Any]] = {link.lost}
            await asyncio.wait(lost, timeout=wait_s)

    async def _ask(self, scope: Scope) -> bool:
        request = Request(
            scope.sync_topic,
            encode(Sync(has=frozenset(self._has()))),
            scope.receipt_topic,
            fresh_key(),
            expiry_s=_TIMEOUT_S,
        )
        try:
            await self._receipts.confirmed(request, repeat_after_s=_TIMEOUT_S, timeout_s=_TIMEOUT_S)
        except NotConfirmed:
            log.warning("%s: no answer", scope.sync_topic)
            return False
        except MessageRejected as error:
            log.warning("%s: %s", scope.sync_topic, error)
        return True
