"""What was made good after a loss of the MQTT broker, so that it is made good once."""

from broker.store.redis import Connection
from broker.store.transaction import Transaction

_CLAIM_MS = 5_000


class Outages:
    """What is known of the MQTT broker's memory."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def dropped(self) -> int:
        """Return how many messages the MQTT broker had dropped when we healed the last time."""
        return int(await self._redis.call("GET", self._keys.dropped) or 0)

    async def healed(self, dropped: int) -> None:
        """Record that what was dropped so far has been seen to."""
        await self._redis.call("SET", self._keys.dropped, dropped)

    async def restored_ms(self) -> int:
        """Return when the server that ran was last known to have been given all anew (Unix ms)."""
        return int(await self._redis.call("GET", self._keys.restored) or 0)

    async def restore(self) -> bool:
        """Claim the giving anew, for 5 s from now on; False when another has, who may be dead."""
        return bool(await self._redis.call("SET", self._keys.restoring, 1, "NX", "PX", _CLAIM_MS))

    async def restoring(self) -> None:
        """Hold the claim for 5 s more."""
        await self._redis.call("SET", self._keys.restoring, 1, "PX", _CLAIM_MS)

    async def restored(self, at_ms: int) -> None:
        """Record that the server that ran at `at_ms` has been given all anew; end the claim."""
        transaction = Transaction(self._redis)
        transaction.call("SET", self._keys.restored, at_ms)
        transaction.call("DEL", self._keys.restoring)
        await transaction.run()

    async def witnessed(self, at_ms: int) -> None:
        """Record that the server which runs at `at_ms` is the one that was given all anew."""
        await self._redis.call("SET", self._keys.restored, at_ms)
