"""I4 and I5: who had to be alerted, who may have been, and who was; from the logs of a run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.ids import alert_id, incident_id, without_region
from schemas.messages import GroupEventKind, Merge, Outcome, ReplyKind, Subject
from schemas.taxonomy import Audience, PolicyFile
from verify.oracle.audiences import effective_audience
from verify.oracle.coverage import (
    WAVE_SLACK_S,
    Helping,
    Stay,
    Wave,
    first_radius_m,
    helping_of,
    waves_of,
)
from verify.oracle.evidence import Evidence
from verify.oracle.history import NEVER, Deed, SentPresence
from verify.oracle.judgement import Judgement
from verify.oracle.observations import ReceiptSeen, ReportCreated
from verify.oracle.recipients_due import AlertingIncident, Near, due, why

# A participant who comes near an incident so shortly before it closes need not be alerted any more,
# and one who reports it so shortly after coming near was not yet: an alert may wait for a restart.
# When the MQTT broker or the device's process is killed, it may wait so long from then. Nor need one
# who was there, and hides or leaves so shortly after: when alerting is back, it does not find them.
GRACE_S = 15.0


@dataclass(eq=False)
class JudgedIncident:
    """One incident as receipts tell it: `opened` and `closed` are when sent and when confirmed."""

    first: ReportCreated
    opened: tuple[float, float]
    closed: tuple[float, float] = (NEVER, NEVER)
    reporters: dict[str, tuple[float, float]] = field(default_factory=dict)

    def close(self, sent_at: float, done: float) -> None:
        """Note that something closes it, sent and done then; what comes first does."""
        self.closed = (min(self.closed[0], sent_at), min(self.closed[1], done))


def judge_alerts(
    evidence: Evidence,
    policy: PolicyFile,
    judgement: Judgement,
    *,
    settled_at: float,
    losses: Mapping[str, Sequence[float]],
) -> None:
    """Compare every alert with every incident; only what was certain by `settled_at` is missed.

    `losses` is when what was on its way to each user's device was lost.
    """
    got = _got(evidence, judgement)
    court = _Court(evidence, policy, settled_at, losses)
    for incident, case in _cases(evidence).items():
        alerting = court.alerting(incident, case)
        must, may = court.due(alerting, case)
        heard = got.pop(incident, set())
        for user in sorted(must - heard):
            judgement.lose("I4", court.why(user, "was not alerted", alerting))
        for user in sorted(heard - may):
            judgement.blame("I5", court.why(user, "was alerted", alerting))
    unsure = {incident_id(each) for each in evidence.created if each not in evidence.receipts}
    for incident, strangers in got.items():
        if without_region(incident) not in unsure:
            judgement.blame("I5", f"{len(strangers)} people were alerted to {incident}: no report")


class _Court:
    """What all incidents of a run are judged by."""

    def __init__(
        self,
        evidence: Evidence,
        policy: PolicyFile,
        settled_at: float,
        losses: Mapping[str, Sequence[float]],
    ) -> None:
        self._policy = policy
        self._settled_at = settled_at
        self._losses = losses
        rows = sorted(evidence.presences.values(), key=lambda each: each.t)
        self._users = sorted({each.user for each in rows})
        self._numbers = {user: number for number, user in enumerate(self._users)}
        self._short = {each.user: each.t for each in reversed(rows) if each.short}
        self._near = Near(
            [
                SentPresence(self._numbers[each.user], each.cell, each.t, _done(each.done))
                for each in rows
            ],
            policy,
        )
        self._helping = _helping(evidence)
        self._seen = _waves_seen(evidence)

    def alerting(self, incident: UUID, case: JudgedIncident) -> AlertingIncident:
        """Return the incident as far as alerts go."""
        closed = case.closed[0]
        return AlertingIncident(
            name=f"{case.first.category} {incident}",
            lat=case.first.lat,
            lon=case.first.lon,
            opened=case.opened,
            waves=self._waves(incident, case),
            reporters={
                self._numbers[user]: when
                for user, when in case.reporters.items()
                if user in self._numbers
            },
            certain_until=min(closed, self._settled_at),
            possible_until=case.closed[1],
        )

    def due(self, alerting: AlertingIncident, case: JudgedIncident) -> tuple[set[str], set[str]]:
        """Return who must, and who may have been alerted."""
        closed = case.closed[0]

        def is_excused(stay: Stay, within: float, since: float) -> bool:
            if stay.possible_from < within and stay.certain_until < since + GRACE_S:
                return True
            if closed >= self._settled_at:
                return False
            lost = self._losses.get(self._users[stay.user], ())
            return since >= undisturbed(closed, lost)

        must, may = due(alerting, self._near, reporter_grace_s=GRACE_S, is_excused=is_excused)
        return {self._users[one] for one in must}, {self._users[one] for one in may}

    def why(self, user: str, what: str, alerting: AlertingIncident) -> str:
        """Say all that decides whether this user is alerted, so that nobody has to look again."""
        told = [f"{user} {what} to {alerting.name}"]
        if user in self._numbers:
            told.append(why(self._numbers[user], alerting, self._near))
        else:
            told.append(f"opened {alerting.opened[0]:.3f}; never said where they are")
        began = alerting.opened[0]
        form = "full"
        if user in self._short:
            form = f"short since {self._short[user] - began:+.3f} s"
        told.append(f"hears alerts in {form}")
        lost = [f"{at - began:+.3f} s" for at in self._losses.get(user, ()) if at > began - GRACE_S]
        if lost:
            told.append(f"what was on its way to them was lost at {', '.join(lost[:5])}")
        return "; ".join(told)

    def _waves(self, incident: UUID, case: JudgedIncident) -> list[Wave]:
        policy, first = self._policy, case.first
        category = policy.categories.get(first.category)
        if category is None:  # accepted though it is poison, which I1 tells
            return []
        within_s = category.alert_if_seen_within_s or policy.timers.alert_if_seen_within_s
        is_old = first.t - first.seen_at > within_s  # none that is fresh joins it in these runs
        is_open_to_all = effective_audience(first, category) is Audience.POLICE_AND_NEARBY
        radius_m = first_radius_m(category, 0.0, policy)  # these devices are exact
        if radius_m == 0 or is_old or not is_open_to_all:
            return []
        return waves_of(
            radius_m=radius_m,
            opened=case.opened,
            helping=self._helping.get(incident, ()),
            seen=self._seen.get(incident, {}),
            possible_until=case.closed[1],
            policy=policy,
        )


def _done(at: float | None) -> float:
    return NEVER if at is None else at


def _got(evidence: Evidence, judgement: Judgement) -> dict[UUID, set[str]]:
    """Return who was alerted to each incident; a second id to the same person is a second alert."""
    got: dict[UUID, set[str]] = defaultdict(set)
    ids: dict[tuple[UUID, str], UUID] = {}
    for alert in evidence.alerts:
        if alert.wave and alert.id != alert_id(alert.incident, alert.wave):
            judgement.blame("I4", f"the alert {alert.id} of {alert.user} has an id of no rule")
        known = ids.setdefault((alert.incident, alert.user), alert.id)
        if known != alert.id:
            judgement.double("I4", f"{alert.user} was alerted to {alert.incident} twice")
        got[alert.incident].add(alert.user)
    return got


def _helping(evidence: Evidence) -> dict[UUID, list[Helping]]:
    """Return what keeps the radius as it is: a participant helps, or the police are on the scene."""
    helping: dict[UUID, list[Helping]] = defaultdict(list)
    replies = [each for each in evidence.sent.values() if each.subject is Subject.REPLY]
    numbers = {user: number for number, user in enumerate({each.user for each in replies})}
    deeds: dict[ReplyKind | None, list[Deed]] = defaultdict(list)
    for each in replies:
        deed = Deed(each.incident, each.t, _done(each.done), numbers[each.user])
        deeds[each.reply].append(deed)
    gone = [*deeds[ReplyKind.LEFT], *deeds[ReplyKind.DECLINED]]
    for incident, one in helping_of(deeds[ReplyKind.ACCEPTED], gone):
        helping[incident].append(one)
    for identifier, command in evidence.commands.items():
        if command.command == "setstatus":  # these desks set no status but on_scene
            done = _accepted_at(evidence, identifier)
            helping[command.incident].append(Helping(command.t, done))
    return helping


def _accepted_at(evidence: Evidence, command: UUID) -> float:
    answers = evidence.orders.get(command, ())
    return min((each.t for each in answers if each.outcome is Outcome.ACCEPTED), default=NEVER)


def _waves_seen(evidence: Evidence) -> dict[UUID, dict[int, float]]:
    seen: dict[UUID, dict[int, float]] = defaultdict(dict)
    for alert in evidence.alerts:
        if not alert.wave:
            continue  # it came in short
        waves = seen[alert.incident]
        waves[alert.wave] = min(alert.t, waves.get(alert.wave, NEVER))
    return seen


def _cases(evidence: Evidence) -> dict[UUID, JudgedIncident]:
    receipts = evidence.accepted()
    cases: dict[UUID, JudgedIncident] = {}
    for report, receipt in receipts.items():
        if receipt.merge is Merge.OPENED and receipt.incident and report in evidence.created:
            created = evidence.created[report]
            cases[receipt.incident] = JudgedIncident(created, (created.t, receipt.t))
    for report, receipt in receipts.items():
        case = cases.get(receipt.incident) if receipt.incident else None
        if case is not None and report in evidence.created:
            _add_reporter(case, evidence.created[report], receipt)
    for identifier, command in evidence.commands.items():
        if command.command == "close" and command.incident in cases:
            cases[command.incident].close(command.t, _accepted_at(evidence, identifier))
    for event in evidence.groups:
        if event.kind is GroupEventKind.CLOSED and event.incident in cases:
            cases[event.incident].close(event.at, event.at + WAVE_SLACK_S)
    return cases


def _add_reporter(case: JudgedIncident, created: ReportCreated, receipt: ReceiptSeen) -> None:
    if created.id == case.first.id:
        case.reporters[created.user] = (-NEVER, -NEVER)
        return
    known = case.reporters.get(created.user, (NEVER, NEVER))
    case.reporters[created.user] = (min(known[0], created.t), min(known[1], receipt.t))


def undisturbed(end: float, losses: Sequence[float]) -> float:
    """Return the latest moment before `end` after which nothing was lost for the grace."""
    for loss in reversed(losses):
        if loss < end:
            if loss <= end - GRACE_S:
                break
            end = loss
    return end - GRACE_S
