"""What the judge finds: violations of each invariant, in words, and what was lost or duplicated."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

INVARIANTS = {
    "I1": "every receipted report is in the store, once",
    "I2": "every created report is journaled or receipted",
    "I3": "one incident effect and one escalation (or case) id per report",
    "I4": "everyone in radius got exactly one alert",
    "I5": "nobody outside radius or rights got one",
    "I6": "a receipt holds when Redis is killed in the next millisecond",
    "I7": "versions of an incident never go back at any recipient",
    "I8": "at rest nothing is pending, and dead letters are exactly the injected poison",
    "I9": "no queue and no resident memory grows without bound",
    "I10": "each police command took effect once",
}
EXAMPLES = 5


@dataclass
class Judgement:
    """Violations by invariant. `lost` and `duplicated` count messages over all of them."""

    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    lost: int = 0
    duplicated: int = 0

    def lose(self, invariant: str, what: str) -> None:
        """Something that was promised is not there."""
        self.lost += 1
        self.violations[invariant].append(what)

    def double(self, invariant: str, what: str) -> None:
        """Something happened twice."""
        self.duplicated += 1
        self.violations[invariant].append(what)

    def blame(self, invariant: str, what: str) -> None:
        """Something is wrong that was neither lost nor doubled."""
        self.violations[invariant].append(what)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of violations of each invariant."""
        return {name: len(self.violations.get(name, ())) for name in INVARIANTS}

    @property
    def passed(self) -> bool:
        """Whether nothing at all was found."""
        return not any(self.counts.values())

    def examples(self, invariant: str) -> Sequence[str]:
        """Return a few violations in words."""
        return self.violations.get(invariant, [])[:EXAMPLES]
