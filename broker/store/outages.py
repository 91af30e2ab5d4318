"""What was made good after a loss of the MQTT broker, so that it is made good once."""

from broker.store import keys
from broker.store.redis import Connection


class Outages:
    """What is known of the MQTT broker's memory."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis

    async def dropped(self) -> int:
        """Return how many messages the MQTT broker had dropped when we healed the last time."""
        return int(await self._redis.call("GET", keys.DROPPED) or 0)

    async def healed(self, dropped: int) -> None:
        """Record that what was dropped so far has been seen to."""
        await self._redis.call("SET", keys.DROPPED, dropped)

    async def restored_to(self) -> int | None:
        """Return when the server was started (Unix ms) that all was published anew to."""
        started_ms = await self._redis.call("GET", keys.RESTORED)
        return int(started_ms) if started_ms else None

    async def restored(self, started_ms: int) -> None:
        """Record that all was published anew to the server that was started then."""
        await self._redis.call("SET", keys.RESTORED, started_ms)
