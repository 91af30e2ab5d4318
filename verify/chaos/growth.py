"""I9: what grows without bound, told from samples by a rule that says when it is not sure.

The samples of the second half, of one process without interruption, are cut into four quarters.
Something grows if the median of each quarter is above that of the one before, and the last is
above the first by a fifth and by a floor (20 MB, 1,000 entries). Fewer than 24 samples judge
nobody. A process that was started in the last `WARM_S` before the half is still warming up. Redis
keeps every report for a week, by design, so not its memory is judged, but its streams and outbox;
nor are the desks, who remember all that they were told, since they are the witness.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

from broker.store.kernel.keys import Keys
from broker.store.kernel.redis_connection import RedisConnection
from services import routes

EVERY_S = 0.5
LEAST_SAMPLES = 24
WARM_S = 5.0
GROWTH = 1.2
FLOOR_MB = 20.0
FLOOR_ENTRIES = 1_000
NOT_JUDGED = ("redis", "chaos", "desk")


@dataclass
class Series:
    """Samples of one thing: (time, value)."""

    floor: float
    samples: list[tuple[float, float]] = field(default_factory=list)

    def growth(self, began: float, ended: float) -> str | None:
        """Return how it rose through all of the second half of the run; None: it did not."""
        half = began + (ended - began) / 2
        if not self.samples or self.samples[0][0] > half - WARM_S:
            return None
        values = [value for at, value in self.samples if half <= at <= ended]
        if len(values) < LEAST_SAMPLES:
            return None
        size = len(values) // 4
        quarters = [median(values[size * n : size * (n + 1)]) for n in range(4)]
        rises = all(low < high for low, high in pairwise(quarters))
        if not rises or quarters[3] <= max(quarters[0] * GROWTH, quarters[0] + self.floor):
            return None
        return f"{', '.join(f'{one:.0f}' for one in quarters)} in the quarters of the second half"


class Growth:
    """Collects samples of memory and queues; the memory of `not_judged` is none of its business."""

    def __init__(self, not_judged: Collection[str] = NOT_JUDGED) -> None:
        self._not_judged = not_judged
        self._memory: dict[tuple[str, int], Series] = defaultdict(lambda: Series(FLOOR_MB))
        self._queues: dict[str, Series] = defaultdict(lambda: Series(FLOOR_ENTRIES))

    def memory(self, at: float, processes: dict[str, int]) -> None:
        """Take the resident memory of each process."""
        for name, pid in processes.items():
            resident_mb = resident(pid)
            if resident_mb is not None:
                self._memory[name, pid].samples.append((at, resident_mb))

    def queues(self, at: float, sizes: dict[str, int]) -> None:
        """Take the length of each queue."""
        for name, size in sizes.items():
            self._queues[name].samples.append((at, float(size)))

    def judged(self, began: float, ended: float) -> list[str]:
        """Return what grew without bound, in words."""
        named = [
            *(
                (f"resident memory (MB) of {name}", series)
                for (name, _), series in self._memory.items()
                if name not in self._not_judged
            ),
            *self._queues.items(),
        ]
        return [
            f"{name} grows: {growth}"
            for name, series in named
            if (growth := series.growth(began, ended)) is not None
        ]

    def most_mb(self) -> dict[str, float]:
        """Return the most memory that each process had, in MB."""
        most: dict[str, float] = {}
        for (name, _), series in self._memory.items():
            highest = max(value for _, value in series.samples)
            most[name] = round(max(most.get(name, 0.0), highest), 1)
        return most


async def queue_sizes(redis: RedisConnection, partitions: Sequence[Keys]) -> dict[str, int]:
    """Return the lengths of the streams and of the outboxes, and of what is published again."""
    asked = [
        (what, words)
        for keys in partitions
        for what, words in (
            *((f"stream {reader}", ("XLEN", keys.events(reader))) for reader in routes().readers),
            ("outbox", ("ZCARD", keys.outbox)),
        )
    ]
    sizes: Counter[str] = Counter()
    answers = await redis.calls(words for _, words in asked)
    for (what, _), size in zip(asked, answers, strict=True):
        sizes[what] += int(size)
    return dict(sizes)


def resident(pid: int) -> float | None:
    """Return a process's resident memory in MB, or None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return None
