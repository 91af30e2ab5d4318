"""Locks at the borders of a partition, and routes of reports that are committed in another."""

from uuid import UUID

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from broker.store.receipt_records import add_route


class PartitionLocks:
    """The borders of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def lock(self, what: str, token: str, lasts_s: float) -> bool:
        """Lock decisions on `what` at this partition's borders for a limited time."""
        transaction, key = Transaction(self._redis), self._keys.border(what)
        transaction.require_absent(key)
        transaction.call("HSET", key, token, 1)
        transaction.call("PEXPIRE", key, int(lasts_s * 1000))
        return await transaction.run() is not None

    async def unlock(self, what: str, token: str) -> None:
        """Release the lock, unless another worker has it already."""
        transaction, key = Transaction(self._redis), self._keys.border(what)
        transaction.require_field(key, token, 1)
        transaction.call("DEL", key)
        await transaction.run()

    async def route(self, report: UUID, region: int) -> None:
        """Record that a report of this partition is committed in `region`'s, and only there."""
        transaction = Transaction(self._redis)
        add_route(transaction, report, region)
        await transaction.run()
