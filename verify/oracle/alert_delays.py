"""How long alerts took at each moment of a run, by those that did come.

Where there is more work than processors alerts come late, and one that is due when its incident
closes is never sent. Such a moment is known by the other alerts of that time.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from statistics import median_low

AROUND_S = 15.0  # alerts that fell due so long before or after another one waited in the same queue


class AlertDelays:
    """`alerts` are when each fell due, and when it came."""

    def __init__(self, alerts: Iterable[tuple[float, float]]) -> None:
        self._alerts = sorted(alerts)

    def were_behind(self, due_at: float, ended_at: float) -> bool:
        """Whether most alerts that fell due around `due_at` took longer than until `ended_at`."""
        first = bisect_left(self._alerts, (due_at - AROUND_S,))
        last = bisect_right(self._alerts, (due_at + AROUND_S, float("inf")))
        took_s = [came_at - due for due, came_at in self._alerts[first:last]]
        return bool(took_s) and median_low(took_s) > ended_at - due_at
