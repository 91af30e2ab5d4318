"""I4 and I5: who had to be alerted, who may have been, and who was; by plain distances.

A device knows when it said where it is and when that was confirmed, so a place, a radius and an
open incident each are in effect possibly from the one on and certainly from the other on (see
`verify/oracle/coverage.py`). What is certain must have been answered by an alert, what is possible
may.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from schemas.ids import alert_id, incident_id, without_region
from schemas.messages import Merge, Outcome, ReplyKind
from schemas.taxonomy import Audience, PolicyFile
from verify.chaos.chaos_log import Created, Receipted
from verify.chaos.evidence import Evidence
from verify.chaos.judgement import Judgement
from verify.oracle.coverage import (
    Helping,
    Places,
    Stay,
    Wave,
    certain_since,
    helping_of,
    possible_since,
    stays_by_cell,
    waves_of,
)
from verify.oracle.observations import NEVER, Deed, SentPresence

# A participant who comes near an incident so shortly before it closes need not be alerted any more,
# and one who reports it so shortly after coming near was not yet: an alert may wait for a restart.
# When the MQTT broker or the device's process is killed, it may wait so long from then.
GRACE_S = 15.0


@dataclass(eq=False)
class JudgedIncident:
    """One incident as receipts tell it: `opened` and `closed` are when sent and when confirmed."""

    first: Created
    opened: tuple[float, float]
    closed: tuple[float, float] = (NEVER, NEVER)
    reporters: dict[str, tuple[float, float]] = field(default_factory=dict)


def judge_alerts(
    evidence: Evidence, policy: PolicyFile, judgement: Judgement, *, settled_at: float
) -> None:
    """Compare every alert with every incident; only what was certain by `settled_at` is missed."""
    got = _got(evidence, judgement)
    users = sorted({moved.user for moved in evidence.moved})
    numbers = {user: number for number, user in enumerate(users)}
    stays = stays_by_cell(_presences(evidence, numbers), policy)
    near = Near(Places(stays), stays, users)
    helping = _helping(evidence)
    seen = _waves_seen(evidence)
    cases = _cases(evidence)
    losses = {user: evidence.losses_of(process) for user, process in evidence.process_of.items()}
    for incident, case in cases.items():
        waves = _waves(case, helping.get(incident, ()), seen.get(incident, {}), policy)
        must, may = _due(case, waves, near, losses, settled_at=settled_at)
        heard = got.pop(incident, set())
        for user in sorted(must - heard):
            judgement.lose("I4", f"{user} was not alerted to {incident}")
        for user in sorted(heard - may):
            judgement.blame("I5", f"{user} was alerted to {incident}, and was not in its radius")
    unsure = {incident_id(each) for each in evidence.created if each not in evidence.receipts}
    for incident, strangers in got.items():
        if without_region(incident) not in unsure:
            judgement.blame("I5", f"{len(strangers)} people were alerted to {incident}: no report")


def _got(evidence: Evidence, judgement: Judgement) -> dict[UUID, set[str]]:
    """Return who was alerted to each incident; a second id to the same person is a second alert."""
    got: dict[UUID, set[str]] = defaultdict(set)
    ids: dict[tuple[UUID, str], UUID] = {}
    for alert in evidence.alerts:
        if alert.wave and alert.id != alert_id(alert.incident, alert.wave, alert.user):
            judgement.blame("I4", f"the alert {alert.id} of {alert.user} has an id of no rule")
        known = ids.setdefault((alert.incident, alert.user), alert.id)
        if known != alert.id:
            judgement.double("I4", f"{alert.user} was alerted to {alert.incident} twice")
        got[alert.incident].add(alert.user)
    return got


def _presences(evidence: Evidence, numbers: Mapping[str, int]) -> list[SentPresence]:
    return [
        SentPresence(
            numbers[moved.user],
            moved.cell,
            moved.t,
            evidence.placed.get((moved.user, moved.number), NEVER),
        )
        for moved in evidence.moved
    ]


def _helping(evidence: Evidence) -> dict[UUID, list[Helping]]:
    """Return what keeps the radius as it is: a participant helps, or the police are on the scene."""
    helping: dict[UUID, list[Helping]] = defaultdict(list)
    numbers = {user: number for number, user in enumerate({each.user for each in evidence.sent})}
    deeds: dict[ReplyKind | None, dict[tuple[UUID, str, float], Deed]] = defaultdict(dict)
    for each in evidence.sent:  # it is there twice if it has its receipt: the later one says when
        done = NEVER if each.done is None else each.done
        deed = Deed(each.incident, each.t, done, numbers[each.user])
        deeds[each.reply][each.incident, each.user, each.t] = deed
    accepted, left = deeds[ReplyKind.ACCEPTED], deeds[ReplyKind.LEFT]
    for incident, one in helping_of(accepted.values(), left.values()):
        helping[incident].append(one)
    for identifier, command in evidence.commands.items():
        if command.command == "setstatus":  # the desks of chaos set no status but on_scene
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
        case = cases.get(command.incident)
        if command.command == "close" and case is not None:
            certain = min(case.closed[0], command.t)
            case.closed = (certain, min(case.closed[1], _accepted_at(evidence, identifier)))
    return cases


def _add_reporter(case: JudgedIncident, created: Created, receipt: Receipted) -> None:
    if created.id == case.first.id:
        case.reporters[created.user] = (-NEVER, -NEVER)
        return
    known = case.reporters.get(created.user, (NEVER, NEVER))
    case.reporters[created.user] = (min(known[0], created.t), min(known[1], receipt.t))


def _waves(
    case: JudgedIncident, helping: Sequence[Helping], seen: Mapping[int, float], policy: PolicyFile
) -> list[Wave]:
    category = policy.categories.get(case.first.category)
    if category is None:  # accepted though it is poison, which I1 tells
        return []
    audiences = (category.audience, case.first.audience)
    within_s = category.alert_if_seen_within_s or policy.timers.alert_if_seen_within_s
    is_old = case.first.t - case.first.seen_at > within_s  # none that is fresh joins it in chaos
    if category.radius_m == 0 or Audience.POLICE in audiences or is_old:
        return []
    return waves_of(
        radius_m=category.radius_m,  # the devices of chaos are exact
        opened=case.opened,
        helping=helping,
        seen=seen,
        possible_until=case.closed[1],
        policy=policy,
    )


class Near(NamedTuple):
    """Who was where: cells by place, and the users' stays in each."""

    places: Places
    stays: Mapping[int, Sequence[Stay]]
    users: Sequence[str]


def _due(
    case: JudgedIncident,
    waves: Sequence[Wave],
    near: Near,
    losses: Mapping[str, Sequence[float]],
    *,
    settled_at: float,
) -> tuple[set[str], set[str]]:
    """Return who must, and who may have been alerted."""
    must: set[str] = set()
    may: set[str] = set()
    if not waves:
        return must, may
    first, closed = case.first, case.closed[0]
    for distance, cell in near.places.within(first.lat, first.lon, waves[-1].radius_m):
        certain, possible = certain_since(waves, distance), possible_since(waves, distance)
        for stay in near.stays[cell]:
            user = near.users[stay.user]
            surely = max(certain, stay.certain_from)
            maybe = max(possible, stay.possible_from)
            if maybe >= stay.possible_until or maybe >= case.closed[1]:
                continue
            reported = case.reporters.get(user, (NEVER, NEVER))
            if maybe >= reported[1]:
                continue
            may.add(user)
            lost = losses.get(user, ())
            until = settled_at if closed >= settled_at else undisturbed(closed, lost)
            if surely < min(stay.certain_until, until, reported[0] - GRACE_S):
                must.add(user)
    return must, may


def undisturbed(end: float, losses: Sequence[float]) -> float:
    """Return the latest moment before `end` after which nothing was lost for the grace."""
    for loss in reversed(losses):
        if loss < end:
            if loss <= end - GRACE_S:
                break
            end = loss
    return end - GRACE_S
