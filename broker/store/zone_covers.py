"""The zones of reports: imported by the operator, read by intake."""

from collections.abc import Sequence
from typing import cast

import msgspec

from broker.core.zones import Zone, ZoneKind
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction


class ZoneStore:
    """The zones, with a version that grows with each import."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def version(self) -> int:
        """Return how often zones were imported."""
        return int(await self._redis.call("GET", self._keys.zones_version) or 0)

    async def save(self, kind: ZoneKind, zones: Sequence[Zone]) -> None:
        """Replace all zones of `kind` in one step; other kinds stay."""
        transaction = Transaction(self._redis)
        for zone in await self.load():
            if zone.kind is kind:
                transaction.call("HDEL", self._keys.zones, f"{zone.kind}:{zone.id}")
        for zone in zones:
            transaction.call(
                "HSET", self._keys.zones, f"{zone.kind}:{zone.id}", msgspec.msgpack.encode(zone)
            )
        transaction.call("INCR", self._keys.zones_version)
        await transaction.run()

    async def load(self) -> list[Zone]:
        """Return every zone, sorted by kind and id."""
        rows = cast("list[bytes]", await self._redis.call("HVALS", self._keys.zones))
        zones = [msgspec.msgpack.decode(row, type=Zone) for row in rows]
        return sorted(zones, key=lambda zone: (zone.kind, zone.id))
