"""The judge sees when a report for the police alone tells of another, or is not heard."""

import uuid
from typing import Any

import msgspec
import pytest

from schemas.ids import said_id
from schemas.messages import EscalationKind, GroupRole, Merge, Subject
from verify.oracle.observations import EscalationSeen, MessageSent, QuestionSeen

Run = Any  # tests/chaos/conftest.py: SmallRun


@pytest.fixture
def private(small_run: Run) -> Run:
    """The small run, with a threat in the place of the fire: nobody is alerted, one is told."""
    evidence = small_run.evidence
    evidence.created[small_run.report] = msgspec.structs.replace(
        evidence.created[small_run.report], category="threat"
    )
    evidence.receipts[small_run.report] = [
        msgspec.structs.replace(one, merge=None, sequence=None)
        for one in evidence.receipts[small_run.report]
    ]
    evidence.alerts.clear()
    evidence.groups = [
        msgspec.structs.replace(one, members=1, role=GroupRole.POLICE) for one in evidence.groups
    ]
    evidence.take(
        MessageSent(
            t=15.0,
            user="ann",
            subject=Subject.MESSAGE,
            incident=small_run.incident,
            done=15.1,
            text="said 1",
        )
    )
    said = small_run.said(uuid.uuid4(), sequence=2)
    evidence.groups.append(
        msgspec.structs.replace(said, text="said 1", members=1, role=GroupRole.REPORTER)
    )
    evidence.escalations.append(
        EscalationSeen(
            t=15.1,
            zone="gent",
            priority="p1",
            id=said_id(uuid.uuid4()),
            kind=EscalationKind.SAID,
            incident=small_run.incident,
            report=small_run.report,
            text="said 1",
        )
    )
    return small_run


def test_what_stays_between_a_reporter_and_the_police_violates_nothing(private: Run) -> None:
    assert private.violated() == {}


@pytest.mark.parametrize(
    "tells", [{"merge": Merge.MERGED}, {"sequence": 3}, {"incident": uuid.UUID(int=7)}], ids=str
)
def test_a_receipt_that_tells_of_other_reports_violates_i5(
    private: Run, tells: dict[str, Any]
) -> None:
    receipts = private.evidence.receipts[private.report]
    receipts[0] = msgspec.structs.replace(receipts[0], **tells)

    assert private.violated()["I5"] == 1


@pytest.mark.parametrize(
    "shows", [{"user": "bob"}, {"members": 2}, {"role": GroupRole.RESPONDER}], ids=str
)
def test_a_conversation_that_another_user_hears_or_is_in_violates_i5(
    private: Run, shows: dict[str, Any]
) -> None:
    groups = private.evidence.groups
    groups[0] = msgspec.structs.replace(groups[0], **shows)

    assert private.violated() == {"I5": 1}


def test_a_question_to_another_person_violates_i5(private: Run) -> None:
    question = QuestionSeen(
        t=16.0,
        user="bob",
        id=uuid.uuid4(),
        incident=private.incident,
        text="?",
        report=private.report,
    )
    private.evidence.questions.append(question)

    assert private.violated() == {"I5": 1}


def test_what_a_reporter_says_and_no_desk_hears_is_lost(private: Run) -> None:
    private.evidence.escalations.pop()

    assert private.violated() == {"I3": 1}
    assert private.judged().lost == 1


def test_one_word_of_the_police_is_one_effect_in_each_conversation(private: Run) -> None:
    other = msgspec.structs.replace(private.said(uuid.uuid4()), incident=uuid.uuid4())
    private.evidence.groups.append(other)
    assert private.violated() == {}

    private.evidence.groups.append(msgspec.structs.replace(other, id=uuid.uuid4()))
    assert private.violated()["I10"] == 1
