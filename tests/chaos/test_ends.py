"""The judge knows how each conversation with a desk ends: by its own silence, or by the desk."""

import uuid
from typing import Any

import pytest
from msgspec import structs

from broker.core.policy import Policy
from schemas.messages import GroupEventKind, GroupRole, Subject
from schemas.taxonomy import PolicyFile
from verify.chaos.chaos_world import policy_text
from verify.oracle.conversation_judge import judge_ends
from verify.oracle.judgement import Judgement
from verify.oracle.observations import CommandSent, GroupEventSeen, MessageSent

Run = Any  # tests/chaos/conftest.py: SmallRun

POLICY: PolicyFile = Policy.parse(policy_text()).file
SILENCE_S = float(POLICY.timers.silence_s)
SLACK_S = 30.0
ACTIVE_AT = 20.1  # the desk's word to the reporter, the last that happens in the conversation


@pytest.fixture
def private(small_run: Run) -> Run:
    """The small run, with a threat in the place of the fire: ann speaks with the police alone."""
    created = small_run.evidence.created
    created[small_run.report] = structs.replace(created[small_run.report], category="threat")
    return small_run


def ended(run: Run, at: float) -> None:
    run.evidence.take(
        GroupEventSeen(
            t=at,
            user="ann",
            id=uuid.uuid4(),
            incident=run.incident,
            sequence=3,
            kind=GroupEventKind.CLOSED,
            at=at,
            members=1,
            role=GroupRole.NABIJ,
        )
    )


def found(run: Run, until: float = 1e9) -> dict[str, int]:
    judgement = Judgement()
    judge_ends(run.evidence, POLICY, judgement, slack_s=SLACK_S, until=until)
    return {name: count for name, count in judgement.counts.items() if count}


@pytest.mark.parametrize(
    ("after_s", "violated"),
    [
        (SILENCE_S - 100.0, {"I3": 1}),
        (SILENCE_S - 2.0, {"I3": 1}),
        (SILENCE_S, {}),
        (SILENCE_S + SLACK_S - 1.0, {}),
        (SILENCE_S + SLACK_S + 1.0, {"I5": 1}),
    ],
)
def test_a_conversation_ends_when_its_own_silence_is_over(
    private: Run, after_s: float, violated: dict[str, int]
) -> None:
    ended(private, ACTIVE_AT + after_s)
    assert found(private) == violated


def test_a_conversation_that_never_ends_is_told_when_it_was_watched_long_enough(
    private: Run,
) -> None:
    assert found(private) == {"I3": 1}
    assert found(private, until=ACTIVE_AT + SILENCE_S) == {}


def test_what_its_reporter_says_begins_its_silence_again_and_what_another_says_does_not(
    private: Run,
) -> None:
    said = MessageSent(
        t=500.0, user="ann", subject=Subject.MESSAGE, incident=private.incident, done=500.1
    )
    private.evidence.take(said)
    ended(private, ACTIVE_AT + SILENCE_S)
    assert found(private) == {"I3": 1}

    private.evidence.groups.pop()
    ended(private, 500.1 + SILENCE_S)
    assert found(private) == {}

    private.evidence.sent.clear()
    private.evidence.take(structs.replace(said, user="eve", incident=uuid.uuid4()))
    assert found(private) == {"I5": 1}


def test_the_desk_may_end_a_conversation_at_any_time(private: Run) -> None:
    close = CommandSent(
        t=30.0, zone="gent", id=uuid.uuid4(), incident=private.incident, command="close"
    )
    private.evidence.take(close)
    private.evidence.take(private.answer(close.id, 30.2))
    ended(private, 30.1)
    assert found(private) == {}


def test_an_incident_with_a_group_has_no_conversations(small_run: Run) -> None:
    ended(small_run, ACTIVE_AT)
    assert found(small_run) == {}
