"""An alert that is lost on its way has the grace from then: no longer, and nobody else has it."""

import pytest

from schemas.ids import new_id
from tests.chaos.conftest import FAR_AWAY, SmallRun
from verify.chaos.chaos_log import Blow, Entry
from verify.oracle.alert_judge import GRACE_S, undisturbed
from verify.oracle.observations import CommandSent


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
