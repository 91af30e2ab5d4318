"""Counting what was due: missing, unexpected, ambiguous, and the first examples in words."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
    """A tally while it is made."""

    expected: int = 0
    missing: int = 0
    unexpected: int = 0
    ambiguous: int = 0
    missed: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    def miss(self, why: Callable[[], str]) -> None:
        """Count one that was due and did not come."""
        self.missing += 1
        if len(self.missed) < EXAMPLES:
            self.missed.append(why())

    def refuse(self, why: Callable[[], str]) -> None:
        """Count one that came and cannot have been due."""
        self.unexpected += 1
        if len(self.surplus) < EXAMPLES:
            self.surplus.append(why())

    def tally(self) -> DueCounts:
        """Return it as it stands."""
        return DueCounts(self.expected, self.missing, self.unexpected, self.ambiguous)
