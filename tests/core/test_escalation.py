"""What the police and the city read, and by when the police must have answered."""

from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.core import escalation
from broker.core.alerts import alert_of
from broker.core.incidents import merged, widened
from schemas import ids
from schemas.messages import AlertReason, Answer, EscalationKind, Status
from tests.core.samples import POLICY, at, category, incident, north, report

TIMERS = POLICY.timers


@given(attempts=st.integers(1, 20), code=st.sampled_from(POLICY.codes))
def test_deadlines_come_later_with_every_attempt_and_wave(attempts: int, code: str) -> None:
    one = replace(incident(code=code), attempts=attempts)
    next_try = replace(one, attempts=attempts + 1)

    step = escalation.acknowledge_by(next_try, TIMERS) - escalation.acknowledge_by(one, TIMERS)
    assert step == timedelta(seconds=TIMERS.acknowledge_s)
    assert escalation.acknowledge_by(one, TIMERS) > one.opened_at
    later = widened(one, 900.0, escalation.accept_by(one, TIMERS))
    assert escalation.accept_by(later, TIMERS) > escalation.accept_by(one, TIMERS) > one.wave_at
    assert escalation.silence(one, TIMERS) > timedelta(0)


@pytest.mark.parametrize("code", POLICY.codes)
@pytest.mark.parametrize("status", Status)
def test_police_are_waited_for_while_an_urgent_incident_of_theirs_is_open(
    code: str, status: Status
) -> None:
    rule = category(code)
    expected = rule.urgency == "urgent" and rule.desk == "police" and status == "open"

    assert escalation.awaits_police(replace(incident(code=code), status=status)) is expected


@pytest.mark.parametrize("code", POLICY.codes)
def test_routine_incidents_are_left_open_longer(code: str) -> None:
    routine = category(code).urgency == "routine"
    seconds = TIMERS.silence_routine_s if routine else TIMERS.silence_s

    assert escalation.silence(incident(code=code), TIMERS) == timedelta(seconds=seconds)


def test_report_that_opens_is_new_and_one_that_joins_an_update_with_its_own_text() -> None:
    one = incident()
    second = report(north(30), 2, text="nog meer rook", reporter_location=north(90))
    after = replace(merged(one, second, at(0)), version=2)

    new = escalation.escalation_of(report(identifier=one.first_report), one, at(0))
    update = escalation.escalation_of(second, after, at(2))

    assert (new.kind, new.id) == (EscalationKind.NEW, ids.escalation_id(one.first_report))
    assert (update.kind, update.reports, update.version) == (EscalationKind.UPDATE, 2, 2)
    assert (update.text, update.location, update.report) == (
        second.text,
        second.location,
        second.id,
    )
    assert update.reporter_location == second.reporter_location
    assert update.zone == one.zone  # the incident's, wherever the report was
    assert update.id == escalation.escalation_of(second, after, at(9)).id


def test_overdue_counts_its_attempts_and_repeats_its_id() -> None:
    second = replace(incident(), attempts=2)
    one = escalation.overdue_of(second, at(1))

    assert (one.kind, one.attempt, one.report) == (EscalationKind.OVERDUE, 2, second.first_report)
    assert one.id == escalation.overdue_of(second, at(5)).id
    assert one.id != escalation.overdue_of(replace(second, attempts=3), at(1)).id
    assert one.text == ""  # who was not told the text before is not now


def test_answer_reaches_the_police_with_its_question() -> None:
    one, question = incident(), ids.new_id()
    answer = Answer(id=ids.new_id(), question=question, text="twee")

    told = escalation.answer_of(answer, one, one.first_report, at(3))

    assert (told.kind, told.text, told.question) == (EscalationKind.ANSWER, "twee", question)
    assert told.id == ids.answer_escalation_id(answer.id)


def test_case_is_one_for_each_report_and_grouped_by_its_incident() -> None:
    one = incident(code="graffiti")
    reports = [report(code="graffiti", text=text) for text in ("a", "b")]
    cases = [escalation.case_of(each, one, at(0)) for each in reports]

    assert [case.id for case in cases] == [ids.case_id(each.id) for each in reports]
    assert {case.incident for case in cases} == {one.id}
    assert [case.text for case in cases] == ["a", "b"]
    assert cases[0].municipality == one.municipality


def test_alert_has_the_id_of_its_wave_and_keeps_it_when_sent_again_later() -> None:
    first = incident()
    second = widened(first, 900.0, at(2))
    draw_first, draw_second = (
        partial(alert_of, one, POLICY.advice, expires_at=at(30)) for one in (first, second)
    )

    claimed_in_wave_1 = draw_first(wave=1, reason=AlertReason.NEARBY)

    assert claimed_in_wave_1.id == ids.alert_id(first.id, 1)
    assert draw_second(wave=1, reason=AlertReason.NEARBY).id == claimed_in_wave_1.id
    assert draw_second(wave=2, reason=AlertReason.WIDENED).id == ids.alert_id(first.id, 2)
    assert draw_second(wave=2, reason=AlertReason.WIDENED).radius_m == 900.0
    assert claimed_in_wave_1.text is None
    assert claimed_in_wave_1.advice == POLICY.advice


@pytest.mark.parametrize(
    ("accepted", "left", "starts"),
    [(1, 0, True), (2, 0, True), (2, 1, False), (0, 0, False), (0, 1, False)],
)
def test_the_deadline_starts_again_when_the_last_one_who_accepted_is_gone(
    accepted: int, left: int, *, starts: bool
) -> None:
    due = escalation.accept_again_by(
        incident(), accepted=accepted, left=left, timers=POLICY.timers, now=at(5)
    )
    assert due == (at(6.5) if starts else None)
