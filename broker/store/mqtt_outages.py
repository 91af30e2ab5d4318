"""What was made good after a loss of the MQTT broker, so that it is made good once."""

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction

_CLAIM_MS = 5_000
_LOOK_MS = 10_000


class MqttOutages:
    """What is known of one MQTT broker's memory, of several the one with this number."""

    def __init__(self, redis: RedisConnection, server: int = 0) -> None:
        self._redis = redis
        suffix = f":{server}" if server else ""
        self._dropped = redis.keys.dropped + suffix
        self._restored = redis.keys.restored + suffix
        self._restoring = redis.keys.restoring + suffix
        self._retained = redis.keys.retained + suffix

    def of(self, server: int) -> "MqttOutages":
        """Return the same for another MQTT broker."""
        return MqttOutages(self._redis, server)

    async def dropped(self) -> int:
        """Return how many messages the broker had dropped when alerts were last resent for it."""
        return int(await self._redis.call("GET", self._dropped) or 0)

    async def healed(self, dropped: int) -> None:
        """Record that alerts were resent for what was dropped so far."""
        await self._redis.call("SET", self._dropped, dropped)

    async def restored_ms(self) -> int:
        """Return when the server that ran was last known to have all retained states (Unix ms)."""
        return int(await self._redis.call("GET", self._restored) or 0)

    async def restore(self) -> bool:
        """Claim publishing them again, for 5 s; False when another worker has, which may be dead."""
        return bool(await self._redis.call("SET", self._restoring, 1, "NX", "PX", _CLAIM_MS))

    async def look_for_retained(self) -> bool:
        """Claim the look for retained messages for 10 s; False when another worker has."""
        return bool(await self._redis.call("SET", self._retained, 1, "NX", "PX", _LOOK_MS))

    async def restoring(self) -> None:
        """Hold the claim for 5 s more."""
        await self._redis.call("SET", self._restoring, 1, "PX", _CLAIM_MS)

    async def restored(self, at_ms: int) -> None:
        """Record that the server that ran at `at_ms` has all retained states; end the claim."""
        transaction = Transaction(self._redis)
        transaction.call("SET", self._restored, at_ms)
        transaction.call("DEL", self._restoring)
        await transaction.run()

    async def witnessed(self, at_ms: int) -> None:
        """Record that the server which runs at `at_ms` still has all retained states."""
        await self._redis.call("SET", self._restored, at_ms)
