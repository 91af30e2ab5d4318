"""The judge can fail: I4 and I5, on alerts, are violated in logs made by hand."""

import uuid

import msgspec

from schemas.ids import alert_id
from schemas.messages import ReplyKind, Subject
from tests.chaos.conftest import SmallRun as Run
from verify.oracle.observations import CommandSent, MessageSent


def test_a_participant_in_the_radius_who_was_not_alerted_violates_i4(small_run: Run) -> None:
    small_run.evidence.alerts.clear()

    assert small_run.violated() == {"I4": 1}
    assert small_run.judged().lost == 1


def test_a_second_alert_with_another_id_violates_i4(small_run: Run) -> None:
    small_run.evidence.alerts.append(small_run.alert("bob", wave=2))

    assert small_run.violated() == {"I4": 1}
    assert small_run.judged().duplicated == 1


def test_an_alert_to_a_participant_far_away_violates_i5(small_run: Run) -> None:
    small_run.evidence.alerts.append(small_run.alert("cleo"))

    assert small_run.violated() == {"I5": 1}


def test_an_alert_to_the_reporter_violates_i5(small_run: Run) -> None:
    small_run.evidence.take(small_run.stands("ann", (51.0543, 3.7217)))
    small_run.evidence.alerts.append(small_run.alert("ann"))

    assert small_run.violated() == {"I5": 1}


def test_an_alert_to_an_incident_that_nobody_reported_violates_i5(small_run: Run) -> None:
    incident = uuid.uuid4()
    small_run.evidence.alerts.append(
        msgspec.structs.replace(small_run.alert("bob"), incident=incident, id=alert_id(incident, 1))
    )

    assert small_run.violated() == {"I5": 1}


def test_who_was_not_yet_confirmed_to_be_there_may_be_alerted_and_need_not_be(
    small_run: Run,
) -> None:
    small_run.evidence.take(small_run.stands("bob", (51.0543, 3.7217), done=None))
    assert small_run.violated() == {}

    small_run.evidence.alerts.clear()
    assert small_run.violated() == {}


NEXT_DOOR = (51.0543 + 800 / 111_195, 3.7217)  # in the second wave's radius, not in the first's


def test_who_came_into_a_radius_that_certainly_grew_must_be_alerted(small_run: Run) -> None:
    _dirk_stands(small_run)

    assert small_run.violated() == {"I4": 1}


def test_a_radius_must_not_grow_while_a_participant_helps_but_may_when_they_left(
    small_run: Run,
) -> None:
    _dirk_stands(small_run)
    small_run.evidence.alerts.append(small_run.alert("dirk", wave=2))
    small_run.evidence.take(_reply(small_run, ReplyKind.ACCEPTED))
    assert small_run.violated() == {"I5": 1}

    small_run.evidence.take(_reply(small_run, ReplyKind.LEFT))
    assert small_run.violated() == {}


def test_a_radius_does_not_have_to_grow_while_the_police_are_on_the_scene(small_run: Run) -> None:
    _dirk_stands(small_run)
    command = uuid.uuid4()
    small_run.evidence.commands[command] = CommandSent(
        t=12.0, zone="gent", id=command, incident=small_run.incident, command="setstatus"
    )
    small_run.evidence.take(small_run.answer(command, 12.1))

    assert small_run.violated() == {}


def _dirk_stands(small_run: Run) -> None:
    small_run.evidence.take(small_run.stands("dirk", NEXT_DOOR))


def _reply(small_run: Run, kind: ReplyKind) -> MessageSent:
    return MessageSent(
        t=11.0,
        done=11.1,
        user="bob",
        subject=Subject.REPLY,
        incident=small_run.incident,
        reply=kind,
    )
