"""Judges the invariants of issue 3 from the logs of devices and desk alone.

Written from docs/protocol.md. It shares no code with the broker: distances, who is near, and what
once means are its own. Where a race leaves two answers right, it accepts both.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from h3.api import basic_int as h3

from schemas.messages import (
    Ask,
    Assign,
    Close,
    EscalationKind,
    GroupEventKind,
    Inform,
    Outcome,
    Receipt,
    Report,
    Status,
    Subject,
)
from schemas.taxonomy import Audience
from verify.simulation.promises import (
    dead_letters_are_the_poison,
    desks_get_what_they_lack,
    history_begins_at_joining,
    members_hear_all,
    operators_know_who_is_not_there,
    sequences_are_one,
    short_alerts_say_no_more,
    slips_are_told,
)
from verify.simulation.simulation_logs import DeviceLog, Logs, SimulatedPresence
from verify.simulation.simulation_privacy import heard_by_desks, heard_of_others, told_of_others
from verify.simulation.virtual_time import EPOCH_S

_EARTH_M = 6_371_007.180918475
_SURE_S = 10.0  # open for so long: all who are near must have been alerted
_CALM_S = 14.0  # from here on every device has been back for a while


@dataclass(frozen=True, slots=True)
class Rules:
    """What the checker must know of the policy."""

    radius_m: dict[str, float]  # of the first wave, by category; 0: nobody is alerted
    most_m: float  # no wave goes farther
    city: frozenset[str]  # categories of the city's desk
    alone: frozenset[str]  # categories of which no participant may know
    alert_if_seen_within_s: float
    unattended_s: float


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    invariant: str
    what: str


@dataclass(slots=True)
class _Incident:
    """What the logs say of one incident."""

    opener: str
    report: Report
    sent_at: float
    surely_at: float  # committed by then
    closed_at: float = math.inf
    reporters: dict[str, float] = field(default_factory=dict)  # and when they first reported it


Judge = Callable[["Checker"], Iterator[str]]


class Checker:
    """The logs of one world, and what they prove."""

    def __init__(self, logs: Logs, rules: Rules) -> None:
        self.logs = logs
        self.rules = rules
        self.receipts: dict[UUID, list[tuple[float, Receipt]]] = defaultdict(list)
        self.reports: dict[UUID, tuple[str, float, Report]] = {}
        for log in logs.devices.values():
            for identifier, (at, report) in log.reports.items():
                self.reports[identifier] = (log.user, at, report)
            for at, receipt in log.receipts:
                if receipt.subject is Subject.REPORT and receipt.id is not None:
                    self.receipts[receipt.id].append((at, receipt))
        self.incidents = self._find_incidents()

    def violations(self) -> list[Violation]:
        """Return every broken promise."""
        return [Violation(name, what) for name, judge in JUDGES.items() for what in judge(self)]

    def _find_incidents(self) -> dict[UUID, _Incident]:
        found: dict[UUID, _Incident] = {}
        seen_at: dict[UUID | None, float] = {}
        for at, escalation in self.logs.desk.escalations:
            seen_at.setdefault(escalation.report, at)
        told = self._told_to_desks()
        for identifier, (user, sent_at, report) in self.reports.items():
            for at, receipt in self.receipts[identifier][:1]:
                incident, number = told.get(identifier, (receipt.incident, 0))
                if incident is not None and (receipt.merge == "opened" or number == 1):
                    surely = min(at, seen_at.get(identifier, at))
                    found[incident] = _Incident(user, report, sent_at, surely)
        for identifier, (user, sent_at, _) in self.reports.items():
            for _, receipt in self.receipts[identifier][:1]:
                incident, _ = told.get(identifier, (receipt.incident, 0))
                if incident in found:
                    known = found[incident].reporters
                    known[user] = min(sent_at, known.get(user, sent_at))
        for incident, at in self._closings():
            if incident in found:
                found[incident].closed_at = min(found[incident].closed_at, at)
        return found

    def _told_to_desks(self) -> dict[UUID, tuple[UUID, int]]:
        """Return of each report for a desk alone its incident, and the how manieth of it."""
        told: dict[UUID, tuple[UUID, int]] = {}
        direct = (EscalationKind.NEW, EscalationKind.UPDATE)
        for _, one in self.logs.desk.escalations:
            if one.report is not None and one.kind in direct and self._is_apart(one.report):
                told[one.report] = (one.incident, one.reports)
        for _, case in self.logs.desk.cases:
            if case.message is None and self._is_apart(case.report):
                told[case.report] = (case.incident, case.reports)
        return told

    def _is_apart(self, report: UUID) -> bool:
        return report in self.reports and self._is_for_desks(self.reports[report][2])

    def _is_for_desks(self, report: Report) -> bool:
        return report.category in self.rules.alone or report.audience is Audience.POLICE

    def _closings(self) -> Iterator[tuple[UUID, float]]:
        for log in self.logs.devices.values():
            for _, event in log.events:
                if event.kind is GroupEventKind.CLOSED:
                    yield event.incident, event.at.timestamp() - EPOCH_S
        for sent_at, order in self.logs.desk.commands.values():
            if isinstance(order, Close):
                yield order.incident, sent_at

    # -- I1, I2, I3 -------------------------------------------------------------------------------

    def receipted_once(self) -> Iterator[str]:
        """I1: every receipted report is in the store, once."""
        sequences: Counter[int] = Counter()
        for identifier, several in self.receipts.items():
            told = {(r.outcome, r.incident, r.merge, r.sequence) for _, r in several}
            if len(told) > 1:
                yield f"report {identifier} has {len(told)} different receipts"
            sequences.update({r.sequence for _, r in several if r.sequence is not None})
        for sequence, count in sequences.items():
            if count > 1:
                yield f"sequence {sequence} was given to {count} reports"
        public = [one for one in self.receipts if not self._is_apart(one)]
        if sorted(sequences) != [*range(1, len(public) + 1)]:  # a gap tells of others' reports
            yield f"{len(public)} reports with a number have the sequences {sorted(sequences)}"

    def journaled_or_receipted(self) -> Iterator[str]:
        """I2: every created report is journaled or receipted; at rest, receipted."""
        for identifier, (user, _, _) in self.reports.items():
            log = self.logs.devices[user]
            if identifier not in self.receipts and identifier not in log.journal:
                yield f"report {identifier} of {user} is nowhere"
        journals = [log.journal for log in self.logs.devices.values()] + [self.logs.desk.journal]
        for journal in journals:
            if journal:
                yield f"{len(journal)} messages were never confirmed: {min(journal)}"

    def one_effect(self) -> Iterator[str]:  # noqa: C901 - one story, told in order
        """I3: one incident effect and one escalation id per report, whatever was redelivered."""
        effects: dict[UUID, set[tuple[UUID, UUID, int]]] = defaultdict(set)
        for _, escalation in self.logs.desk.escalations:
            if escalation.kind in (EscalationKind.NEW, EscalationKind.UPDATE) and escalation.report:
                effect = (escalation.id, escalation.incident, escalation.reports)
                effects[escalation.report].add(effect)
        for _, case in self.logs.desk.cases:
            if case.message is None:
                effects[case.report].add((case.id, case.incident, 0))
        for identifier, found in effects.items():
            if identifier not in self.reports:
                yield f"nobody made report {identifier}"
            if len(found) > 1:
                yield f"report {identifier} had {len(found)} effects"
        for identifier, several in self.receipts.items():
            incidents = {receipt.incident for _, receipt in several}
            if any(o is Outcome.REJECTED for o in (r.outcome for _, r in several)):
                yield f"report {identifier} was rejected: {several[0][1].reason}"
            elif not effects[identifier]:
                yield f"report {identifier} has a receipt and never reached its desk"
            elif self._is_apart(identifier):
                continue
            elif incidents != {incident for _, incident, _ in effects[identifier]}:
                yield f"report {identifier}: its receipt and its desk name different incidents"

        yield from members_hear_all(self.logs, self._openers())
        yield from desks_get_what_they_lack(self.logs)
        yield from operators_know_who_is_not_there(self.logs, self.rules.unattended_s)
        yield from slips_are_told(self.logs, self.receipts)

    def _openers(self) -> dict[UUID, str]:
        """Return who opened each incident that has a group."""
        every = self.incidents.items()
        return {one: it.opener for one, it in every if not self._is_for_desks(it.report)}

    # -- I4, I5 -----------------------------------------------------------------------------------

    def alerted_once(self) -> Iterator[str]:
        """I4: each participant in radius at commit, or coming in, got exactly one alert."""
        for user, log in self.logs.devices.items():
            alerts: dict[UUID, set[UUID]] = defaultdict(set)
            for _, alert in log.alerts:
                alerts[alert.incident].add(alert.id)
            for identifier, several in alerts.items():
                if len(several) > 1:
                    yield f"{user} got {len(several)} alerts of incident {identifier}"
            for identifier, incident in self.incidents.items():
                if identifier not in alerts and self._must_know(log, incident):
                    yield f"{user} was near incident {identifier} and got no alert"

    def _radius_m(self, incident: _Incident) -> float:
        """Return the first wave's radius; 0 for what alerts nobody, or was seen too long ago.

        In a world's few seconds no report is near enough in time to join something so old.
        """
        ago_s = EPOCH_S + incident.sent_at - incident.report.seen_at.timestamp()
        if ago_s > self.rules.alert_if_seen_within_s or self._is_for_desks(incident.report):
            return 0.0
        return self.rules.radius_m[incident.report.category]

    def _must_know(self, log: DeviceLog, incident: _Incident) -> bool:
        radius_m = self._radius_m(incident)
        if not radius_m or log.user in incident.reporters:
            return False
        for placed, until in _in_effect(log.presences):
            since = placed.confirmed_at
            if placed.lat_lon is None or since is None:
                continue
            both = max(since, incident.surely_at)
            forgotten = until.lat_lon is None if until else False
            open_long = incident.closed_at >= max(both + _SURE_S, _CALM_S)
            near = _distance_m(incident.report, placed.lat_lon) < radius_m - 0.5
            if near and both < (until.sent_at if until else math.inf) and open_long:
                return not (forgotten and since <= incident.surely_at)
        return False

    def nobody_else(self) -> Iterator[str]:
        """I5: nobody outside radius or rights got one, nor learned what is another's."""
        owners = {
            several[0][1].incident: (self.reports[identifier][0], identifier)
            for identifier, several in self.receipts.items()
            if self._is_apart(identifier)
        }
        yield from told_of_others(self.receipts, owners)
        yield from heard_of_others(self.logs, owners)
        yield from heard_by_desks(self.logs, owners)
        groups = {one: self.incidents[one].reporters for one in self._openers()}
        yield from history_begins_at_joining(self.logs, groups)
        yield from short_alerts_say_no_more(self.logs)
        for user, log in self.logs.devices.items():
            for at, alert in log.alerts:
                incident = self.incidents.get(alert.incident)
                if incident is None:
                    yield f"{user} was alerted to {alert.incident}, which nobody reported"
                elif not self._radius_m(incident):
                    yield f"{user} was alerted to {alert.incident}, which is not for participants"
                elif user == incident.opener:
                    yield f"{user} was alerted to their own incident {alert.incident}"
                elif not self._may_know(log, incident, at):
                    yield f"{user} was alerted to {alert.incident} and was never near"

    def _may_know(self, log: DeviceLog, incident: _Incident, at: float) -> bool:
        return any(
            placed.lat_lon is not None
            and placed.sent_at <= at
            and _distance_m(incident.report, placed.lat_lon) <= self.rules.most_m + 0.5
            and not (until and until.confirmed_at and until.confirmed_at < incident.sent_at)
            for placed, until in _in_effect(log.presences)
        )

    # -- I7, I8, I10 ------------------------------------------------------------------------------

    def never_back(self) -> Iterator[str]:
        """I7: versions of an incident never go back at any recipient, and the last one stays."""
        newest: dict[UUID, int] = defaultdict(int)
        for _, state in self.logs.desk.states:
            newest[state.incident] = max(newest[state.incident], state.version)
        late = {state.incident: state for state in self.logs.rest.late_states}
        for identifier, incident in self.incidents.items():
            if incident.report.category in self.rules.city:
                continue
            kept = late.get(identifier)
            if kept is None:
                yield f"who subscribes late does not learn of incident {identifier}"
            elif kept.version < newest[identifier] or kept.status is not Status.CLOSED:
                yield f"incident {identifier} stayed at version {kept.version}, {kept.status}"
        yield from sequences_are_one(self.logs)

    def at_rest(self) -> Iterator[str]:
        """I8: pending lists, outbox and deadlines are empty, and so are the dead letters."""
        for what, count in self.logs.rest.left.items():
            if count:
                yield f"{count} left in {what}"
        yield from dead_letters_are_the_poison(self.logs)
        for trouble in self.logs.trouble:
            yield f"trouble: {trouble}"

    def commanded_once(self) -> Iterator[str]:
        """I10: each police command took effect once."""
        receipts: dict[UUID | None, set[tuple[Outcome, object]]] = defaultdict(set)
        for _, receipt in self.logs.desk.receipts:
            receipts[receipt.id].add((receipt.outcome, receipt.code))
        late = {state.incident: state for state in self.logs.rest.late_states}
        for identifier, (_, order) in self.logs.desk.commands.items():
            told = receipts[identifier]
            if len(told) > 1:
                yield f"command {identifier} has {len(told)} different receipts"
            if {outcome for outcome, _ in told} != {Outcome.ACCEPTED}:
                continue
            match order:
                case Inform(text=text):
                    yield from _once(f"inform {identifier}", self._events_saying(text))
                case Ask(text=text):
                    yield from _once(f"question {identifier}", self._questions(text))
                case Assign(unit=unit) if order.incident in late:
                    if late[order.incident].assigned.count(unit) != 1:
                        yield f"unit {unit} is not assigned once"
                case _:
                    pass

    def _events_saying(self, text: str) -> Mapping[UUID, set[UUID]]:
        """Return the ids of the events with this text, in each group or conversation."""
        heard: dict[UUID, set[UUID]] = defaultdict(set)
        for log in self.logs.devices.values():
            for _, event in log.events:
                if event.text == text:
                    heard[event.incident].add(event.id)
        return heard

    def _questions(self, text: str) -> Mapping[UUID, set[UUID]]:
        """Return the ids of the questions with this text, of each report."""
        asked: dict[UUID, set[UUID]] = defaultdict(set)
        for log in self.logs.devices.values():
            for _, question in log.questions:
                if question.text == text:
                    asked[question.report].add(question.id)
        return asked


JUDGES: dict[str, Judge] = {
    "I1": Checker.receipted_once,
    "I2": Checker.journaled_or_receipted,
    "I3": Checker.one_effect,
    "I4": Checker.alerted_once,
    "I5": Checker.nobody_else,
    "I7": Checker.never_back,
    "I8": Checker.at_rest,
    "I10": Checker.commanded_once,
}


def _once(what: str, effects: Mapping[UUID, set[UUID]]) -> Iterator[str]:
    """Tell if it was heard twice, or by nobody; `effects` are the ids that each heard."""
    found = max(map(len, effects.values()), default=0)
    if found != 1:
        yield f"{what} took effect {found} times"


def _in_effect(
    presences: list[SimulatedPresence],
) -> Iterator[tuple[SimulatedPresence, SimulatedPresence | None]]:
    """Each presence and the next one, which ends it."""
    return zip(presences, [*presences[1:], None], strict=True)


def _distance_m(report: Report, lat_lon: tuple[float, float]) -> float:
    """From the report to the centre of the cell of resolution 10 of a participant."""
    lat, lon = h3.cell_to_latlng(h3.latlng_to_cell(*lat_lon, 10))
    a, b = _unit(report.location.lat, report.location.lon), _unit(lat, lon)
    chord = math.sqrt(sum((one - other) ** 2 for one, other in zip(a, b, strict=True)))
    return 2 * _EARTH_M * math.asin(min(1.0, chord / 2))


def _unit(lat: float, lon: float) -> tuple[float, float, float]:
    phi, theta = math.radians(lat), math.radians(lon)
    return math.cos(phi) * math.cos(theta), math.cos(phi) * math.sin(theta), math.sin(phi)
