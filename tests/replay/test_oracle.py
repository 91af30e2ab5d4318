import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

import msgspec
import pytest
from msgspec import structs

from schemas.ids import alert_id, escalation_id, incident_id, new_id
from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import PolicyFile, default_policy_text
from verify.oracle.geofence import FencePolygon, Geofence, cell_at, centre_of
from verify.oracle.history import Deed, ReplayHistory, SentPresence, SentReport
from verify.oracle.observations import CaseSeen, EscalationSeen
from verify.oracle.oracle import Oracle, OracleVerdict

METRES_PER_DEGREE = math.radians(6_371_007.180918475)
START = 1_800_000_000.0
HERE = centre_of(cell_at(51.0543, 3.7217))
POLICY = msgspec.toml.decode(default_policy_text(), type=PolicyFile)
USERS = ("ann", "bob", "cleo", "dirk")


def north_of(place: tuple[float, float], metres: float) -> tuple[float, float]:
    return place[0] + metres / METRES_PER_DEGREE, place[1]


def square(south: float, west: float, side: float) -> FencePolygon:
    ring = [(west, south), (west + side, south), (west + side, south + side), (west, south + side)]
    return FencePolygon.from_coordinates([ring])


@dataclass
class Story:
    """A history made by hand: everything takes 0.1 s from sending to receipt, in seconds."""

    history: ReplayHistory = field(default_factory=lambda: ReplayHistory(participants=USERS))
    sequences: Iterator[int] = field(default_factory=lambda: count(1))

    def presence(
        self,
        user: int,
        place: tuple[float, float] | None,
        at: float,
        *,
        took: float = 0.1,
        accuracy_m: float = 0.0,
    ) -> None:
        cell = cell_at(*place) if place else None
        sent_at = START + at
        presence = SentPresence(user, cell, sent_at, sent_at + took, accuracy_m)
        self.history.presences.append(presence)

    def report(
        self,
        user: int,
        place: tuple[float, float],
        at: float,
        *,
        joins: UUID | None = None,
        category: str = "theft",
        took: float = 0.1,
        seen_ago: float = 0.0,
        accuracy_m: float = 0.0,
    ) -> SentReport:
        report = new_id()
        sent = SentReport(
            id=report,
            user=user,
            category=category,
            lat=place[0],
            lon=place[1],
            seen_at=START + at - seen_ago,
            sent_at=START + at,
            received_at=START + at + took,
            incident=joins or incident_id(report),
            merge=Merge.MERGED if joins else Merge.OPENED,
            sequence=next(self.sequences),
            accuracy_m=accuracy_m,
        )
        self.history.reports.append(sent)
        return sent

    def escalation(
        self, report: SentReport, *, zone: str = "here", kind: str = "", priority: str = ""
    ) -> None:
        default = "new" if report.merge is Merge.OPENED else "update"
        assert report.incident
        self.history.escalations.append(
            EscalationSeen(
                t=report.received_at,
                zone=zone,
                priority=priority or POLICY.categories[report.category].priority,
                id=escalation_id(report.id),
                kind=EscalationKind(kind or default),
                incident=report.incident,
                report=report.id,
                attempt=1,
                reports=2 if default == "update" else 1,
            )
        )

    def threat(
        self, away_m: float, at: float, *, joins: SentReport | None = None, number: int = 1
    ) -> SentReport:
        """A user reports one, for the police alone; these hear it as the `number`th of one."""
        told = replace(
            self.report(0, north_of(HERE, away_m), at, category="threat"), merge=None, sequence=None
        )
        self.history.reports[-1] = told
        known = joins.incident if joins else told.incident
        merge = Merge.MERGED if joins else Merge.OPENED
        self.escalation(replace(told, incident=known, merge=merge))
        self.history.escalations[-1] = structs.replace(self.history.escalations[-1], reports=number)
        if joins is None:
            self.acknowledged(told)
        return told

    def alert(self, user: int, report: SentReport, *, wave: int = 1, at: float = 1.0) -> None:
        assert report.incident
        self.history.alerts.append(
            user=user,
            incident=report.incident,
            alert=alert_id(report.incident, wave, USERS[user]),
            wave=wave,
            nearby=wave == 1,
            received_at=START + at,
        )

    def acknowledged(self, report: SentReport) -> None:
        assert report.incident
        deed = Deed(report.incident, report.received_at, report.received_at + 0.1)
        self.history.acknowledgements.append(deed)

    def theft(self, away_m: float) -> SentReport:
        """Ann reports one, so far north of here; the police hear of it and acknowledge."""
        theft = self.report(0, north_of(HERE, away_m), at=0.0)
        self.escalation(theft)
        self.acknowledged(theft)
        return theft

    def accepted(self, report: SentReport, at: float, *, user: int = 1) -> None:
        assert report.incident
        self.history.acceptances.append(Deed(report.incident, START + at, START + at + 0.1, user))

    def left(self, report: SentReport, at: float, *, user: int = 1) -> None:
        assert report.incident
        self.history.departures.append(Deed(report.incident, START + at, START + at + 0.1, user))

    def verdict(self, until: float = 30.0) -> OracleVerdict:
        lat, lon = HERE
        zones = Geofence({"here": (square(lat - 1.0, lon - 1.0, 2.0),)})
        oracle = Oracle(POLICY, zones=zones, municipalities=zones)
        return oracle.judge(self.history, START + until, START + until)


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def theft(story: Story) -> SentReport:
    """Ann reports a theft (300 m) 200 m from Bob, who is alerted; the police acknowledge."""
    story.presence(1, HERE, at=-10.0)
    theft = story.theft(200.0)
    story.alert(1, theft)
    return theft


def clean(verdict: OracleVerdict) -> bool:
    return (verdict.missing, verdict.unexpected, verdict.merges_wrong) == (0, 0, 0)


@pytest.mark.usefixtures("theft")
def test_what_went_right_is_found_right(story: Story) -> None:
    verdict = story.verdict()
    assert clean(verdict), verdict
    assert (verdict.incidents, verdict.alerts.expected, verdict.escalations.expected) == (1, 1, 1)
    assert (verdict.alerts.ambiguous, verdict.duplicates, verdict.redelivered) == (0, 0, 0)


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
