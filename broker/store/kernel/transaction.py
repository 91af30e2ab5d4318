"""One optimistic transaction: guards that must still hold, and the calls to make if they do.

transaction = Transaction(redis)
transaction.require_field(key, "v", 3)     # nobody has changed it since it was read
transaction.call("HSET", key, "v", 4)
results = await transaction.run()          # None: a guard failed, decide again
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.store.kernel.msgpack import pack, string
from broker.store.kernel.redis_connection import RedisConnection, Word


class CallResult(NamedTuple):
    """The result of a call, by the call's number."""

    call: int


class Transaction:
    """Collects guards and calls; `run` sends both in one script (`scripts/commit.lua`).

    All keys are of one partition, and made by `keys`.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self.keys = redis.keys
        self.routes = redis.routes
        self._redis = redis
        self._guards: list[Sequence[Any]] = []
        self._calls: list[Sequence[Any]] = []
        self._references: list[tuple[int, int]] = []

    def require_absent(self, key: str) -> None:
        """Require that `key` does not exist."""
        self._guards.append(("absent", key))

    def require_present(self, key: str) -> None:
        """Require that `key` exists."""
        self._guards.append(("present", key))

    def require_field(self, key: str, field: str, value: Word) -> None:
        """Require that the hash `key` has `value` in `field`; "" means no such field."""
        self._guards.append(("field", key, field, string(value)))

    def require_score(self, key: str, member: str, score: int) -> None:
        """Require that the sorted set `key` still has `member` at `score`."""
        self._guards.append(("score", key, member, str(score)))

    def require_clear(self, key: str, lat: float, lon: float, metres: float) -> None:
        """Require that none of the open incidents of `key` is so near."""
        self._guards.append(("clear", key, lat, lon, metres))

    def call(self, *words: Word) -> CallResult:
        """Add a call; return a placeholder for its result."""
        self._calls.append([word if type(word) is str else string(word) for word in words])
        return CallResult(len(self._calls))

    def call_with(self, earlier: CallResult, *words: Word) -> CallResult:
        """Add a call whose last word is the result of an earlier one."""
        later = self.call(*words, "")
        self._references.append((earlier.call, later.call))
        return later

    def call_each(self, targets: Sequence[str], command: str, *words: str) -> None:
        """Add one call of `command` for each key of `targets`, the key coming first."""
        self._calls.append((targets, (command, "", *words)))

    def unfile(self, targets: Sequence[str], field: str) -> None:
        """Delete `field` of each hash of `targets`, and the hash when only its marker `#` is left."""
        self._calls.append((targets, ("UNFILE", "", field)))

    async def run(self) -> list[Any] | None:
        """Return the calls' results, or None when a guard failed and nothing was changed."""
        # As one argument: a separate argument for each took a tenth of the time of a commit.
        packed = pack((self._guards, self._calls, self._references))
        answer = await self._redis.script("commit", [self.keys.sequence], [packed])
        return answer[1:] if answer[0] == 1 else None
