"""What a proof may find: the invariants that are promised, and which a run violated, in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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
    "I11": "an MQTT broker with a journal loses no session, and nothing that it acknowledged",
}
KEPT = 1_000  # violations of an invariant that are told in words; all are counted
EXAMPLES = 5

Words = str | Callable[[], str]


class Violation(NamedTuple):
    """A promise that was not kept."""

    invariant: str
    what: str


@dataclass
class Judgement:
    """Violations by invariant. `lost` and `duplicated` count messages over all of them.

    What takes long to put into words is given as a function, which is called if it is told.
    """

    violations: dict[str, list[str]] = field(default_factory=dict)
    lost: int = 0
    duplicated: int = 0
    kept: int = KEPT
    _counts: dict[str, int] = field(default_factory=dict)

    def lose(self, invariant: str, what: Words) -> None:
        """Something that was promised is not there."""
        self.lost += 1
        self.blame(invariant, what)

    def double(self, invariant: str, what: Words) -> None:
        """Something happened twice."""
        self.duplicated += 1
        self.blame(invariant, what)

    def blame(self, invariant: str, what: Words) -> None:
        """Something is wrong, whether or not it was lost or doubled."""
        assert invariant in INVARIANTS, invariant
        self._counts[invariant] = self._counts.get(invariant, 0) + 1
        if len(told := self.violations.setdefault(invariant, [])) < self.kept:
            told.append(what if isinstance(what, str) else what())

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the number of violations of each invariant."""
        return {name: self._counts.get(name, 0) for name in INVARIANTS}

    @property
    def passed(self) -> bool:
        """Whether nothing at all was found."""
        return not self._counts

    def all(self) -> list[Violation]:
        """Return every violation that is told in words, invariant by invariant."""
        return [
            Violation(name, what) for name in INVARIANTS for what in self.violations.get(name, ())
        ]

    def examples(self, invariant: str) -> Sequence[str]:
        """Return a few violations in words."""
        return self.violations.get(invariant, [])[:EXAMPLES]
