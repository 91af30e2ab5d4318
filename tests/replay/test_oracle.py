"""The oracle on alerts: in histories made by hand it finds what is missing, and what must not be."""

import pytest

from schemas.ids import new_id
from tests.replay.story import HERE, POLICY, START, Story, clean, north_of
from verify.oracle.history import SentReport


@pytest.mark.usefixtures("theft")
def test_what_went_right_is_found_right(story: Story) -> None:
    verdict = story.verdict()
    assert clean(verdict), verdict
    assert (verdict.incidents, verdict.alerts.expected, verdict.escalations.expected) == (1, 1, 1)
    assert (verdict.alerts.ambiguous, verdict.duplicates, verdict.redelivered) == (0, 0, 0)


def violated(story: Story) -> dict[str, int]:
    """The invariants that do not hold, in the words of every proof, with their counts."""
    return {name: count for name, count in story.verdict().judgement.counts.items() if count}


def test_each_error_violates_its_invariant(story: Story, theft: SentReport) -> None:
    assert violated(story) == {}
    story.presence(2, HERE, at=-10.0)
    assert violated(story) == {"I4": 1}
    story.alert(2, theft)
    story.alert(3, theft)
    assert violated(story) == {"I5": 1}
    story.alert(2, theft, wave=2)
    assert violated(story) == {"I4": 1, "I5": 1}
    story.history.escalations.clear()
    assert violated(story) == {"I3": 1, "I4": 1, "I5": 1}
    judgement = story.verdict().judgement
    assert (judgement.lost, judgement.duplicated, judgement.passed) == (1, 1, False)


def test_an_alert_that_did_not_come_is_missing(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    story.theft(200.0)
    verdict = story.verdict()
    assert (verdict.alerts.missing, verdict.unexpected) == (1, 0)
    assert "bob was not alerted" in verdict.missing_examples[0]


@pytest.mark.parametrize(("away_m", "missing"), [(299.5, 1), (300.0, 0), (301.0, 0)])
def test_nobody_is_missed_beyond_the_radius(story: Story, away_m: float, missing: int) -> None:
    story.presence(1, HERE, at=-10.0)
    story.theft(away_m)
    assert story.verdict().missing == missing


def test_a_place_on_the_radius_to_the_millimetre_may_be_judged_either_way(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    theft = story.theft(300.0)
    assert story.verdict().alerts.ambiguous == 1
    story.alert(1, theft)
    assert clean(story.verdict())


def test_an_alert_one_metre_outside_is_unexpected(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    theft = story.theft(301.0)
    story.alert(1, theft)
    verdict = story.verdict()
    assert (verdict.missing, verdict.alerts.unexpected) == (0, 1)
    assert "bob was alerted" in verdict.unexpected_examples[0]


def test_the_reporter_must_not_be_alerted(story: Story, theft: SentReport) -> None:
    story.presence(0, HERE, at=-10.0)
    assert clean(story.verdict())
    story.alert(0, theft)
    assert story.verdict().alerts.unexpected == 1


def test_a_second_reporter_is_not_alerted_when_walking_in(story: Story, theft: SentReport) -> None:
    second = story.report(2, north_of(HERE, 210.0), at=1.0, joins=theft.incident)
    story.escalation(second)
    story.presence(2, HERE, at=2.0)
    assert clean(story.verdict())
    story.alert(2, theft, at=3.0)
    assert story.verdict().alerts.unexpected == 1


def test_a_second_reporter_who_was_there_all_along_may_have_been_alerted(
    story: Story, theft: SentReport
) -> None:
    story.presence(2, HERE, at=-5.0)
    story.escalation(story.report(2, north_of(HERE, 210.0), at=0.05, joins=theft.incident))
    verdict = story.verdict()
    assert clean(verdict)
    assert verdict.alerts.ambiguous == 1
    story.alert(2, theft)
    assert clean(story.verdict())


def test_the_same_alert_again_is_redelivered_and_another_is_a_duplicate(
    story: Story, theft: SentReport
) -> None:
    story.alert(1, theft)
    verdict = story.verdict()
    assert (verdict.redelivered, verdict.duplicates, verdict.unexpected) == (1, 0, 0)
    story.alert(1, theft, wave=2)
    verdict = story.verdict()
    assert (verdict.redelivered, verdict.duplicates, verdict.alerts.unexpected) == (1, 1, 1)


def test_a_participant_who_moved_during_the_commit_is_ambiguous(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    story.presence(1, north_of(HERE, 5_000.0), at=0.05)
    theft = story.theft(200.0)
    verdict = story.verdict()
    assert clean(verdict)
    assert (verdict.alerts.expected, verdict.alerts.ambiguous) == (0, 1)
    story.alert(1, theft)
    assert clean(story.verdict())


def test_a_participant_who_left_before_must_not_be_alerted(story: Story, theft: SentReport) -> None:
    story.presence(2, HERE, at=-10.0)
    story.presence(2, north_of(HERE, 5_000.0), at=-5.0)
    story.presence(3, HERE, at=-10.0)
    story.presence(3, None, at=-5.0)
    assert clean(story.verdict())
    story.alert(2, theft)
    story.alert(3, theft)
    assert story.verdict().alerts.unexpected == 2


def test_a_place_is_forgotten_when_it_is_stale(story: Story) -> None:
    story.presence(1, HERE, at=-POLICY.timers.presence_s - 5.0)
    theft = story.theft(200.0)
    assert clean(story.verdict())
    story.alert(1, theft)
    assert story.verdict().alerts.unexpected == 1


def test_a_place_that_was_renewed_holds_without_a_gap(story: Story) -> None:
    story.presence(1, HERE, at=-100.0)
    story.presence(1, HERE, at=0.0)
    story.escalation(theft := story.report(0, north_of(HERE, 200.0), at=0.05, took=0.01))
    story.acknowledged(theft)
    verdict = story.verdict()
    assert (verdict.alerts.missing, verdict.alerts.ambiguous) == (1, 0)


@pytest.mark.parametrize(("withdrawal_took", "missing"), [(1.0, 1), (3.0, 0)])
def test_a_place_is_sure_only_if_no_earlier_withdrawal_may_have_come_after_it(
    story: Story, withdrawal_took: float, missing: int
) -> None:
    story.presence(1, None, 0, took=withdrawal_took)
    story.presence(1, HERE, 2)
    story.report(0, HERE, 5)
    assert story.verdict().alerts.missing == missing


def test_a_participant_who_walks_in_must_be_alerted(story: Story, theft: SentReport) -> None:
    story.presence(2, north_of(HERE, 5_000.0), at=-10.0)
    story.presence(2, HERE, at=5.0)
    story.presence(2, north_of(HERE, 5_000.0), at=6.0)
    assert story.verdict().alerts.missing == 1
    story.alert(2, theft, at=7.0)
    assert clean(story.verdict())


@pytest.mark.parametrize(
    ("accuracy_m", "away_m", "missing"),
    [(0.0, 310.0, 0), (20.0, 310.0, 1), (20.0, 330.0, 0), (9_000.0, 790.0, 1), (9_000.0, 810.0, 0)],
)
def test_a_reports_accuracy_widens_its_radius_within_bounds(
    story: Story, accuracy_m: float, away_m: float, missing: int
) -> None:
    story.presence(1, HERE, at=-10.0)
    theft = story.report(0, north_of(HERE, away_m), at=0.0, accuracy_m=accuracy_m)
    story.escalation(theft)
    story.acknowledged(theft)
    assert story.verdict().alerts.missing == missing


def test_a_position_that_is_too_inexact_is_as_if_it_had_not_been_said(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    story.presence(1, north_of(HERE, 5_000.0), at=-5.0, accuracy_m=501.0)
    story.presence(2, HERE, at=-10.0, accuracy_m=501.0)
    theft = story.theft(200.0)
    story.alert(1, theft)
    assert clean(story.verdict())
    story.alert(2, theft)
    assert story.verdict().alerts.unexpected == 1


@pytest.mark.parametrize(("seen_ago", "expected"), [(3_590.0, 1), (3_700.0, 0)])
def test_what_was_seen_too_long_ago_alerts_nobody(
    story: Story, seen_ago: float, expected: int
) -> None:
    story.presence(1, HERE, at=-10.0)
    old = story.report(0, HERE, at=0.0, seen_ago=seen_ago)
    story.escalation(old)
    story.acknowledged(old)
    assert story.verdict().alerts.missing == expected
    story.alert(1, old)
    assert story.verdict().alerts.unexpected == 1 - expected


def test_a_fresh_report_of_something_old_alerts_people(story: Story) -> None:
    story.presence(1, HERE, at=-10.0)
    old = story.report(0, HERE, at=0.0, seen_ago=3_700.0)
    fresh = story.report(2, HERE, at=5.0, seen_ago=3_000.0, joins=old.incident)
    for report in (old, fresh):
        story.escalation(report)
        story.acknowledged(report)
    assert story.verdict().alerts.missing == 1
    story.alert(1, old, at=4.0)  # before it may have been committed, or after: only that it came
    assert clean(story.verdict())


def test_the_radius_grows_only_while_nobody_accepted(story: Story, theft: SentReport) -> None:
    story.presence(2, north_of(HERE, 700.0), at=-10.0)
    assert clean(story.verdict())
    assert story.verdict(until=200.0).alerts.missing == 1
    story.accepted(theft, at=20.0)
    assert clean(story.verdict(until=200.0))
    story.alert(2, theft, wave=2, at=95.0)
    assert story.verdict(until=200.0).alerts.unexpected == 1


def test_the_radius_grows_again_when_the_last_one_who_accepted_has_left(
    story: Story, theft: SentReport
) -> None:
    story.presence(2, north_of(HERE, 700.0), at=-10.0)
    story.accepted(theft, at=20.0)
    story.accepted(theft, at=25.0, user=3)
    story.left(theft, at=120.0)
    assert clean(story.verdict(until=400.0))  # one of the two is still there
    story.left(theft, at=150.0, user=3)
    assert clean(story.verdict(until=230.0))
    assert story.verdict(until=400.0).alerts.missing == 1
    story.alert(2, theft, wave=2, at=241.0)
    assert clean(story.verdict(until=400.0))


@pytest.mark.parametrize(("left_at", "unexpected"), [(20.0, 0), (80.0, 0), (120.0, 1)])
def test_a_deadline_that_runs_when_the_helper_leaves_stays(
    story: Story, theft: SentReport, left_at: float, unexpected: int
) -> None:
    story.presence(2, north_of(HERE, 700.0), at=-10.0)
    story.accepted(theft, at=10.0)
    story.left(theft, at=left_at)
    story.alert(2, theft, wave=2, at=91.0)
    assert story.verdict(until=100.0).alerts.unexpected == unexpected


def test_a_wave_that_one_participant_saw_reaches_all(story: Story, theft: SentReport) -> None:
    story.presence(2, north_of(HERE, 700.0), at=-10.0)
    story.presence(3, north_of(HERE, 700.0), at=-10.0)
    story.accepted(theft, at=89.95)
    assert clean(story.verdict(until=100.0))
    story.alert(2, theft, wave=2, at=90.5)
    assert story.verdict(until=100.0).alerts.missing == 1


@pytest.mark.usefixtures("theft")
def test_an_alert_of_an_incident_that_nobody_opened_is_unexpected(story: Story) -> None:
    story.history.alerts.append(
        user=2, incident=new_id(), alert=new_id(), wave=1, nearby=True, received_at=START
    )
    assert story.verdict().alerts.unexpected == 1
