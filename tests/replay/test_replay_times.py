"""What becomes of a stream's own times in a replay, and of messages that come twice."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from msgspec import structs

from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import PolicyFile, default_policy_text
from verify.datasets.report_stream import Stream, StreamReport
from verify.oracle.history import ReplayHistory, SentReport
from verify.oracle.observations import CaseSeen, EscalationSeen
from verify.replay.replay_plan import LONGEST_PAUSE_S, Schedule
from verify.replay.replay_result import ReplayResult

POLICY = msgspec.toml.decode(default_policy_text(), type=PolicyFile)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def row(after: timedelta) -> StreamReport:
    return StreamReport(NOON + after, 51.05, 3.72, "fire", "brand")


def test_a_straggler_of_years_before_keeps_nobody_waiting() -> None:
    days = timedelta(days=4_000)
    rows = [row(-days), row(timedelta()), row(timedelta(minutes=10)), row(timedelta(hours=9))]
    schedule = Schedule.of(rows, 20.0)
    assert schedule.due_s == pytest.approx([0.0, 60.0, 90.0, 150.0])
    assert (schedule.cut, LONGEST_PAUSE_S) == (2, 60.0)
    assert Schedule.of([], 1.0) == ((), 0)


def sent(number: int, incident: int, happened_s: float, merge: Merge) -> SentReport:
    return SentReport(
        id=UUID(int=number),
        user=0,
        category="fire",
        lat=51.05,
        lon=3.72,
        seen_at=0.0,
        sent_at=10.0,
        received_at=11.0,
        incident=UUID(int=incident),
        merge=merge,
        sequence=number,
        happened_at=happened_s,
    )


def result(history: ReplayHistory) -> ReplayResult:
    stream = Stream(reports=(), rows=0, usable=0, unmapped={}, skipped=())
    return ReplayResult.of(
        history,
        stream,
        None,
        policy=POLICY,
        pauses_cut=0,
        duration_s=1.0,
        sending_s=1.0,
        replies_rejected=0,
        presences_rejected=0,
        commands_rejected=0,
    )


def test_reports_that_the_stream_has_apart_and_the_replay_merged_are_counted() -> None:
    window_s = float(POLICY.categories["fire"].merge_s)
    history = ReplayHistory(participants=("p-1",))
    history.reports += [
        sent(1, 7, 0.0, Merge.OPENED),
        sent(2, 7, window_s, Merge.MERGED),
        sent(3, 7, 2 * window_s + 1, Merge.MERGED),
        sent(4, 8, 5 * window_s, Merge.OPENED),
    ]
    assert result(history).merged_apart == 1


def test_of_a_report_for_the_police_alone_the_desk_tells_which_incident_it_joined() -> None:
    history = ReplayHistory(participants=("p-1",))
    history.reports += [sent(1, 7, 0.0, Merge.OPENED), sent(2, 9, 1e6, Merge.OPENED)]
    for report in (1, 2):
        history.escalations.append(
            EscalationSeen(
                t=12.0,
                zone="gent",
                priority="p1",
                id=UUID(int=20 + report),
                kind=EscalationKind.NEW if report == 1 else EscalationKind.UPDATE,
                incident=UUID(int=7),
                report=UUID(int=report),
                reports=report,
            )
        )
    assert result(history).merged_apart == 1


def test_what_comes_again_is_counted_once_and_its_latency_too() -> None:
    history = ReplayHistory(participants=("p-1", "p-2"))
    history.reports.append(sent(1, 7, 0.0, Merge.OPENED))
    for user, received_at in ((0, 10.5), (0, 70.0), (1, 10.7), (0, 90.0)):
        history.alerts.append(
            user=user,
            incident=UUID(int=7),
            alert=UUID(int=30 + user),
            wave=1,
            nearby=True,
            received_at=received_at,
        )
    escalation = EscalationSeen(
        t=10.2,
        zone="gent",
        priority="p1",
        id=UUID(int=20),
        kind=EscalationKind.NEW,
        incident=UUID(int=7),
        report=UUID(int=1),
    )
    history.escalations += [escalation, structs.replace(escalation, t=60.0)]
    case = CaseSeen(
        t=10.2,
        municipality="44021",
        category="noise",
        id=UUID(int=21),
        incident=UUID(int=7),
        report=UUID(int=1),
    )
    history.cases += [case, structs.replace(case, t=61.0)]
    found = result(history)
    assert (found.alerts, found.escalations, found.cases) == (2, 1, 1)
    assert found.alert.p99_ms == pytest.approx(500.0)
    assert found.police.p99_ms == pytest.approx(200.0)
