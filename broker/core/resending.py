"""When a message that its desk has not confirmed is sent again, and when it still waits to be read.

A desk reads in order. It has lost a message if it confirms what was sent later, by more than the
time that it takes to confirm (as RFC 8985 infers of TCP's segments). Until then another copy would
only make its queue longer. A desk that confirms nothing is sent a few at a time, and fewer the
longer it is silent: copies must not keep a slow one from what it has yet to read. Times are Unix ms.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

LAST_RETRY_MS = 300_000
FIRST_RETRY_MS = 2_000
TURN_MS = 250  # the relay looks so often
GRACE_MS = 3_000  # how long a reader may take to confirm what was just published
_PATIENCE_MS = 60_000
_LEAST_MS = 1_000
_AT_ONCE = 20  # copies in one turn of the relay, at most


class Progress(NamedTuple):
    """How far a desk is: when the latest that it has confirmed was sent, and when it said so.

    `took_ms` is the time in which it last confirmed a message that was sent once.
    """

    sent_ms: int
    at_ms: int
    took_ms: int = 0

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Return the progress whose `str` is `text`."""
        return cls(*map(int, text.split()))

    def after(self, sent_ms: Collection[int], once_ms: Collection[int], now_ms: int) -> "Progress":
        """Return the progress of a desk that confirms messages now.

        They were sent at `sent_ms`, those of `once_ms` only once: of another it is not known which
        copy was read (Karn's rule).
        """
        took_ms = min((abs(now_ms - each) for each in once_ms), default=self.took_ms)
        return Progress(max(sent_ms), now_ms, took_ms)

    def patience_ms(self) -> int:
        """Return how long the desk is waited for."""
        return min(max(self.took_ms, GRACE_MS), _PATIENCE_MS)

    def __str__(self) -> str:
        return f"{self.sent_ms} {self.at_ms} {self.took_ms}"


NEW = Progress(0, 0)


class Pacing:
    """Decides for one turn of the relay; `progress` is that of each desk that ever confirmed."""

    def __init__(self, progress: Mapping[str, Progress], now_ms: int) -> None:
        self._progress = progress
        self._now_ms = now_ms
        self._looked_at: Counter[str] = Counter()

    def sends(self, desk: str, sent_ms: int) -> bool:
        """Whether what was first sent to a desk at `sent_ms` is sent to it again now."""
        if known := self._confirming(desk):
            return sent_ms + known.patience_ms() < known.sent_ms
        self._looked_at[desk] += 1
        return self._looked_at[desk] <= self._at_once(desk)

    def again_after_ms(self, desk: str, late_ms: int) -> int:
        """Return the delay after which what is sent now, overdue by so much, is looked at again."""
        known = self._confirming(desk)
        return max(again_after_ms(late_ms), known.patience_ms() if known else 0)

    def unsent_for_ms(self, desk: str, sent_ms: int, late_ms: int) -> int:
        """Return how long what is not sent now cannot be lost, if its desk goes on as it does.

        Each is looked at once or twice: 10,000 in a queue must not keep the store busy.
        """
        known = self._confirming(desk)
        if known is None:
            turns = self._looked_at[desk] // self._at_once(desk)  # else all come together each time
            return again_after_ms(late_ms) // 2 + turns * TURN_MS
        left_ms = sent_ms + known.patience_ms() - known.sent_ms
        return min(max(left_ms, _LEAST_MS), 2 * _PATIENCE_MS)

    def _at_once(self, desk: str) -> int:
        """Return how many copies a silent desk is sent in one turn."""
        if not (known := self._progress.get(desk)):
            return _AT_ONCE  # it never confirmed: probably nobody has subscribed
        silent_ms = abs(self._now_ms - known.at_ms)
        return max(1, _AT_ONCE * GRACE_MS // max(silent_ms, GRACE_MS))

    def _confirming(self, desk: str) -> Progress | None:
        known = self._progress.get(desk, NEW)
        return known if 0 <= self._now_ms - known.at_ms <= known.patience_ms() else None


def again_after_ms(late_ms: int) -> int:
    """Return the delay before a message that is overdue by so much is sent again.

    `late_ms` is negative if the clock went back.
    """
    return min(LAST_RETRY_MS, max(FIRST_RETRY_MS, abs(late_ms) // 2))
