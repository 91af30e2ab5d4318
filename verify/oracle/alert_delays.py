"""How long alerts took at each moment of a run, by those that did come.

Where there is more work than processors alerts come late, and one that is due when its incident
closes is never sent. Such a moment is known by the other alerts of that moment.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

BEFORE_S = 5.0  # alerts that fell due so long before another one waited for the same work


class AlertDelays:
    """`alerts` are when each fell due, and when it came."""

    def __init__(self, alerts: Iterable[tuple[float, float]]) -> None:
        self._alerts = sorted(alerts)

    def were_behind(self, due_at: float, ended_at: float) -> bool:
        """Whether most alerts that fell due just before `due_at` came only after `ended_at`."""
        first = bisect_left(self._alerts, (due_at - BEFORE_S,))
        last = bisect_right(self._alerts, (due_at, float("inf")))
        late = sum(came_at > ended_at for _, came_at in self._alerts[first:last])
        return 2 * late > last - first
