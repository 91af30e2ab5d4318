"""One optimistic transaction: guards that must still hold, and the calls to make if they do.

transaction = Transaction(redis)
transaction.require_field(key, "v", 3)     # nobody has changed it since it was read
transaction.call("HSET", key, "v", 4)
results = await transaction.run()          # None: a guard failed, decide again
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from broker.store.redis import Connection, Word


class Result(NamedTuple):
    """Stands for the result of a call, by its number."""

    call: int


class Transaction:
    """Collects guards and calls; `run` sends both in one script (`scripts/commit.lua`).

    All keys are of one partition, and made by `keys`.
    """

    def __init__(self, redis: Connection) -> None:
        self.keys = redis.keys
        self._redis = redis
        self._guards: list[Word] = []
        self._calls: list[Word] = []
        self._references: list[Word] = []
        self._guard_count = 0
        self._call_count = 0

    def require_absent(self, key: str) -> None:
        """Require that `key` does not exist."""
        self._guard("absent", key)

    def require_present(self, key: str) -> None:
        """Require that `key` exists."""
        self._guard("present", key)

    def require_field(self, key: str, field: str, value: Word) -> None:
        """Require that the hash `key` has `value` in `field`; an empty one: no such field."""
        self._guard("field", key, field, value)

    def require_score(self, key: str, member: str, score: int) -> None:
        """Require that the sorted set `key` still has `member` at `score`."""
        self._guard("score", key, member, score)

    def require_clear(self, key: str, lat: float, lon: float, metres: float) -> None:
        """Require that none of the open incidents of `key` is so near."""
        self._guard("clear", key, lat, lon, metres)

    def _guard(self, *words: Word) -> None:
        self._guard_count += 1
        self._guards.extend(words)

    def call(self, *words: Word) -> Result:
        """Add a call; returns what stands for its result."""
        self._call_count += 1
        self._calls.append(len(words))
        self._calls.extend(words)
        return Result(self._call_count)

    def call_with(self, earlier: Result, *words: Word) -> Result:
        """Add a call whose last word is the result of an earlier one."""
        result = self.call(*words, "")
        self._references += (earlier.call, len(self._calls))
        return result

    def call_each(self, targets: Iterable[str], command: str, *words: Word) -> None:
        """Add one call of `command` for each key of `targets`, the key coming first."""
        self._call_count += 1
        self._calls += (-2 - len(words), " ".join(targets), command, "", *words)

    async def run(self) -> list[Any] | None:
        """Return the calls' results, or None when a guard failed and nothing was changed."""
        words = [
            self._guard_count, *self._guards, self._call_count, len(self._references) // 2,
            *self._references, *self._calls,
        ]  # fmt: skip
        answer = await self._redis.script("commit", [self.keys.sequence], words)
        return answer[1:] if answer[0] == 1 else None
