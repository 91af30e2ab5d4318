"""What a benchmark comes to: figures beside their floors, by rounds, and how they are told."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

_HIGHEST_US = 60_000_000
_DIGITS = 3


class Histogram:
    """Latencies, from seconds, to three significant digits; told in milliseconds."""

    def __init__(self, times_s: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, _HIGHEST_US, _DIGITS)
        for time_s in times_s:
            self.add(time_s)

    def add(self, time_s: float) -> None:
        """Note one latency."""
        self._counts.record_value(min(_HIGHEST_US, max(1, round(time_s * 1e6))))

    def ms(self, percentile: float) -> float:
        """Return the latency (ms) that so many per cent do not exceed."""
        return float(self._counts.get_value_at_percentile(percentile)) / 1000

    def curve(self) -> list[tuple[float, float]]:
        """Return (percentile, ms) from the median to the last, closer and closer."""
        shares = (50, 75, 90, 95, 99, 99.5, 99.9, 100)
        return [(share, self.ms(share)) for share in shares]


class Ratio(NamedTuple):
    """A ratio to its floor: the median over the rounds, and the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ours: Sequence[float], floors: Sequence[float]) -> "Ratio":
        """Return the ratio of what was measured in the same rounds."""
        ratios = [our / floor for our, floor in zip(ours, floors, strict=True)]
        return cls(*(round(one, 2) for one in (median(ratios), min(ratios), max(ratios))))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


class Row(NamedTuple):
    """One line of the table; `goal` is what the ratio, or the figure, should come to."""

    what: str
    ours: str
    floor: str = ""
    ratio: str = ""
    goal: str = ""


class Plot(NamedTuple):
    """Some curves of (x, y) by name."""

    title: str
    x: str
    y: str
    curves: dict[str, list[tuple[float, float]]]


class BenchResult(NamedTuple):
    """All of one benchmark: `keys` for machines, rows and plots for people."""

    name: str
    keys: dict[str, object]
    rows: list[Row]
    plots: list[Plot]
