"""An alert that is lost on its way has the grace from then: no longer, and nobody else has it."""

import pytest

from schemas.ids import alert_id, incident_id, new_id
from schemas.messages import AlertReason, Merge, Outcome, Subject
from tests.chaos.conftest import FAR_AWAY, KORENMARKT, SmallRun
from verify.chaos.chaos_log import Blow, Entry
from verify.oracle.alert_delays import AlertDelays
from verify.oracle.alert_judge import GRACE_S, undisturbed
from verify.oracle.observations import AlertSeen, CommandSent, ReceiptSeen, ReportCreated


@pytest.mark.parametrize(
    ("losses", "moment"),
    [
        ([], 85.0),
        ([84.0, 101.0], 85.0),
        ([90.0], 75.0),
        ([80.0, 90.0], 65.0),
        ([70.0, 90.0], 75.0),
        ([76.0, 85.5, 99.0], 61.0),
    ],
)
def test_the_last_moment_after_which_nothing_was_lost_for_the_grace(
    losses: list[float], moment: float
) -> None:
    assert undisturbed(100.0, losses) == moment


@pytest.mark.parametrize(
    ("victim", "process", "before_close_s", "excused"),
    [
        ("mqtt", "mqtt", GRACE_S - 5, True),
        ("mqtt", "mqtt", GRACE_S + 1, False),
        ("device", "device-1", GRACE_S - 5, True),
        ("device", "device-2", GRACE_S - 5, False),
        ("alerting", "alerting-1", GRACE_S - 5, False),
    ],
)
def test_only_what_was_lost_shortly_before_the_end_excuses_that_no_alert_came(
    victim: str, process: str, before_close_s: float, *, excused: bool
) -> None:
    run = SmallRun()
    run.evidence.alerts.clear()
    closed_at = 10.2 + GRACE_S + 3.0
    closing = new_id()
    log: list[Entry] = [
        CommandSent(
            t=closed_at,
            zone="gent",
            id=closing,
            incident=run.incident,
            command="close",
            text="closed 1",
        ),
        run.answer(closing, closed_at + 0.1),
        Blow(closed_at - before_close_s, victim, process),
    ]
    run.evidence.add("desk", log)

    blamed = run.judged().violations.get("I4", [])

    assert any("bob was not alerted" in what for what in blamed) is not excused


@pytest.mark.parametrize(("leaves_after_s", "excused"), [(GRACE_S - 5, True), (GRACE_S + 5, False)])
def test_one_who_was_there_and_leaves_before_alerting_can_be_back_need_not_be_alerted(
    leaves_after_s: float, *, excused: bool
) -> None:
    run = SmallRun()
    run.evidence.alerts.clear()
    left_at = 10.2 + leaves_after_s
    run.evidence.add("device-1", [run.stands("bob", FAR_AWAY, left_at, left_at + 0.1)])

    blamed = run.judged().violations.get("I4", [])

    assert any("bob was not alerted" in what for what in blamed) is not excused


@pytest.mark.parametrize(
    ("took_s", "behind"),
    [([3.0, 17.0, 19.0], True), ([3.0, 4.0, 19.0], False), ([3.0, 19.0], False), ([], False)],
)
def test_alerting_was_behind_when_most_alerts_of_that_time_took_longer_than_was_left(
    took_s: list[float], *, behind: bool
) -> None:
    elsewhere = [(10.0, 60.0), (50.0, 90.0)]  # that they were late says nothing of this time

    delays = AlertDelays([*elsewhere, *((28.0, 28.0 + each) for each in took_s)])

    assert delays.were_behind(30.0, 46.0) is behind


@pytest.mark.parametrize(("other_alerted_at", "excused"), [(50.0, True), (28.3, False)])
def test_who_came_near_before_the_end_need_not_be_alerted_if_most_alerts_were_as_late(
    other_alerted_at: float, *, excused: bool
) -> None:
    run = SmallRun()
    other, closing = new_id(), new_id()
    elsewhere = incident_id(other)
    lat, lon = FAR_AWAY
    run.evidence.add(
        "device-1",
        [
            ReportCreated(
                t=28.0, user="dora", id=other, category="fire", lat=lat, lon=lon, seen_at=28.0
            ),
            ReceiptSeen(
                t=28.1,
                to="dora",
                id=other,
                subject=Subject.REPORT,
                outcome=Outcome.ACCEPTED,
                incident=elsewhere,
                merge=Merge.OPENED,
            ),
            AlertSeen(
                t=other_alerted_at,
                user="cleo",
                id=alert_id(elsewhere, 1, "cleo"),
                incident=elsewhere,
                wave=1,
                reason=AlertReason.NEARBY,
            ),
            run.stands("cleo", KORENMARKT, 30.0, 30.1),
        ],
    )
    run.evidence.add(
        "desk",
        [
            CommandSent(
                t=30.1 + GRACE_S + 2.0,
                zone="gent",
                id=closing,
                incident=run.incident,
                command="close",
                text="closed 1",
            ),
            run.answer(closing, 30.1 + GRACE_S + 2.1),
        ],
    )

    blamed = run.judged().violations.get("I4", [])

    of_cleo = [one for one in blamed if "cleo was not alerted" in one and str(run.incident) in one]
    assert bool(of_cleo) is not excused
