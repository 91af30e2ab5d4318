"""When each desk was last heard from, and which have an alarm «unattended»."""

from collections.abc import Collection
from typing import NamedTuple

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from broker.store.outbox_messages import Reader


class Alarm(NamedTuple):
    """Since when a desk is unattended, and when operators were last told (Unix ms)."""

    since_ms: int
    told_ms: int


class DeskAlarms:
    """The desks of the whole city, in its first partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def record_heard(self, desks: Collection[Reader], now_ms: int) -> None:
        """Record that these desks were heard from now."""
        words = [word for desk in desks for word in (str(desk), str(now_ms))]
        if words:
            await self._redis.call("HSET", self._keys.desks_heard, *words)

    async def last_heard(self) -> dict[Reader, int]:
        """Return when each desk was last heard from (Unix ms)."""
        row = await self._redis.call("HGETALL", self._keys.desks_heard)
        return {
            Reader.parse(name.decode()): int(at)
            for name, at in zip(row[::2], row[1::2], strict=True)
        }

    async def alarms(self) -> dict[Reader, Alarm]:
        """Return the present alarms."""
        row = await self._redis.call("HGETALL", self._keys.unattended)
        return {
            Reader.parse(name.decode()): Alarm(*map(int, alarm.split()))
            for name, alarm in zip(row[::2], row[1::2], strict=True)
        }

    async def set_alarm(self, desk: Reader, before: Alarm | None, after: Alarm | None) -> bool:
        """Raise, repeat or end (None) an alarm; False if another worker has since `before`."""
        transaction = Transaction(self._redis)
        name = str(desk)
        known = f"{before.since_ms} {before.told_ms}" if before else ""
        transaction.require_field(self._keys.unattended, name, known)
        if after:
            told = f"{after.since_ms} {after.told_ms}"
            transaction.call("HSET", self._keys.unattended, name, told)
        else:
            transaction.call("HDEL", self._keys.unattended, name)
        return await transaction.run() is not None
