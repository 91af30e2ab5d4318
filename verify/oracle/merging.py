"""Which report belongs to which incident, derived again from the order of the receipts.

Where rounding or a closing incident leaves it open, every answer that the rules allow is right.
After a wrong one the broker's own answer is taken as it is, so that one error is counted once.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.messages import Merge
from schemas.taxonomy import Audience, PolicyFile, Urgency
from verify.oracle.audiences import effective_audience
from verify.oracle.coverage import EARTH_M, TOLERANCE_M, distance_m, silence
from verify.oracle.history import Deed, SentReport

CLOCK_S = 0.001  # of `seen_at`


@dataclass(eq=False)
class Episode:
    """An incident as the receipts tell it: its reports in the order of their commits."""

    first: SentReport
    audience: Audience
    silence_s: float
    number: int
    earliest_seen: float
    latest_seen: float
    reports: list[SentReport] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        """The incident's id, from its first report's receipt."""
        assert self.first.incident is not None
        return self.first.incident

    def add(self, report: SentReport) -> None:
        """Let `report` join."""
        self.reports.append(report)
        self.earliest_seen = min(self.earliest_seen, report.seen_at)
        self.latest_seen = max(self.latest_seen, report.seen_at)

    def open_until(self) -> tuple[float, float]:
        """Return until when it was certainly open, and until when possibly."""
        activity = [(report.sent_at, report.received_at) for report in self.reports]
        activity += [(deed.sent_at, deed.received_at) for deed in self.deeds]
        return silence(activity, self.silence_s)

    def open_at(self, report: SentReport) -> tuple[bool, bool]:
        """Return whether it was certainly open when `report` was committed, and whether possibly."""
        if report.received_at < self.first.sent_at + self.silence_s - 1.0:
            return True, True
        before = [each for each in self.deeds if each.sent_at < report.received_at]
        activity = [(each.sent_at, each.received_at) for each in self.reports]
        activity += [(deed.sent_at, deed.received_at) for deed in before]
        certain, possible = silence(activity, self.silence_s)
        return report.received_at < certain, report.sent_at < possible


class Merging:
    """Follows the receipts one after another; `wrong` says which cannot be right."""

    def __init__(self, policy: PolicyFile, deeds: Iterable[Deed]) -> None:
        self.wrong: list[str] = []
        self.episodes: dict[UUID, Episode] = {}
        self.policy = policy
        self._deeds: dict[UUID, list[Deed]] = defaultdict(list)
        self._near: dict[tuple[object, ...], list[Episode]] = defaultdict(list)
        for deed in deeds:
            self._deeds[deed.incident].append(deed)

    def follow(self, reports: Sequence[SentReport]) -> None:
        """Take all reports that were accepted, in any order."""
        for report in sorted(reports, key=lambda each: (each.sequence or 0, each.sent_at)):
            if report.incident is not None:
                self._take(report, report.incident)

    def _take(self, report: SentReport, incident: UUID) -> None:
        right = self._right_answers(report)
        answer = self.episodes.get(incident)
        if report.sequence is None or report.merge is None:
            self.wrong.append(f"report {report.id}: its receipt has no sequence or no merge")
        elif (report.merge is Merge.OPENED) != (answer is None):
            known = "exists already" if answer else "does not exist yet"
            self.wrong.append(
                f"report {report.id}: {report.merge}, but incident {incident} {known}"
            )
        elif answer not in right:
            self.wrong.append(f"report {report.id}: {_told(answer)}, not {_told(*right)}")
        if answer is None:
            self.open(report, incident)
        else:
            answer.add(report)

    def open(self, report: SentReport, incident: UUID) -> None:
        """Let `report` open an incident, which others may join."""
        episode = self.note(report, incident)
        self._near[(*self.kind_of(report), *self._square(report))].append(episode)

    def note(self, report: SentReport, incident: UUID) -> Episode:
        """Note an incident; of one that is only noted nothing is known of who else may join it."""
        category = self.policy.categories[report.category]
        timers = self.policy.timers
        urgent = category.urgency is Urgency.URGENT
        episode = Episode(
            first=report,
            audience=effective_audience(report, category),
            silence_s=timers.silence_s if urgent else timers.silence_routine_s,
            number=len(self.episodes),
            earliest_seen=report.seen_at,
            latest_seen=report.seen_at,
            reports=[report],
            deeds=self._deeds.get(incident, []),
        )
        self.episodes[incident] = episode
        return episode

    def _right_answers(self, report: SentReport) -> list[Episode | None]:
        """Return the incidents that `report` may have joined; None stands for one of its own."""
        sure: list[tuple[float, int, Episode]] = []
        unsure: list[tuple[float, int, Episode]] = []
        for episode in self.candidates(report):
            certain, possible, distance = self._joins(report, episode)
            if certain:
                sure.append((distance, episode.number, episode))
            elif possible:
                unsure.append((distance, episode.number, episode))
        if not sure:
            return [None, *(episode for _, _, episode in unsure)]
        nearest, _, best = min(sure, key=lambda each: each[:2])
        alike = [
            episode
            for distance, _, episode in (*sure, *unsure)
            if distance <= nearest + TOLERANCE_M and not _same_place(episode, best)
        ]
        unsure_here = [episode for _, _, episode in unsure if _same_place(episode, best)]
        return [best, *alike, *unsure_here]

    def _joins(self, report: SentReport, episode: Episode) -> tuple[bool, bool, float]:
        category = self.policy.categories[report.category]
        first = episode.first
        distance = distance_m(first.lat, first.lon, report.lat, report.lon)
        apart_s = max(
            episode.earliest_seen - report.seen_at, report.seen_at - episode.latest_seen, 0.0
        )
        if distance > category.merge_m + TOLERANCE_M or apart_s > category.merge_s + CLOCK_S:
            return False, False, distance
        certainly_open, possibly_open = episode.open_at(report)
        certain = (
            certainly_open
            and distance <= category.merge_m - TOLERANCE_M
            and apart_s <= category.merge_s - CLOCK_S
        )
        return certain, possibly_open, distance

    def candidates(self, report: SentReport) -> Iterable[Episode]:
        """Yield the incidents of its kind in its square and those around."""
        kind, (row, column) = self.kind_of(report), self._square(report)
        for north in (-1, 0, 1):
            for east in (-1, 0, 1):
                yield from self._near.get((*kind, row + north, column + east), ())

    def kind_of(self, report: SentReport) -> tuple[object, ...]:
        """Return what two reports of one incident have in common."""
        category = self.policy.categories[report.category]
        return report.category, report.mode, effective_audience(report, category)

    def _square(self, report: SentReport) -> tuple[int, int]:
        """Return a square at least `merge_m` wide up to 75 degrees of latitude (cos = 0.26)."""
        side = math.degrees((self.policy.categories[report.category].merge_m + 1.0) / EARTH_M)
        return math.floor(report.lat / side), math.floor(report.lon / (side * 4.0))


def _same_place(episode: Episode, other: Episode) -> bool:
    return (episode.first.lat, episode.first.lon) == (other.first.lat, other.first.lon)


def _told(*answers: Episode | None) -> str:
    return " or ".join(f"joins {each.id}" if each else "opens its own" for each in answers)
