"""Which report for a desk alone belongs to which incident: its reporter must not know, the desk does.

The receipts give neither order nor incident, so a report is judged against what was certainly, or
possibly, committed before it. What only the order of two commits decides is right either way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import EscalationKind, Merge
from verify.oracle.coverage import TOLERANCE_M, distance_m
from verify.oracle.history import ReplayHistory, SentReport
from verify.oracle.merging import CLOCK_S, Episode, Merging


class Told(NamedTuple):
    """What a desk was told of a report: its incident, and the how manieth of it."""

    incident: UUID
    reports: int


def told_of(history: ReplayHistory) -> dict[UUID, Told]:
    """Return what the desks were told of each report, the first time."""
    told: dict[UUID, Told] = {}
    for heard in history.escalations:
        if heard.report and heard.kind in (EscalationKind.NEW, EscalationKind.UPDATE):
            told.setdefault(heard.report, Told(heard.incident, heard.reports))
    for case in history.cases:
        told.setdefault(case.report, Told(case.incident, case.reports))
    return told


def follow_told(merging: Merging, reports: Sequence[SentReport], told: Mapping[UUID, Told]) -> None:
    """Add the incidents of these reports to `merging`, and say which cannot be right."""
    apart = [report for report in reports if report.incident is not None]
    for report in apart:
        if report.merge is not None or report.sequence is not None or not _is_its_own(report):
            merging.wrong.append(f"report {report.id}: its receipt tells of other reports")
    for report in apart:
        if report.id not in told:  # nobody watched its desk, or the desk misses it
            merging.note(replace(report, merge=Merge.OPENED), _id(report))
    known = [_as_told(each, told[each.id]) for each in apart if each.id in told]
    for report in (each for each in known if each.merge is Merge.OPENED):
        merging.open(report, _id(report))
    merged = [each for each in known if each.merge is Merge.MERGED]
    for report in merged:
        episode = merging.episodes.get(_id(report))
        if episode is None:
            merging.wrong.append(f"report {report.id}: joins {report.incident}, that none opened")
        else:
            episode.add(report)
    for report in known:
        _judge(merging, report, merging.episodes.get(_id(report)))


def _is_its_own(report: SentReport) -> bool:
    return report.incident is not None and is_opened_by(report.incident, report.id)


def _as_told(report: SentReport, told: Told) -> SentReport:
    merge = Merge.OPENED if told.reports == 1 else Merge.MERGED
    return replace(report, incident=told.incident, merge=merge)


def _id(report: SentReport) -> UUID:
    assert report.incident is not None
    return report.incident


def _judge(merging: Merging, report: SentReport, answer: Episode | None) -> None:
    if answer is None:
        return
    is_first = answer.first.id == report.id
    if not is_first and not _may_join(merging, report, answer):
        merging.wrong.append(f"report {report.id}: joins {answer.id}, and cannot have")
    least_m = float("inf") if is_first else _distance(report, answer)
    for other in merging.candidates(report):
        is_nearer = _distance(report, other) + TOLERANCE_M < least_m
        if other is not answer and is_nearer and _must_join(merging, report, other):
            what = "opens its own" if is_first else f"joins {answer.id}"
            merging.wrong.append(f"report {report.id}: {what}, not joins {other.id}")
            return


def _distance(report: SentReport, episode: Episode) -> float:
    return distance_m(episode.first.lat, episode.first.lon, report.lat, report.lon)


def _may_join(merging: Merging, report: SentReport, episode: Episode) -> bool:
    category = merging.policy.categories[report.category]
    others = [each.seen_at for each in episode.reports if each.id != report.id]
    apart_s = max(min(others) - report.seen_at, report.seen_at - max(others), 0.0)
    return (
        merging.kind_of(report) == merging.kind_of(episode.first)
        and _distance(report, episode) <= category.merge_m + TOLERANCE_M
        and apart_s <= category.merge_s + CLOCK_S
        and episode.first.sent_at < report.received_at
        and episode.open_at(report)[1]
    )


def _must_join(merging: Merging, report: SentReport, episode: Episode) -> bool:
    """Whether it certainly could have: the incident was there, near enough, and open."""
    category, first = merging.policy.categories[report.category], episode.first
    return (
        _distance(report, episode) <= category.merge_m - TOLERANCE_M
        and abs(report.seen_at - first.seen_at) <= category.merge_s - CLOCK_S
        and first.received_at < report.sent_at
        and episode.open_at(report)[0]
    )
