"""Counting what was due: missing, unexpected, ambiguous, and the first examples in words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from verify.oracle.judgement import Judgement

EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class DueCounts:
    """How many were due, and what became of them."""

    expected: int = 0
    missing: int = 0
    unexpected: int = 0
    ambiguous: int = 0


@dataclass
class Count:
    """A tally while it is made; `judgement` hears of each under the invariant that it violates."""

    judgement: Judgement
    missing_is: str
    unexpected_is: str
    expected: int = 0
    missing: int = 0
    unexpected: int = 0
    ambiguous: int = 0
    missed: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    def miss(self, why: Callable[[], str]) -> None:
        """Count one that was due and did not come."""
        self.missing += 1
        why = cache(why)
        self.judgement.lose(self.missing_is, why)
        if len(self.missed) < EXAMPLES:
            self.missed.append(why())

    def refuse(self, why: Callable[[], str]) -> None:
        """Count one that came and cannot have been due."""
        why = cache(why)
        self.judgement.blame(self.unexpected_is, why)
        self._note(why)

    def double(self, why: Callable[[], str]) -> None:
        """Count one that came and had come before."""
        why = cache(why)
        self.judgement.double(self.missing_is, why)
        self._note(why)

    def _note(self, why: Callable[[], str]) -> None:
        self.unexpected += 1
        if len(self.surplus) < EXAMPLES:
            self.surplus.append(why())

    def tally(self) -> DueCounts:
        """Return it as it stands."""
        return DueCounts(self.expected, self.missing, self.unexpected, self.ambiguous)
