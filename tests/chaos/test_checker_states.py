"""The judge can fail: I7, I8 and I10, on states, rest and commands, are violated in logs made by hand."""

import uuid
from dataclasses import replace

import msgspec
import pytest

from schemas.messages import Outcome, Status
from tests.chaos.conftest import SmallRun as Run


def test_a_state_that_goes_back_violates_i7(small_run: Run) -> None:
    small_run.evidence.states.append(small_run.state(1))

    assert small_run.violated() == {"I7": 1}


def test_an_older_retained_state_violates_i7(small_run: Run) -> None:
    (kept,) = small_run.evidence.retained
    small_run.evidence.retained[:] = [msgspec.structs.replace(kept, version=1)]

    assert small_run.violated() == {"I7": 1}


def test_a_state_that_came_after_the_retained_ones_were_read_violates_nothing(
    small_run: Run,
) -> None:
    (kept,) = small_run.evidence.retained
    last = small_run.evidence.states[-1]
    newer = msgspec.structs.replace(last, t=kept.t + 1.0, version=kept.version + 1)
    small_run.evidence.states.append(newer)

    assert small_run.violated() == {}


def test_a_retained_state_that_is_gone_violates_i7(small_run: Run) -> None:
    small_run.evidence.retained.clear()

    assert small_run.violated() == {"I7": 1}


def test_a_closed_incident_that_is_retained_as_open_violates_i7(small_run: Run) -> None:
    last = small_run.evidence.states[-1]
    small_run.evidence.states[-1] = msgspec.structs.replace(last, status=Status.CLOSED)

    assert small_run.violated() == {"I7": 1}


def test_two_group_events_with_one_number_violate_i7(small_run: Run) -> None:
    other = msgspec.structs.replace(small_run.said(uuid.uuid4()), text="something else")
    small_run.evidence.groups.append(other)

    assert small_run.violated() == {"I7": 1}


@pytest.mark.parametrize("what", ["pending of alerting", "outbox", "stream police", "deadlines"])
def test_what_is_not_done_at_rest_violates_i8(small_run: Run, what: str) -> None:
    small_run.facts.undone = {what: 3, "pending of city": 0}

    assert small_run.violated() == {"I8": 1}


def test_a_dead_letter_that_nobody_injected_violates_i8(small_run: Run) -> None:
    small_run.facts = replace(small_run.facts, dead_letters=("a report",))

    assert small_run.violated() == {"I8": 1}


def test_poison_that_is_in_no_dead_letter_violates_i8(small_run: Run) -> None:
    small_run.poison = {"poison 1"}

    assert small_run.violated() == {"I8": 1}


def test_poison_that_ended_as_a_dead_letter_violates_nothing(small_run: Run) -> None:
    small_run.poison = {"poison 1"}
    small_run.facts = replace(small_run.facts, dead_letters=("poison 1",))

    assert small_run.violated() == {}


def test_a_dead_letter_that_is_there_twice_violates_i8(small_run: Run) -> None:
    small_run.poison = {"poison 1"}
    small_run.facts = replace(small_run.facts, dead_letters=("poison 1", "poison 1"))

    assert small_run.violated() == {"I8": 1}


def test_poison_that_was_accepted_violates_i8(small_run: Run) -> None:
    created = small_run.evidence.created
    created[small_run.report] = msgspec.structs.replace(created[small_run.report], poison=True)

    assert small_run.violated()["I8"] == 1


def test_a_command_that_was_never_answered_violates_i10(small_run: Run) -> None:
    small_run.evidence.orders.clear()

    assert small_run.violated() == {"I10": 1}


def test_a_command_whose_effect_is_seen_under_two_ids_violates_i10(small_run: Run) -> None:
    small_run.evidence.groups.append(small_run.said(uuid.uuid4(), sequence=2))

    assert small_run.violated() == {"I10": 1}
    assert small_run.judged().duplicated == 1


def test_a_command_whose_effect_nobody_saw_violates_i10(small_run: Run) -> None:
    small_run.evidence.groups.clear()

    assert small_run.violated() == {"I10": 1}


def test_a_command_that_came_too_late_violates_nothing(small_run: Run) -> None:
    small_run.evidence.groups.clear()
    late = small_run.answer(small_run.command, 20.1, Outcome.REJECTED, "incident_closed")
    small_run.evidence.orders[small_run.command] = [late]

    assert small_run.violated() == {}
