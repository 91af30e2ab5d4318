"""Which workers have died: their heartbeat has not changed over several looks, whatever clocks say.

Times of other hosts, or of Redis, are not compared: one that jumps would make the living dead. Who
looks counts its own looks, each some time after the one before; one that did not succeed, because
Redis was away and no worker could write its heartbeat, makes all that was seen before worth nothing.
"""

import asyncio
from collections.abc import Hashable, Mapping

DEAD_LOOKS = 5
_MOST_PATIENCE = 4  # a session that could not be taken over waits up to 2⁴ times as long


class Liveness:
    """What one worker has seen of the others, by name."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, int]] = {}
        self._has_moved: set[str] = set()
        self._failures: dict[str, int] = {}

    def look(self, signs: Mapping[str, Hashable]) -> None:
        """Take in each worker's last heartbeat."""
        before, self._seen = self._seen, {}
        for name, sign in signs.items():
            known, looks = before.get(name, (None, 0))
            if name in before and known != sign:
                self._has_moved.add(name)
            self._seen[name] = (sign, looks + 1 if known == sign else 0)
        self._has_moved &= signs.keys()

    def forget(self) -> None:
        """Nothing can be told from what was seen: Redis was away."""
        self._seen.clear()
        self._has_moved.clear()

    def is_alive(self, name: str) -> bool:
        """Whether its heartbeat has changed while we looked."""
        return name in self._has_moved and self._looks(name) < DEAD_LOOKS

    def is_dead(self, name: str) -> bool:
        """Whether it has given none for long enough."""
        patience = min(self._failures.get(name, 0), _MOST_PATIENCE)
        return self._looks(name) >= DEAD_LOOKS << patience

    def failed(self, name: str) -> None:
        """Its session could not be taken over, perhaps because it lives: wait longer."""
        self._failures[name] = self._failures.get(name, 0) + 1

    def forgive(self) -> None:
        """What failed may have failed for another reason, which has passed."""
        self._failures.clear()

    def _looks(self, name: str) -> int:
        return self._seen.get(name, (None, 0))[1]


class Lease:
    """How long the other workers are sure to hold us alive, by the clock of our event loop.

    Without Redis we give no heartbeat, and another worker may take over our MQTT session. Then
    we must not take it back: both would connect under the same client id forever, and handle
    nothing.
    """

    def __init__(self) -> None:
        self._ends_at = 0.0
        self._renewed = asyncio.Event()

    def renew(self, *, given_at: float, look_s: float) -> None:
        """Our heartbeat was written at `given_at` at the earliest; the others look each `look_s`."""
        self._ends_at = given_at + (DEAD_LOOKS - 1) * look_s
        self._renewed.set()

    @property
    def has_ended(self) -> bool:
        """Whether another worker may have taken our sessions over."""
        return asyncio.get_running_loop().time() >= self._ends_at

    async def held(self) -> None:
        """Return when the others hold us alive, at once if they do."""
        while self.has_ended:
            self._renewed.clear()
            await self._renewed.wait()
