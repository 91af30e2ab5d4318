"""What a replay found: counts, the oracle's verdict, and how long things took."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import PolicyFile
from verify.datasets.report_stream import Stream
from verify.oracle.desk_merging import told_of
from verify.oracle.history import HeardAlert, ReplayHistory
from verify.oracle.oracle import OracleVerdict


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from a report's sending, over all of them; None when there is none."""

    p50_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency":
        """Return the percentiles (nearest rank)."""
        ordered = sorted(seconds)
        if not ordered:
            return cls(None, None)
        return cls(
            round(ordered[(len(ordered) - 1) // 2] * 1_000, 3),
            round(ordered[(len(ordered) - 1) * 99 // 100] * 1_000, 3),
        )


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """One replay in figures. `missing` and `unexpected` are None when nothing was verified.

    `reports` were sent; `rejected` of them refused, `unconfirmed` never answered. `accepted` counts
    confirmed acceptances of alerts. `missing` and `unexpected` sum alerts, escalations and cases,
    each of which stands apart in `verdict`. `unmapped` counts rows by a category no rule knows.
    A message that came again, as QoS 1 allows, is counted once. `merged_apart` are reports that
    joined an incident though in the stream `merge_s` and more lie between them: a report carries
    the present time, so a replay faster than the stream brings them together.
    """

    reports: int
    incidents: int
    merged_apart: int
    alerts: int
    accepted: int
    escalations: int
    cases: int
    rejected: int
    unconfirmed: int
    presences: int
    pauses_cut: int
    replies_rejected: int
    presences_rejected: int
    commands_rejected: int
    missing: int | None
    unexpected: int | None
    duplicates: int | None
    redelivered: int | None
    verdict: OracleVerdict | None
    duration_s: float
    reports_per_s: float
    receipt: Latency
    police: Latency
    alert: Latency
    unmapped: Mapping[str, int]
    skipped: int
    skipped_examples: tuple[str, ...]
    rejected_examples: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything was answered, nothing is missing or unexpected, and merges are right."""
        verdict = self.verdict
        judged = verdict is None or verdict.judgement.passed
        return judged and not (self.rejected or self.unconfirmed)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; what the judgement says stands in the counts and examples."""
        found = asdict(self)
        if self.verdict:
            del found["verdict"]["judgement"]
        return found

    # long: one field a line
    @classmethod
    def of(
        cls,
        history: ReplayHistory,
        stream: Stream,
        verdict: OracleVerdict | None,
        *,
        policy: PolicyFile,
        pauses_cut: int,
        duration_s: float,
        sending_s: float,
        replies_rejected: int,
        presences_rejected: int,
        commands_rejected: int,
    ) -> "ReplayResult":
        """Sum up."""
        refused = [report.rejected for report in history.reports if report.rejected]
        # Of a report for a desk alone the incident is known to the desk.
        opened = {report.incident for report in history.reports if report.merge}
        opened |= {heard.incident for heard in history.escalations}
        opened |= {heard.incident for heard in history.cases}
        return cls(
            reports=len(history.reports),
            incidents=len(opened),
            merged_apart=_merged_apart(history, policy),
            alerts=sum(1 for _ in _first_alerts(history)),
            accepted=len(history.acceptances),
            escalations=len({heard.id for heard in history.escalations}),
            cases=len({heard.id for heard in history.cases}),
            rejected=len(refused),
            unconfirmed=sum(
                1 for each in history.reports if not each.rejected and each.incident is None
            ),
            presences=len(history.presences),
            pauses_cut=pauses_cut,
            replies_rejected=replies_rejected,
            presences_rejected=presences_rejected,
            commands_rejected=commands_rejected,
            missing=verdict.missing if verdict else None,
            unexpected=verdict.unexpected if verdict else None,
            duplicates=verdict.duplicates if verdict else None,
            redelivered=verdict.redelivered if verdict else None,
            verdict=verdict,
            duration_s=round(duration_s, 3),
            reports_per_s=round(len(history.reports) / sending_s, 1) if sending_s > 0.0 else 0.0,
            receipt=Latency.of(
                each.received_at - each.sent_at for each in history.reports if each.incident
            ),
            police=Latency.of(_to_police(history)),
            alert=Latency.of(_to_alert(history)),
            unmapped=stream.unmapped,
            skipped=sum(each.rows for each in stream.skipped),
            skipped_examples=tuple(str(each) for each in stream.skipped[:20]),
            rejected_examples=tuple(
                f"{count} times {reason}" for reason, count in Counter(refused).most_common(20)
            ),
        )


def _to_police(history: ReplayHistory) -> Iterable[float]:
    sent_at = {report.id: report.sent_at for report in history.reports}
    direct = (EscalationKind.NEW, EscalationKind.UPDATE)
    known: set[UUID] = set()
    for heard in history.escalations:
        if heard.kind in direct and heard.report in sent_at and heard.id not in known:
            known.add(heard.id)
            yield heard.t - sent_at[heard.report]


def _to_alert(history: ReplayHistory) -> Iterable[float]:
    """Yield how long alerts of the first wave took that came because a participant was nearby."""
    opened_at = {
        report.incident: report.sent_at
        for report in history.reports
        if report.merge is Merge.OPENED
    }
    sent_at = [opened_at.get(incident) for incident in history.alerts.incidents]
    for alert in _first_alerts(history):
        began_at = sent_at[alert.incident]
        if alert.nearby and alert.wave == 1 and began_at is not None:
            yield alert.received_at - began_at


def _first_alerts(history: ReplayHistory) -> Iterator[HeardAlert]:
    """Yield each alert as it first came to its device."""
    known: set[tuple[int, int]] = set()
    for alert in history.alerts:
        if (alert.user, alert.id) not in known:
            known.add((alert.user, alert.id))
            yield alert


def _merged_apart(history: ReplayHistory, policy: PolicyFile) -> int:
    """Count reports further than `merge_s` from the others of their incident, in the stream."""
    told = told_of(history)
    times: dict[tuple[UUID, str], list[float]] = defaultdict(list)
    for report in history.reports:
        incident = told[report.id].incident if report.id in told else report.incident
        if incident is not None and report.happened_at is not None:
            times[incident, report.category].append(report.happened_at)
    return sum(
        after - before > policy.categories[category].merge_s
        for (_, category), each in times.items()
        for before, after in itertools.pairwise(sorted(each))
    )
