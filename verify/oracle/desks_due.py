"""Which escalations and cases had to reach which desk, and which did."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from uuid import UUID

from msgspec.structs import replace

from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import Desk, PolicyFile, Urgency
from verify.oracle.counts import Count
from verify.oracle.coverage import CLOCK_S, WAVE_SLACK_S
from verify.oracle.geofence import Geofence
from verify.oracle.history import NEVER, Deed, ReplayHistory, SentReport
from verify.oracle.judgement import Judgement
from verify.oracle.merging import Episode
from verify.oracle.observations import CaseSeen, EscalationSeen


class DeskOracle:
    """The escalations and cases of one history; each `judge_…` fills its count."""

    def __init__(
        self,
        policy: PolicyFile,
        history: ReplayHistory,
        episodes: dict[UUID, Episode],
        judgement: Judgement,
        *,
        settled_at: float,
    ) -> None:
        self.escalations = Count(judgement, missing_is="I3", unexpected_is="I3")
        self.cases = Count(judgement, missing_is="I3", unexpected_is="I3")
        self.redelivered = 0
        self._policy = policy
        self._history = history
        self._episodes = episodes
        self._settled_at = settled_at
        self._unconfirmed = {
            report.id
            for report in history.reports
            if report.incident is None and report.rejected is None
        }
        self._acknowledged: dict[UUID, list[Deed]] = defaultdict(list)
        for deed in history.acknowledgements:
            self._acknowledged[deed.incident].append(deed)

    # -- the police ------------------------------------------------------------------------------

    def judge_escalations(self, zones: Geofence) -> None:
        """Exactly one escalation per report to the police, and those that are overdue."""
        by_report: dict[UUID | None, list[EscalationSeen]] = defaultdict(list)
        overdue: dict[tuple[UUID, int], list[EscalationSeen]] = defaultdict(list)
        for heard in self._once(self._history.escalations):
            if heard.kind == EscalationKind.OVERDUE:
                overdue[heard.incident, heard.attempt].append(heard)
            else:
                by_report[heard.report].append(heard)
        for episode, report in self._reports_to(Desk.POLICE):
            zone = zones.zone_of(episode.first.lat, episode.first.lon)
            heard_here = by_report.pop(report.id, [])
            if self._history.watches(zone):
                self._judge_report(report, zone, heard_here)
        for episode in self._episodes.values():
            zone = zones.zone_of(episode.first.lat, episode.first.lon)
            if self._history.watches(zone):
                self._judge_overdue(episode, zone, overdue)
        for left in (*by_report.values(), *overdue.values()):
            self._refuse_all(left)

    def _once(self, escalations: list[EscalationSeen]) -> Iterator[EscalationSeen]:
        """Yield each message once; the same message again is no news, QoS 1 may do that."""
        known: dict[UUID, EscalationSeen] = {}
        for heard in escalations:
            before = known.setdefault(heard.id, heard)
            if before is heard:
                yield heard
            elif is_same(before, heard):
                self.redelivered += 1
            else:
                self.escalations.refuse(partial(_told, heard, f"has the id of {before.report}'s"))

    def _judge_report(
        self, report: SentReport, zone: str, heard_here: list[EscalationSeen]
    ) -> None:
        self.escalations.expected += 1
        kind = EscalationKind.NEW if report.merge is Merge.OPENED else EscalationKind.UPDATE
        priority = self._policy.categories[report.category].priority
        right = (zone, str(priority), str(kind), report.incident, 1)
        matching = [
            heard
            for heard in heard_here
            if (heard.zone, heard.priority, heard.kind, heard.incident, heard.attempt) == right
        ]
        if not matching:
            self.escalations.miss(
                lambda: f"report {report.id}: no escalation {kind} to {zone}/{priority}"
            )
        for heard in heard_here:
            if heard not in matching[:1]:
                self.escalations.refuse(
                    partial(_told, heard, f"one {kind} to {zone}/{priority} was due")
                )

    def _judge_overdue(
        self,
        episode: Episode,
        zone: str,
        overdue: dict[tuple[UUID, int], list[EscalationSeen]],
    ) -> None:
        category = self._policy.categories[episode.first.category]
        if category.desk is not Desk.POLICE or category.urgency is not Urgency.URGENT:
            return
        for attempt in range(2, self._policy.max_overdue + 2):
            possible_from, certain_from = self._overdue_since(episode, attempt)
            heard_now = overdue.pop((episode.id, attempt), [])
            right = [
                heard
                for heard in heard_now
                if (heard.zone, heard.priority) == (zone, str(category.priority))
                and heard.t >= possible_from
            ][:1]
            self._refuse_all(heard for heard in heard_now if heard not in right)
            if certain_from < self._settled_at:
                self.escalations.expected += 1
                if not right:
                    self.escalations.miss(
                        partial(_told_overdue, episode, attempt, certain_from, zone)
                    )
            elif possible_from < NEVER and right:
                self.escalations.ambiguous += 1

    def _overdue_since(self, episode: Episode, attempt: int) -> tuple[float, float]:
        """Return since when this attempt may be due, and since when it must be (or never)."""
        after_s = (attempt - 1) * self._policy.timers.acknowledge_s
        possible = episode.first.sent_at + after_s - CLOCK_S
        certain = episode.first.received_at + after_s + (attempt - 1) * WAVE_SLACK_S
        deeds = self._acknowledged.get(episode.id, ())
        certainly_open, possibly_open = episode.open_until()
        if min((deed.received_at for deed in deeds), default=possibly_open) < possible:
            possible = NEVER
        if min((deed.sent_at for deed in deeds), default=certainly_open) < certain:
            certain = NEVER
        return possible, certain

    def _refuse_all(self, left: "Iterator[EscalationSeen] | list[EscalationSeen]") -> None:
        for heard in left:
            if heard.report in self._unconfirmed:
                self.escalations.ambiguous += 1
            else:
                self.escalations.refuse(partial(_told, heard, "none was due"))

    # -- the city --------------------------------------------------------------------------------

    def judge_cases(self, municipalities: Geofence) -> None:
        """Exactly one case per report to the city."""
        if not self._history.watches_city:
            return
        by_report: dict[UUID, list[CaseSeen]] = defaultdict(list)
        known: dict[UUID, CaseSeen] = {}
        for heard in self._history.cases:
            before = known.setdefault(heard.id, heard)
            if before is not heard and is_same(before, heard):
                self.redelivered += 1
            else:
                by_report[heard.report].append(heard)
        for episode, report in self._reports_to(Desk.CITY):
            municipality = municipalities.zone_of(episode.first.lat, episode.first.lon)
            self._judge_case(report, municipality, by_report.pop(report.id, []))
        for left in by_report.values():
            for heard in left:
                if heard.report in self._unconfirmed:
                    self.cases.ambiguous += 1
                else:
                    self.cases.refuse(partial(_told_case, heard, "none was due"))

    def _judge_case(
        self, report: SentReport, municipality: str, heard_here: list[CaseSeen]
    ) -> None:
        self.cases.expected += 1
        right = (municipality, report.category, report.incident)
        matching = [
            heard
            for heard in heard_here
            if (heard.municipality, heard.category, heard.incident) == right
        ]
        if not matching:
            self.cases.miss(
                lambda: f"report {report.id}: no case {report.category} to {municipality}"
            )
        for heard in heard_here:
            if heard not in matching[:1]:
                self.cases.refuse(partial(_told_case, heard, f"one to {municipality} was due"))

    def _reports_to(self, desk: Desk) -> Iterator[tuple[Episode, SentReport]]:
        for episode in self._episodes.values():
            if self._policy.categories[episode.first.category].desk is desk:
                for report in episode.reports:
                    yield episode, report


def is_same(one: EscalationSeen | CaseSeen, other: EscalationSeen | CaseSeen) -> bool:
    """Whether it is the same message, which may have come twice."""
    return replace(one, t=other.t) == other


def _told(heard: EscalationSeen, why: str) -> str:
    return (
        f"escalation {heard.id} ({heard.kind}, attempt {heard.attempt}) of report {heard.report}, "
        f"incident {heard.incident}, to {heard.zone}/{heard.priority}: {why}"
    )


def _told_overdue(episode: Episode, attempt: int, since: float, zone: str) -> str:
    return f"incident {episode.id}: no attempt {attempt} to {zone}, due since {since:.3f}"


def _told_case(heard: CaseSeen, why: str) -> str:
    return (
        f"case {heard.id} of report {heard.report}, incident {heard.incident}, "
        f"to {heard.municipality}/{heard.category}: {why}"
    )
