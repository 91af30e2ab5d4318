"""What happened to each incident and why: a list of notes, each written with its cause."""

from uuid import UUID

import msgspec

from broker.core.incident_history import Note
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction

MOST = 2_000  # notes of one incident: a crowd that reports and answers must not grow without bound

_ENCODE = msgspec.json.Encoder().encode
_NOTE = msgspec.json.Decoder(Note)


class HistoryStore:
    """The notes of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def of(self, incident: UUID) -> list[Note]:
        """Return the newest `MOST` notes of an incident, the oldest first."""
        rows = await self._redis.call("LRANGE", self._keys.history(incident), 0, -1)
        return [_NOTE.decode(row) for row in rows]


def log(transaction: Transaction, incident: UUID | str, note: Note) -> None:
    """Write `note` with the commit of `transaction`."""
    key = transaction.keys.history(incident)
    transaction.call("RPUSH", key, encoded(note))
    transaction.call("LTRIM", key, -MOST, -1)


def encoded(note: Note) -> bytes:
    """Return `note` as it is stored in the list."""
    return _ENCODE(note)
