"""The time that a worker goes by: the wall clock, as long as it does not jump."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from broker.core.clock_jumps import (
    AGREE_S,
    GRACE_S,
    SharedTime,
    Timekeeper,
    Turn,
    read,
    started,
    started_from,
)

_log = structlog.get_logger()


def steady_s() -> float:
    """Return seconds that only run: CLOCK_BOOTTIME (counts suspension), else the monotonic clock."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Clock:
    """Reads the wall clock and a steady one together, so that no reading is from after a jump.

    `wall_s` is the wall clock as it is, `monotonic` what deliveries are stamped with (`broker/mqtt`).
    `adopted` has a row for each time that, after the grace, a new time came to count.
    """

    def __init__(
        self,
        wall_s: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_s,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        grace_s: float = GRACE_S,
    ) -> None:
        self.wall_s = wall_s
        self._steady = steady
        self.monotonic = monotonic
        self._grace_s = grace_s
        self._known: Timekeeper = started(wall_s(), steady())
        self._compares = False
        self._others_agree = True
        self.jumps = 0
        self.adopted: list[tuple[float, float]] = []  # until when (Unix s), and by how much

    def seconds(self) -> float:
        """Return Unix seconds."""
        steady = self._steady()
        before = self._known
        self._known, turn = read(
            before,
            self.wall_s(),
            steady,
            grace_s=self._grace_s,
            others_agree=self._others_agree,
        )
        if turn is not Turn.STEADY:
            self._notice(turn, before, steady)
        return steady + self._known.offset_s

    def start_from(self, shared: SharedTime, redis_s: float) -> None:
        """Go by the time of the workers that run, or of Redis, if the wall clock shows another.

        Nothing may have gone by this clock before.
        """
        if abs(shared.seconds - self.seconds()) <= AGREE_S:
            return
        self._known = started_from(shared, self.wall_s(), self._steady(), grace_s=self._grace_s)
        self.compare(redis_s)
        self.jumps += 1
        _log.error(
            "the clock of this host does not show the shared time, which is taken",
            by_s=round(self._known.jump_s, 1),
            what="of Redis" if shared.from_redis else "of the workers that run",
            why="Redis shows the host's" if self.redis_agrees else "Redis does not show the host's",
        )

    @property
    def redis_agrees(self) -> bool:
        """Whether Redis shows what the wall clock shows."""
        return self._others_agree

    @property
    def shared(self) -> SharedTime:
        """What a worker that starts now is to go by."""
        return SharedTime(self.seconds(), self.held_for_s if self._known.jump_s else 0.0)

    def compare(self, other_s: float) -> float:
        """Take in what another host's clock shows; return how far it is from ours."""
        self._compares = True
        self._others_agree = abs(other_s - self.wall_s()) <= AGREE_S
        return other_s - self.seconds()

    def now(self) -> datetime:
        """Return UTC."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    @property
    def held_jump_s(self) -> float:
        """By how much the wall clock has jumped while we keep the time from before; 0: not."""
        self.seconds()
        return self._known.jump_s

    @property
    def held_for_s(self) -> float:
        """How much longer we do."""
        return max(0.0, self._known.jumped_at + self._grace_s - self._steady())

    def _notice(self, turn: Turn, before: Timekeeper, steady: float) -> None:
        if turn is Turn.JUMPED:
            self.jumps += 1
            self._others_agree = not self._compares  # until the next comparison
            _log.error(
                "the wall clock has jumped: the time from before is kept",
                by_s=round(self._known.jump_s, 1),
                for_s=self._grace_s,
            )
        elif turn is Turn.RETURNED:
            _log.error("the wall clock is back", by_s=round(before.jump_s, 1))
        else:
            self.adopted.append((steady + before.offset_s, before.jump_s))
            _log.error("the wall clock's new time counts now", by_s=round(before.jump_s, 1))
