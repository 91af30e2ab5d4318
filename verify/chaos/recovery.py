"""How long the system needed after each kill, seen from outside.

From the kill until the first thing that was begun after it is done: a report has its receipt, an
incident its first alert, a command its receipt, whatever the victim is for. And, harder, until the
last of all that was done which the kill may have hit: begun in the seconds before it, or within
one second after it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas import topics
from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import PolicyFile
from schemas.topics import TOPICS
from verify.chaos.chaos_evidence import ChaosEvidence
from verify.chaos.chaos_log import Blow
from verify.chaos.plan import Victim

BEFORE_S, AFTER_S = 5.0, 1.0


class Work(NamedTuple):
    """Something that was begun and done; `process` is the device process that waited for it."""

    began: float
    done: float
    process: str = ""


def recovery_s(
    evidence: ChaosEvidence, blows: Iterable[Blow], policy: PolicyFile
) -> dict[str, dict[str, float]]:
    """Return p50 and max for each kind of victim that was killed; nothing where nothing tells.

    A service whose work no device sees has no figures. `backlog_max` is the longest time until all
    that a kill may have hit was done.
    """
    work = _work(evidence, policy)
    times: dict[str, list[float]] = defaultdict(list)
    backlogs: dict[str, list[float]] = defaultdict(list)
    for blow in blows:
        if blow.pause_s is not None:
            continue
        some = work.get(blow.victim, ())
        if blow.victim == Victim.DEVICE:
            some = [each for each in some if each.process == blow.process]
        next_done = [each.done - blow.t for each in some if each.began >= blow.t]
        if next_done:
            times[blow.victim].append(min(next_done))
            backlogs[blow.victim].append(max(_hit(blow.t, some), default=0.0))
    return {
        str(victim): {
            "p50": round(sorted(each)[(len(each) - 1) // 2], 3),
            "max": round(max(each), 3),
            "backlog_max": round(max(backlogs[victim]), 3),
        }
        for victim, each in times.items()
    }


def _hit(killed_at: float, work: Iterable[Work]) -> list[float]:
    """Return how long after the kill each piece of work that it may have hit was done."""
    return [
        each.done - killed_at
        for each in work
        if killed_at - BEFORE_S <= each.began <= killed_at + AFTER_S and each.done > killed_at
    ]


def _work(evidence: ChaosEvidence, policy: PolicyFile) -> Mapping[str, Sequence[Work]]:
    reports = [
        Work(evidence.created[report].t, receipts[0].t, evidence.process_of.get(receipts[0].to, ""))
        for report, receipts in evidence.receipts.items()
        if report in evidence.created
    ]
    commands = [
        Work(evidence.commands[identifier].t, answers[0].t)
        for identifier, answers in evidence.orders.items()
        if identifier in evidence.commands
    ]
    places = [
        Work(each.t, each.done) for each in evidence.presences.values() if each.done is not None
    ]
    work = _answered(evidence)
    work[topics.REPORT.service] += reports
    work[topics.COMMAND.service] += commands
    work[topics.PRESENCE.service] += places
    work[topics.ALERT.service] += _alerts(evidence)
    work["city"] += _cases(evidence)
    work["deadlines"] += _overdue(evidence, policy)
    return {**work, Victim.MQTT: reports, Victim.REDIS: reports, Victim.DEVICE: reports}


def _answered(evidence: ChaosEvidence) -> defaultdict[str, list[Work]]:
    """What participants said otherwise, by the service that the contract gives it to."""
    service_of = {one.subject: one.service for one in TOPICS if one.receipt is topics.RECEIPT}
    work: defaultdict[str, list[Work]] = defaultdict(list)
    for each in evidence.sent.values():
        if each.done is not None:
            work[service_of[each.subject]].append(Work(each.t, each.done))
    return work


def _alerts(evidence: ChaosEvidence) -> list[Work]:
    """From an incident's opening to the first alert to it."""
    first: dict[object, float] = {}
    for alert in evidence.alerts:
        first[alert.incident] = min(alert.t, first.get(alert.incident, alert.t))
    return [
        Work(evidence.created[report].t, first[receipt.incident])
        for report, receipt in evidence.accepted().items()
        if receipt.merge is Merge.OPENED
        and receipt.incident in first
        and report in evidence.created
        and first[receipt.incident] < receipt.t + 10.0
    ]


def _cases(evidence: ChaosEvidence) -> list[Work]:
    first: dict[object, float] = {}
    for case in evidence.cases:
        first.setdefault(case.report, case.t)
    return [
        Work(created.t, first[report])
        for report, created in evidence.created.items()
        if report in first
    ]


def _overdue(evidence: ChaosEvidence, policy: PolicyFile) -> list[Work]:
    """From when the first warning was due to when it came."""
    opened = {
        receipt.incident: receipt.t
        for receipt in evidence.accepted().values()
        if receipt.merge is Merge.OPENED
    }
    due_s = policy.timers.acknowledge_s
    return [
        Work(opened[told.incident] + due_s, told.t)
        for told in evidence.escalations
        if told.kind is EscalationKind.OVERDUE and told.attempt == 2 and told.incident in opened
    ]
