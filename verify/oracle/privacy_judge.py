"""I5 for what is for a desk alone: no reporter learns of another, nor is heard by one."""

from collections import defaultdict
from collections.abc import Mapping
from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import EscalationKind, GroupRole, Outcome, Subject
from schemas.taxonomy import PolicyFile
from verify.oracle.audiences import is_for_desk_alone
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement
from verify.oracle.observations import ReceiptSeen, ReportCreated


def judge_privacy(evidence: Evidence, policy: PolicyFile, judgement: Judgement) -> None:
    """Look at every receipt, group event and question, and at what reporters say to their desk."""
    apart = dict(evidence.conversations(policy))
    for report, receipts in evidence.receipts.items():
        created = evidence.created.get(report)
        if created and is_for_desk_alone(created, policy) and any(map(_tells_of_others, receipts)):
            judgement.blame("I5", f"the receipt of report {report} tells of other reports")
    for event in evidence.groups:
        owner = apart.get(event.incident)
        if owner is None:
            continue
        if event.user != owner.user:
            judgement.blame("I5", f"{event.user} heard the conversation of report {owner.id}")
        if event.members > 1 or event.role is GroupRole.RESPONDER:
            judgement.blame("I5", f"the conversation of report {owner.id} shows another member")
    for question in evidence.questions:
        owner = apart.get(question.incident)
        if owner is not None and (question.user, question.report) != (owner.user, owner.id):
            judgement.blame("I5", f"{question.user} was asked for the reporter of {owner.id}")
    _reach_their_desk(evidence, apart, judgement)


def _tells_of_others(receipt: ReceiptSeen) -> bool:
    """Whether the receipt of a report for a desk alone says more than that it is stored."""
    if receipt.outcome is Outcome.REJECTED:
        return False
    is_its_own = receipt.incident is not None and is_opened_by(receipt.incident, receipt.id)
    return receipt.merge is not None or receipt.sequence is not None or not is_its_own


def _reach_their_desk(
    evidence: Evidence, apart: Mapping[UUID, ReportCreated], judgement: Judgement
) -> None:
    """What a reporter says, and gets a receipt for, is heard once by the desk, of their report."""
    heard: dict[tuple[str, UUID | None], set[UUID]] = defaultdict(set)
    for told in evidence.escalations:
        if told.kind is EscalationKind.SAID:
            heard[told.text, told.report].add(told.id)
    for case in evidence.cases:
        if case.message:
            heard[case.text, case.report].add(case.id)
    for said in evidence.sent.values():
        owner = apart.get(said.incident)
        if said.subject is not Subject.MESSAGE or said.done is None or owner is None:
            continue
        if not heard[said.text, owner.id]:
            judgement.lose("I3", f"no desk heard the message «{said.text}» of {said.user}")
        elif len(heard[said.text, owner.id]) > 1:
            judgement.double("I3", f"the desk heard the message «{said.text}» twice")
