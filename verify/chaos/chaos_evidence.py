"""All that the judge of chaos knows: the logs, what was struck, and the store at rest."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from verify.chaos.chaos_log import Blow, Entry, JournalAdded, JournalRemoved, Quiet, Started, Tail
from verify.oracle.evidence import Evidence
from verify.oracle.observations import PresenceSent, ReportCreated

_MQTT = "mqtt"  # the victim with whom what is on its way to all devices is lost


@dataclass(kw_only=True)
class StoreFacts:
    """The store at rest: how many incidents hold each report, and what is not done."""

    reports: Counter[UUID] = field(default_factory=Counter)
    undone: dict[str, int] = field(default_factory=dict)
    journals: set[UUID] = field(default_factory=set)
    dead_letters: tuple[str, ...] = ()


@dataclass(kw_only=True)
class ChaosEvidence(Evidence):
    """The logs, read. `process_of` tells which process a user's device lives in.

    `journaled` and `receipted` are what the journals took in, and gave up on a receipt.
    """

    journaled: set[UUID] = field(default_factory=set)
    receipted: set[UUID] = field(default_factory=set)
    started: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    process_of: dict[str, str] = field(default_factory=dict)
    blows: list[Blow] = field(default_factory=list)

    @classmethod
    def read(cls, logs: Path) -> "ChaosEvidence":
        """Read every log in a directory."""
        evidence = cls()
        for path in sorted(logs.glob("*.jsonl")):
            evidence.add(path.stem, Tail(path).entries())
        return evidence

    def add(self, process: str, entries: Iterable[Entry]) -> None:
        """Take in one process's log."""
        for entry in entries:
            match entry:
                case Started():
                    self.started[process].append(entry.t)
                case JournalAdded():
                    self.journaled.add(entry.id)
                case JournalRemoved():
                    self.receipted.add(entry.id)
                case Blow():
                    self.blows.append(entry)
                case ReportCreated() | PresenceSent():
                    self.process_of[entry.user] = process
                    self.take(entry)
                case Quiet():
                    pass
                case _:
                    self.take(entry)

    def kept(self) -> set[UUID]:
        """Return the reports that were on their device's disk, as its log says.

        One whose process was killed before that was never promised to anybody; the next life of
        the process makes another in its place.
        """
        return self.created.keys() & self.journaled

    def untold(self) -> set[UUID]:
        """Return the reports whose receipt the journal saw, and no log.

        A device may die between its receipt and its log, after its journal was told.
        """
        return self.receipted & self.created.keys() - self.receipts.keys()

    def losses_of(self, process: str) -> list[float]:
        """Return when what was on its way to this device process was lost: it, or the MQTT broker."""
        return sorted(
            blow.t
            for blow in self.blows
            if blow.pause_s is None and (blow.victim == _MQTT or blow.process == process)
        )
