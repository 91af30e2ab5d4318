"""I5 for what is for a desk alone: no reporter learns of another, nor is heard by one."""

from uuid import UUID

from schemas.ids import is_opened_by
from schemas.messages import EscalationKind, GroupRole, Outcome, Subject
from schemas.taxonomy import Audience, PolicyFile
from verify.chaos.chaos_log import Created, Receipted
from verify.chaos.evidence import Evidence
from verify.chaos.judgement import Judgement


def is_for_desk_alone(created: Created, policy: PolicyFile) -> bool:
    """Whether no participant may know of this report."""
    category = policy.categories.get(created.category)
    return category is not None and Audience.POLICE in (category.audience, created.audience)


def conversations(evidence: Evidence, policy: PolicyFile) -> dict[UUID, Created]:
    """Return of each incident's id that only one reporter may know, whose report it is of."""
    return {
        receipt.incident: evidence.created[report]
        for report, receipt in evidence.accepted().items()
        if receipt.incident is not None
        and report in evidence.created
        and is_for_desk_alone(evidence.created[report], policy)
    }


def tells_of_others(receipt: Receipted) -> bool:
    """Whether the receipt of a report for a desk alone says more than that it is stored."""
    if receipt.outcome is Outcome.REJECTED:
        return False
    is_its_own = receipt.incident is not None and is_opened_by(receipt.incident, receipt.id)
    return receipt.merge is not None or receipt.sequence is not None or not is_its_own


def judge_privacy(evidence: Evidence, policy: PolicyFile, judgement: Judgement) -> None:
    """Look at every receipt, group event and question, and at what reporters say to their desk."""
    apart = conversations(evidence, policy)
    for report, receipts in evidence.receipts.items():
        created = evidence.created.get(report)
        if created and is_for_desk_alone(created, policy) and any(map(tells_of_others, receipts)):
            judgement.blame("I5", f"the receipt of report {report} tells of other reports")
    for event in evidence.groups:
        owner = apart.get(event.incident)
        if owner is None:
            continue
        if event.user != owner.user:
            judgement.blame("I5", f"{event.user} heard the conversation of report {owner.id}")
        if event.members > 1 or event.role is GroupRole.RESPONDER:
            judgement.blame("I5", f"the conversation of report {owner.id} shows another member")
    for question in evidence.asked:
        owner = apart.get(question.incident)
        if owner is not None and (question.user, question.report) != (owner.user, owner.id):
            judgement.blame("I5", f"{question.user} was asked for the reporter of {owner.id}")
    _reach_their_desk(evidence, apart, judgement)


def _reach_their_desk(evidence: Evidence, apart: dict[UUID, Created], judgement: Judgement) -> None:
    """What a reporter says, and gets a receipt for, is heard once by the desk, of their report."""
    heard = {
        (told.text, told.report)
        for told in evidence.escalations
        if told.kind is EscalationKind.SAID
    } | {(case.text, case.report) for case in evidence.cases if case.message}
    for said in evidence.sent:
        owner = apart.get(said.incident)
        if said.subject is not Subject.MESSAGE or said.done is None or owner is None:
            continue
        if (said.text, owner.id) not in heard:
            judgement.lose("I3", f"no desk heard the message «{said.text}» of {said.user}")
