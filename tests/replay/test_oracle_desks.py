"""The oracle on merging, escalations and cases, in histories made by hand."""

from dataclasses import replace
from uuid import UUID

import pytest
from msgspec import structs

from schemas.ids import new_id
from schemas.messages import EscalationKind, Merge
from tests.replay.story import HERE, POLICY, START, Story, clean, north_of
from verify.oracle.history import SentReport
from verify.oracle.observations import CaseSeen


def test_an_escalation_to_the_wrong_zone_is_missing_there_and_unexpected_here(
    story: Story,
) -> None:
    story.acknowledged(theft := story.report(0, HERE, at=0.0))
    story.escalation(theft, zone="unassigned")
    verdict = story.verdict()
    assert (verdict.escalations.missing, verdict.escalations.unexpected) == (1, 1)


@pytest.mark.parametrize("wrong", [{"kind": "update"}, {"priority": "p1"}])
def test_an_escalation_of_the_wrong_kind_or_priority_is_found(
    story: Story, wrong: dict[str, str]
) -> None:
    story.acknowledged(theft := story.report(0, HERE, at=0.0))
    story.escalation(theft, **wrong)
    verdict = story.verdict()
    assert (verdict.escalations.missing, verdict.escalations.unexpected) == (1, 1)


def test_an_escalation_twice_is_redelivered_under_one_id_and_unexpected_under_two(
    story: Story, theft: SentReport
) -> None:
    story.escalation(theft)
    verdict = story.verdict()
    assert (verdict.redelivered, verdict.unexpected) == (1, 0)
    story.history.escalations.append(structs.replace(story.history.escalations[0], id=new_id()))
    assert story.verdict().escalations.unexpected == 1


def test_an_overdue_escalation_is_due_only_when_nobody_acknowledged(story: Story) -> None:
    theft = story.report(0, HERE, at=0.0)
    story.escalation(theft)
    assert clean(story.verdict(until=50.0))
    assert story.verdict(until=100.0).escalations.missing == 1
    late = structs.replace(
        story.history.escalations[0],
        id=new_id(),
        kind=EscalationKind.OVERDUE,
        attempt=2,
        t=START + 61.0,
        report=None,
    )
    story.history.escalations.append(late)
    assert clean(story.verdict(until=100.0))
    story.acknowledged(theft)
    assert story.verdict(until=100.0).escalations.unexpected == 1


def test_a_report_that_should_have_joined_is_a_wrong_merge(story: Story, theft: SentReport) -> None:
    story.escalation(again := story.report(2, north_of(HERE, 250.0), at=5.0))
    story.acknowledged(again)
    story.alert(1, again)
    verdict = story.verdict()
    assert (verdict.merges_wrong, verdict.missing, verdict.unexpected) == (1, 0, 0)
    assert str(theft.incident) in verdict.wrong_examples[0]


@pytest.mark.parametrize(("away_m", "after_s"), [(101.0, 1.0), (50.0, 901.0)])
def test_a_report_too_far_or_too_late_to_join_is_a_wrong_merge(
    story: Story, away_m: float, after_s: float
) -> None:
    first = story.theft(0.0)
    second = story.report(1, north_of(HERE, away_m), at=after_s, joins=first.incident)
    story.escalation(second)
    assert story.verdict(until=after_s + 10.0).merges_wrong == 1


def test_a_report_joins_the_nearest_and_then_the_first(story: Story) -> None:
    far, near = story.theft(90.0), story.theft(-20.0)
    story.escalation(story.report(1, HERE, at=2.0, joins=near.incident))
    assert clean(story.verdict())
    story.escalation(story.report(1, HERE, at=3.0, joins=far.incident))
    assert story.verdict().merges_wrong == 1


def test_a_city_report_is_a_case_and_nothing_for_the_police(story: Story) -> None:
    dumping = story.report(0, HERE, at=0.0, category="illegal-dumping")
    assert story.verdict().cases.missing == 1
    story.escalation(dumping)
    assert story.verdict().escalations.unexpected == 1
    assert dumping.incident
    case = CaseSeen(
        t=START,
        municipality="here",
        category="illegal-dumping",
        id=new_id(),
        incident=dumping.incident,
        report=dumping.id,
    )
    story.history.cases.append(case)
    assert story.verdict().cases.missing == 0
    story.history.cases.append(structs.replace(case, municipality="elsewhere", id=new_id()))
    assert story.verdict().cases.unexpected == 1


def test_an_incident_that_fell_silent_is_closed(story: Story, theft: SentReport) -> None:
    story.accepted(theft, at=10.0)
    silent_at = POLICY.timers.silence_s + 60.0
    story.presence(2, HERE, at=silent_at)
    assert clean(story.verdict(until=silent_at + 10.0))
    story.alert(2, theft, at=silent_at + 1.0)
    assert story.verdict(until=silent_at + 10.0).alerts.unexpected == 1


def test_a_report_without_receipt_is_judged_by_neither(story: Story) -> None:
    lost = story.report(0, HERE, at=0.0)
    story.history.reports[0] = replace(lost, incident=None, received_at=float("inf"))
    story.presence(1, HERE, at=-10.0)
    assert clean(story.verdict())
    story.alert(1, lost)
    story.escalation(lost)
    verdict = story.verdict()
    assert clean(verdict)
    assert (verdict.alerts.ambiguous, verdict.escalations.ambiguous) == (1, 1)


def test_of_a_report_for_the_police_alone_the_desk_tells_what_it_joined(story: Story) -> None:
    first = story.threat(0.0, at=0.0)
    story.threat(60.0, at=5.0, joins=first, number=2)
    story.threat(200.0, at=6.0)
    verdict = story.verdict()
    assert clean(verdict), verdict
    assert (verdict.incidents, verdict.escalations.expected) == (2, 3)


@pytest.mark.parametrize(
    "tells",
    [{"merge": Merge.OPENED}, {"merge": Merge.MERGED}, {"sequence": 7}, {"incident": UUID(int=7)}],
    ids=str,
)
def test_a_receipt_that_tells_of_others_reports_is_wrong(
    story: Story, tells: dict[str, object]
) -> None:
    story.threat(0.0, at=0.0)
    story.history.reports[-1] = replace(story.history.reports[-1], **tells)  # type: ignore[arg-type]
    assert story.verdict().merges_wrong == 1


@pytest.mark.parametrize(
    ("away_m", "at", "joins", "wrong"),
    [
        (60.0, 5.0, True, 0),
        (60.0, 5.0, False, 1),
        (101.0, 5.0, True, 1),
        (101.0, 5.0, False, 0),
        (60.0, 0.05, False, 0),
        (60.0, 0.05, True, 0),
        (60.0, 902.0, True, 1),
    ],
)
def test_what_a_desk_is_told_of_merging_is_judged_by_the_rules(
    story: Story, *, away_m: float, at: float, joins: bool, wrong: int
) -> None:
    first = story.threat(0.0, at=0.0)
    story.threat(away_m, at=at, joins=first if joins else None, number=2 if joins else 1)
    assert story.verdict(2_000.0).merges_wrong == wrong


def test_a_report_for_the_police_alone_joins_the_nearest(story: Story) -> None:
    near, far = story.threat(0.0, at=0.0), story.threat(150.0, at=1.0)
    story.threat(60.0, at=5.0, joins=near, number=2)
    assert story.verdict().merges_wrong == 0
    story.threat(60.0, at=6.0, joins=far, number=2)
    assert story.verdict().merges_wrong == 1


def test_a_report_for_the_police_alone_that_they_do_not_hear_of_is_missing(story: Story) -> None:
    story.threat(0.0, at=0.0)
    story.history.escalations.clear()
    verdict = story.verdict()
    assert (verdict.escalations.missing, verdict.merges_wrong) == (1, 0)
