"""What happened in a demonstration, and how long it took."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from schemas.messages import (
    Alert,
    AlertReason,
    Escalation,
    EscalationKind,
    GroupEvent,
    GroupEventKind,
    IncidentState,
    Receipt,
    Report,
    Status,
)
from schemas.taxonomy import Desk
from verify.oracle.observations import CaseSeen


@dataclass(slots=True)
class DemoReport:
    """A report on its way; times are Unix seconds."""

    report: Report
    desk: Desk
    sent_at: float
    receipt: Receipt | None = None
    receipt_at: float = 0.0


@dataclass
class DemoLog:
    """Everything that the devices of a demonstration received."""

    sent: dict[UUID, DemoReport] = field(default_factory=dict)
    escalated_at: dict[UUID, float] = field(default_factory=dict)
    opened: dict[UUID, UUID] = field(default_factory=dict)  # first report → incident, at its desk
    answers: int = 0
    cased: set[UUID] = field(default_factory=set)
    alerted: Counter[UUID] = field(default_factory=Counter)
    nearby: list[tuple[UUID, float]] = field(default_factory=list)
    grouped: set[UUID] = field(default_factory=set)
    accepted: dict[UUID, int] = field(default_factory=dict)
    closed: set[UUID] = field(default_factory=set)
    told: dict[UUID, int] = field(default_factory=dict)  # incident → its last group event
    failures: list[str] = field(default_factory=list)

    # What comes in

    def escalation(self, escalation: Escalation, received_at: float) -> None:
        """The police's desk has it."""
        if escalation.report:
            self.escalated_at.setdefault(escalation.report, received_at)
        if escalation.report and escalation.kind is EscalationKind.NEW:
            self.opened[escalation.report] = escalation.incident
        self.answers += escalation.kind is EscalationKind.ANSWER

    def case(self, case: CaseSeen) -> None:
        """The city's desk has it."""
        self.cased.add(case.report)
        if case.reports == 1:
            self.opened[case.report] = case.incident

    def alert(self, alert: Alert, received_at: float) -> None:
        """A neighbour has an alert."""
        self.alerted[alert.incident] += 1
        if alert.reason is AlertReason.NEARBY:  # those who walk in later are alerted later
            self.nearby.append((alert.incident, received_at))

    def state(self, state: IncidentState) -> None:
        """The police's desk reads how many have accepted so far."""
        before = self.accepted.get(state.incident, 0)
        self.accepted[state.incident] = max(before, state.accepted)
        if state.status is Status.CLOSED:
            self.closed.add(state.incident)

    def group(self, event: GroupEvent) -> bool:
        """A member got this group event; return whether it is the first to get it."""
        if event.kind is GroupEventKind.JOINED and event.member.startswith("helper"):
            self.grouped.add(event.incident)
        elif event.kind is GroupEventKind.CLOSED:
            self.closed.add(event.incident)
        is_new = event.sequence > self.told.get(event.incident, 0)
        if is_new:
            self.told[event.incident] = event.sequence
        return is_new

    # What it comes to

    @property
    def opened_at(self) -> dict[UUID, float]:
        """The time of the first report of each incident."""
        return {
            incident: self.sent[report].sent_at
            for report, incident in self.opened.items()
            if report in self.sent
        }

    @property
    def alerts(self) -> int:
        """How many people were alerted to these incidents."""
        opened = self.opened_at
        return sum(count for incident, count in self.alerted.items() if incident in opened)

    @property
    def accepts(self) -> int:
        """How many people have accepted an alert to these incidents."""
        opened = self.opened_at
        return sum(count for incident, count in self.accepted.items() if incident in opened)

    def missing(self) -> list[str]:
        """Return, in sentences, what should have happened and has not."""
        sent = list(self.sent.values())
        opened = self.opened_at
        counts = {
            "reports have no receipt": sum(one.receipt is None for one in sent),
            "reports did not reach the police": sum(
                one.desk is Desk.POLICE and one.report.id not in self.escalated_at for one in sent
            ),
            "reports did not reach the city": sum(
                one.desk is Desk.CITY and one.report.id not in self.cased for one in sent
            ),
        }
        problems = [f"{count} {what}" for what, count in counts.items() if count]
        if not self.alerts:
            problems.append("nobody was alerted")
        if not self.accepts:
            problems.append("nobody accepted")
        if not self.grouped & opened.keys():
            problems.append("no group was formed")
        elif not self.grouped & self.closed & opened.keys():  # not of the drills before
            problems.append("no group was closed")
        return problems + self.failures

    def summary(self) -> dict[str, int | float | None]:
        """Return counts and latencies, as `nabij demo --json` prints them."""
        opened = self.opened_at
        sent = self.sent
        receipts = [one.receipt_at - one.sent_at for one in sent.values() if one.receipt]
        police = [
            at - sent[report].sent_at for report, at in self.escalated_at.items() if report in sent
        ]
        alerts = [at - opened[incident] for incident, at in self.nearby if incident in opened]
        return {
            "reports": len(sent),
            "incidents": len(opened),
            "city_incidents": sum(
                report in sent and sent[report].desk is Desk.CITY for report in self.opened
            ),
            "escalations": len(police),
            "cases": len(self.cased & sent.keys()),
            "alerts": self.alerts,
            "accepted": self.accepts,
            "groups": len(self.grouped & opened.keys()),
            "closed": len(self.closed & opened.keys()),
            "answers": self.answers,
            **_milliseconds("receipt", receipts),
            **_milliseconds("police", police),
            **_milliseconds("alert", alerts),
        }


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the value that a `share` (0 to 1) of all values do not exceed: nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _milliseconds(name: str, seconds: list[float]) -> dict[str, float | None]:
    shares = {"p50": percentile(seconds, 0.50), "p99": percentile(seconds, 0.99)}
    return {
        f"{name}_{share}_ms": None if value is None else round(value * 1_000, 2)
        for share, value in shares.items()
    }
