"""What the judge asks the store when all is at rest: which reports it has, and what is not done."""

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from broker.store.dead_letters import DeadLetters
from broker.store.desk_alarms import DeskAlarms
from broker.store.kernel.keys import Keys
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.worker_sessions import WorkerStore
from services import ALL, routes
from verify.chaos.chaos_evidence import StoreFacts
from verify.chaos.growth import queue_sizes

_COUNT = 1_000
_LATE_MS = 2_000  # a deadline that passed so long ago ought to have fired


async def facts_of(
    redis: RedisConnection, journals: Path, partitions: Sequence[Keys]
) -> StoreFacts:
    """Return all of it, over all partitions."""
    letters = await DeadLetters(redis).all()
    return StoreFacts(
        reports=await _reports(redis),
        undone=await undone(redis, partitions),
        journals=left_in(journals),
        dead_letters=tuple(letter.payload.decode("utf-8", "replace") for letter in letters),
    )


async def undone(redis: RedisConnection, partitions: Sequence[Keys]) -> dict[str, int]:
    """Return how much is not done, by what it is."""
    found = Counter(await queue_sizes(redis, partitions))
    late_ms = int(time.time() * 1_000) - _LATE_MS
    found["alarms of unattended desks"] += len(await DeskAlarms(redis).alarms())
    for keys in partitions:
        for reader in routes().readers:
            pending = await redis.call("XPENDING", keys.events(reader), reader)
            found[f"pending of {reader}"] += int(pending[0])
        found["deadlines"] += int(await redis.call("ZCOUNT", keys.deadlines, 0, late_ms))
    for service in ALL:
        registered = await WorkerStore(redis).of(service)
        found["sessions of workers that are gone"] += sum(one.is_dead for one in registered)
    return dict(found)


async def _reports(redis: RedisConnection) -> Counter[UUID]:
    reports: Counter[UUID] = Counter()
    cursor = b"0"
    pattern = "nabij:*:reports:*"
    seen: set[bytes] = set()  # SCAN may name a key twice
    while True:
        cursor, found = await redis.call("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        for key in found:
            if key not in seen:
                seen.add(key)
                fields = await redis.call("HKEYS", key.decode())
                reports.update(UUID(field.decode()) for field in fields)
        if int(cursor) == 0:
            return reports


def left_in(journals: Path) -> set[UUID]:
    """Return the ids of the messages that are still in the devices' journals, which are closed."""
    left: set[UUID] = set()
    for path in journals.glob("*.journal"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            left |= {UUID(bytes=row[0]) for row in connection.execute("SELECT id FROM message")}
    return left
