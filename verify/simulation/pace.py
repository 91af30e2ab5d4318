"""How long a worker's loops rest between their turns: as they say, unless nothing is to be done.

That is why a simulated minute costs milliseconds. While a world's story is told, and as long as
anything waits for somebody, every loop goes at its own pace. Later one that would find everything as
it was rests until something changes or is due.
"""

import asyncio
import math
from collections.abc import Sequence

from broker.store.kernel.keys import Keys
from services import routes
from verify.simulation.redis_model import raw
from verify.simulation.redis_model_server import RedisServer
from verify.simulation.virtual_time import VirtualLoop

BUSY_S = 20.0  # the story and its faults are over
_WAITING_S = 1.0
_SLOWLY_S = 100.0  # what only tidies up, or looks for what others have not done
_SELDOM_S = 400.0
_SELDOM = {"metrics", "probes", "zones"}  # they act on nothing that a world has
_FOR_THE_LOST = {"resend_lost"}  # once all faults are over, no MQTT broker loses anything
_FOR_THE_DEAD = {
    "heartbeat",
    "moved topics",
    "take-over",
}  # once all faults are over, only what is pending counts


class Pace:
    """The pace of all workers of a world."""

    def __init__(self, loop: VirtualLoop, redis: RedisServer, partitions: Sequence[Keys]) -> None:
        self._loop = loop
        self._redis = redis
        self._due = [
            raw(key) for one in partitions for key in (one.deadlines, one.outbox, one.unconfirmed)
        ]
        self._outboxes = [raw(one.outbox) for one in partitions]
        self._streams = [
            raw(one.events(reader)) for one in partitions for reader in routes().readers
        ]
        self._seen: dict[asyncio.Task[object] | None, int] = {}

    async def pause(self, loop: str, seconds: float) -> None:
        """Rest until the next turn of a worker's loop."""
        if loop in _SELDOM or (loop in _FOR_THE_LOST and self._loop.now > BUSY_S):
            await asyncio.sleep(_SELDOM_S)
            return
        await asyncio.sleep(seconds)
        if loop not in _FOR_THE_DEAD:
            await self._until_due()
        elif self._loop.now > BUSY_S:
            await self._until_pending(seconds)

    async def _until_pending(self, seconds: float) -> None:
        ends_at = self._loop.now + _SLOWLY_S
        while self._loop.now < ends_at:
            if self._is_pending():
                await asyncio.sleep(seconds)
                if self._is_pending():
                    return
            await self._changed(ends_at - self._loop.now)

    async def _until_due(self) -> None:
        task = asyncio.current_task()
        ends_at = self._loop.now + (_WAITING_S if self._is_waiting() else _SLOWLY_S)
        while self._loop.now < ends_at and self._seen.get(task) == self._redis.changes:
            due_s = min(ends_at, self._due_at()) - self._loop.now
            if due_s <= 0:
                break
            await self._changed(due_s)
        self._seen[task] = self._redis.changes

    async def _changed(self, within_s: float) -> None:
        await asyncio.wait([self._redis.watch_all()], timeout=within_s)

    def _is_waiting(self) -> bool:
        """Whether anything waits for a reader, of whom operators are told when it is late."""
        return any(self._redis.database.value(key) for key in self._outboxes)

    def _is_pending(self) -> bool:
        return any(
            group.pending
            for key in self._streams
            for group in self._redis.database.stream(key).groups.values()
        )

    def _due_at(self) -> float:
        found = [self._redis.database.value(key) for key in self._due]
        earliest = min((min(scores.values()) for scores in found if scores), default=math.inf)
        return self._loop.now + (earliest / 1000 - self._loop.unix())
