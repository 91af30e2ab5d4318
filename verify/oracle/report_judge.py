"""I3: each report has one effect, whatever is delivered or tried again.

Its receipts agree, its desk hears of it under one id, an incident counts it once, deadlines fire
once, and what a member says is heard once.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import EscalationKind, GroupEventKind, Merge, Outcome, Subject
from schemas.taxonomy import Desk, PolicyFile
from verify.oracle.audiences import is_for_desk_alone
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement
from verify.oracle.observations import ReceiptSeen

DIRECT = (EscalationKind.NEW, EscalationKind.UPDATE)  # one of these for each report

SaidIds = Mapping[UUID, set[UUID]]  # the ids under which a text was heard, in each group


class Effect(NamedTuple):
    """What a desk heard of a report: the message's id, the incident, the how manieth of it."""

    id: UUID
    incident: UUID
    number: int


def judge_reports(
    evidence: Evidence, policy: PolicyFile, judgement: Judgement, *, untold: int = 0
) -> None:
    """Judge each report. `untold` were accepted, by receipts that are in no log."""
    effects = effects_of(evidence)
    sequences: dict[int, UUID] = {}
    for report, receipts in evidence.receipts.items():
        created, first = evidence.created.get(report), receipts[0]
        if created is None:
            continue
        if len({_told(receipt) for receipt in receipts}) > 1:
            judgement.double("I3", f"report {report} has receipts that differ")
        if created.odd and not all(receipt.notes for receipt in receipts):
            judgement.blame("I3", f"the receipt of report {report} does not say what was odd in it")
        if created.poison and first.outcome is Outcome.ACCEPTED:
            judgement.blame("I8", f"report {report} is poison and was accepted")
        elif not created.poison and first.outcome is Outcome.REJECTED:
            judgement.lose("I3", f"report {report} was rejected: {first.code}")
        elif not created.poison:
            is_apart = is_for_desk_alone(created, policy)
            if not is_apart:
                _agree(first, sequences, judgement)
            city = policy.categories[created.category].desk is Desk.CITY
            what = "case" if city else "escalation"
            _heard_once(first, effects[report], what, judgement, is_apart=is_apart)
    _overdue_once(evidence, judgement)
    _counted_once(evidence, effects, judgement, untold)
    _said_once(evidence, judgement)


def effects_of(evidence: Evidence) -> dict[UUID, set[Effect]]:
    """Return what the desks heard of each report."""
    effects: dict[UUID, set[Effect]] = defaultdict(set)
    for told in evidence.escalations:
        if told.report and told.kind in DIRECT:
            effects[told.report].add(Effect(told.id, told.incident, told.reports))
    for case in evidence.cases:
        if case.message is None:
            effects[case.report].add(Effect(case.id, case.incident, case.reports))
    return effects


def ids_by_text(evidence: Evidence) -> dict[str, SaidIds]:
    """Return under which ids each text was heard, in each group or conversation."""
    ids: dict[str, dict[UUID, set[UUID]]] = defaultdict(lambda: defaultdict(set))
    for event in evidence.groups:
        if event.text and event.kind in (GroupEventKind.SAID, GroupEventKind.CLOSED):
            ids[event.text][event.incident].add(event.id)
    return {**ids}


def _told(receipt: ReceiptSeen) -> tuple[object, ...]:
    return receipt.outcome, receipt.incident, receipt.merge, receipt.sequence


def _agree(receipt: ReceiptSeen, sequences: dict[int, UUID], judgement: Judgement) -> None:
    report, incident = receipt.id, receipt.incident
    other = sequences.setdefault(receipt.sequence or 0, report)
    if other != report:
        judgement.double("I3", f"reports {report} and {other} have one sequence number")
    opened = incident is not None and is_opened_by(incident, report)
    if (receipt.merge is Merge.OPENED) != opened:
        judgement.blame("I3", f"report {report}: {receipt.merge}, but incident {incident}")


def _heard_once(
    receipt: ReceiptSeen, heard: set[Effect], what: str, judgement: Judgement, *, is_apart: bool
) -> None:
    """Of what `is_apart`, for its desk alone, the receipt does not tell the incident."""
    report = receipt.id
    if not heard:
        judgement.lose("I3", f"report {report} had no {what}")
    elif len({effect.id for effect in heard}) > 1:
        judgement.double("I3", f"report {report} had several {what}s")
    elif len(heard) > 1:
        judgement.double("I3", f"report {report} had one {what} in several versions")
    elif not is_apart and {effect.incident for effect in heard} != {receipt.incident}:
        judgement.blame("I3", f"report {report} had its {what} under another incident")


def _overdue_once(evidence: Evidence, judgement: Judgement) -> None:
    """Deadlines fire once: one id for each attempt."""
    ids: dict[tuple[UUID, int], set[UUID]] = defaultdict(set)
    for told in evidence.escalations:
        if told.kind is EscalationKind.OVERDUE:
            ids[told.incident, told.attempt].add(told.id)
    for (incident, attempt), several in ids.items():
        if len(several) > 1:
            judgement.double("I3", f"incident {incident} was overdue twice as attempt {attempt}")


def _counted_once(
    evidence: Evidence, effects: Mapping[UUID, set[Effect]], judgement: Judgement, untold: int
) -> None:
    """An incident counts the reports that it has receipts for, each once; its desk knows which."""
    receipted = Counter(
        incident
        for report, receipt in evidence.accepted().items()
        for incident in {receipt.incident, *(each.incident for each in effects.get(report, ()))}
    )
    for state in evidence.retained:
        if state.reports > receipted[state.incident] + untold:
            judgement.double(
                "I3",
                f"incident {state.incident} counts {state.reports} reports,"
                f" {receipted[state.incident]} were receipted",
            )


def _said_once(evidence: Evidence, judgement: Judgement) -> None:
    """What a member said, and got a receipt for, the group heard once."""
    said = ids_by_text(evidence)
    for message in evidence.sent.values():
        if message.subject is not Subject.MESSAGE or message.done is None:
            continue
        ids = said.get(message.text, {}).get(message.incident, set())
        if not ids:
            judgement.lose("I3", f"nobody heard the message «{message.text}» of {message.user}")
        elif len(ids) > 1:
            judgement.double("I3", f"the message «{message.text}» was heard under {len(ids)} ids")
