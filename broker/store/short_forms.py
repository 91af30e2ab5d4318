"""Users whose (small) device has asked for short alerts too."""

from collections.abc import Mapping, Sequence

from broker.store.kernel.redis_connection import RedisConnection, Word
from schemas.messages import Form

_LIFETIME_MS = 30 * 86_400_000  # after this time it has to ask again


class ShortFormStore:
    """The forms that users want, in the first partition: few want another than the full form."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._key = redis.keys.short_forms

    async def ask(self, forms: Mapping[str, Form], now_ms: int) -> None:
        """Record which form each user asked for."""
        short: list[Word] = []
        for user, form in forms.items():
            if form is Form.SHORT:
                short += (now_ms, user)
        full = [user for user, form in forms.items() if form is Form.FULL]
        if short:
            await self._redis.call("ZADD", self._key, *short)
        if full:
            await self._redis.call("ZREM", self._key, *full)

    async def short(self, users: Sequence[str]) -> frozenset[str]:
        """Return those of `users` who want the short form too."""
        if not users:
            return frozenset()
        asked = await self._redis.call("ZMSCORE", self._key, *users)
        return frozenset(user for user, at in zip(users, asked, strict=True) if at is not None)

    async def forget(self, now_ms: int) -> None:
        """Delete users who have not asked for a month."""
        await self._redis.call("ZREMRANGEBYSCORE", self._key, "-inf", now_ms - _LIFETIME_MS)
