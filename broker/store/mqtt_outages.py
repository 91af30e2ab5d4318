"""What was sent again after a loss of the MQTT broker, so that it is done once."""

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction

_CLAIM_MS = 5_000
_LOOK_MS = 10_000


class MqttOutages:
    """The record of one MQTT broker, by its number."""

    def __init__(self, redis: RedisConnection, server: int = 0) -> None:
        self._redis = redis
        suffix = f":{server}" if server else ""
        self._dropped = redis.keys.dropped + suffix
        self._started = redis.keys.mqtt_started + suffix
        self._restored = redis.keys.restored + suffix
        self._restoring = redis.keys.restoring + suffix
        self._retained = redis.keys.retained + suffix

    def of(self, server: int) -> "MqttOutages":
        """Return the record of another MQTT broker."""
        return MqttOutages(self._redis, server)

    async def dropped(self) -> int:
        """Return how many messages the broker had dropped when alerts were last resent for it."""
        return int(await self._redis.call("GET", self._dropped) or 0)

    async def record_resent(self, dropped: int) -> None:
        """Record that alerts were resent for all messages dropped so far."""
        await self._redis.call("SET", self._dropped, dropped)

    async def started_ms(self) -> int:
        """Return when the server was started, as last recorded (Unix ms); 0: never recorded."""
        return int(await self._redis.call("GET", self._started) or 0)

    async def record_started(self, at_ms: int) -> None:
        """Record when it was started: alerts were resent for what it may have lost then."""
        await self._redis.call("SET", self._started, at_ms)

    async def restored_ms(self) -> int:
        """Return when the server was last known to have all retained states (Unix ms)."""
        return int(await self._redis.call("GET", self._restored) or 0)

    async def restore(self) -> bool:
        """Claim the republishing of all states for 5 s; False if another (perhaps dead) worker has it."""
        return bool(await self._redis.call("SET", self._restoring, 1, "NX", "PX", _CLAIM_MS))

    async def look_for_retained(self) -> bool:
        """Claim the search for retained messages for 10 s; False if another worker has it."""
        return bool(await self._redis.call("SET", self._retained, 1, "NX", "PX", _LOOK_MS))

    async def restoring(self) -> None:
        """Extend the claim by 5 s."""
        await self._redis.call("SET", self._restoring, 1, "PX", _CLAIM_MS)

    async def restored(self, at_ms: int) -> None:
        """Record that the server has all retained states, as of `at_ms`; end the claim."""
        transaction = Transaction(self._redis)
        transaction.call("SET", self._restored, at_ms)
        transaction.call("DEL", self._restoring)
        await transaction.run()

    async def still_restored(self, at_ms: int) -> None:
        """Record that the server still has all retained states, as of `at_ms`."""
        await self._redis.call("SET", self._restored, at_ms)
