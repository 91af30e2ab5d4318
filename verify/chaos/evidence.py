"""All that the judge knows: the logs of devices and desks, what was struck, the store at rest."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from schemas.messages import Outcome, Subject
from verify.chaos.chaos_log import (
    AlertSeen,
    Asked,
    Cased,
    Commanded,
    Created,
    Delivered,
    Entry,
    Escalated,
    Grouped,
    Journaled,
    MessageSent,
    Moved,
    Ordered,
    PresenceConfirmed,
    ProcessStruck,
    Receipted,
    Retained,
    Started,
    Stated,
    Tail,
)
from verify.chaos.plan import Victim


@dataclass(frozen=True, slots=True)
class Blow:
    """A strike that fell, at `t` (Unix time); `process` is the name of the process that it hit."""

    t: float
    victim: str  # as in a Strike
    process: str
    pause_s: float | None = None


@dataclass(kw_only=True)
class StoreFacts:
    """The store at rest: how many incidents hold each report, and what is not done."""

    reports: Counter[UUID] = field(default_factory=Counter)
    undone: dict[str, int] = field(default_factory=dict)
    journals: set[UUID] = field(default_factory=set)
    dead_letters: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Evidence:
    """The logs, read. `process_of` tells which process a user's device lives in."""

    created: dict[UUID, Created] = field(default_factory=dict)
    journaled: set[UUID] = field(default_factory=set)
    delivered: set[UUID] = field(default_factory=set)
    receipts: dict[UUID, list[Receipted]] = field(default_factory=lambda: defaultdict(list))
    sent: list[MessageSent] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    placed: dict[tuple[str, int], float] = field(default_factory=dict)
    alerts: list[AlertSeen] = field(default_factory=list)
    groups: list[Grouped] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    escalations: list[Escalated] = field(default_factory=list)
    states: list[Stated] = field(default_factory=list)
    retained: list[Retained] = field(default_factory=list)
    commands: dict[UUID, Commanded] = field(default_factory=dict)
    orders: dict[UUID, list[Ordered]] = field(default_factory=lambda: defaultdict(list))
    cases: list[Cased] = field(default_factory=list)
    started: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    process_of: dict[str, str] = field(default_factory=dict)
    struck: list[ProcessStruck] = field(default_factory=list)

    def losses_of(self, process: str) -> list[float]:
        """Return when what was on its way to this device process was lost: it, or the MQTT broker."""
        return sorted(
            blow.t
            for blow in self.struck
            if blow.pause_s is None and (blow.victim == Victim.MQTT or blow.process == process)
        )

    @classmethod
    def read(cls, logs: Path) -> "Evidence":
        """Read every log in a directory."""
        evidence = cls()
        for path in sorted(logs.glob("*.jsonl")):
            evidence.add(path.stem, Tail(path).entries())
        return evidence

    def add(self, process: str, entries: Iterable[Entry]) -> None:
        """Take in one process's log."""
        for entry in entries:
            self._take(process, entry)

    def _take(self, process: str, entry: Entry) -> None:  # noqa: C901, PLR0912 - a row per kind
        match entry:
            case Started():
                self.started[process].append(entry.t)
            case Created():
                self.created[entry.id] = entry
                self.process_of[entry.user] = process
            case Journaled():
                self.journaled.add(entry.id)
            case Delivered():
                self.delivered.add(entry.id)
            case Receipted(subject=Subject.REPORT):
                self.receipts[entry.id].append(entry)
            case MessageSent():
                self.sent.append(entry)
            case Moved():
                self.moved.append(entry)
                self.process_of[entry.user] = process
            case PresenceConfirmed():
                self.placed[entry.user, entry.number] = entry.t
            case AlertSeen():
                self.alerts.append(entry)
            case Grouped():
                self.groups.append(entry)
            case Asked():
                self.asked.append(entry)
            case Escalated():
                self.escalations.append(entry)
            case Stated():
                self.states.append(entry)
            case Retained():
                self.retained.append(entry)
            case Commanded():
                self.commands[entry.id] = entry
            case Ordered():
                self.orders[entry.id].append(entry)
            case Cased():
                self.cases.append(entry)
            case ProcessStruck():
                self.struck.append(entry)
            case _:
                pass

    def kept(self) -> set[UUID]:
        """Return the reports that were on their device's disk, as its log says.

        One whose process was killed before that was never promised to anybody; the next life of
        the process makes another in its place.
        """
        return self.created.keys() & self.journaled

    def accepted(self) -> dict[UUID, Receipted]:
        """Return the first receipt of each report that was accepted."""
        return {
            report: receipts[0]
            for report, receipts in self.receipts.items()
            if receipts[0].outcome is Outcome.ACCEPTED
        }
