"""The judge can fail: each invariant is violated once, in logs made by hand, and it is told."""

import uuid
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from broker.core.policy import Policy
from schemas.ids import alert_id, overdue_id
from schemas.messages import EscalationKind, Outcome, ReplyKind, Status, Subject
from verify.chaos.chaos_log import Blow
from verify.chaos.chaos_world import policy_text
from verify.chaos.plan import VICTIMS, strikes_of
from verify.chaos.recovery import recovery_s
from verify.oracle.observations import CommandSent, EscalationSeen, MessageSent

Run = Any  # tests/chaos/conftest.py: SmallRun

# -- all is well --


def test_a_run_in_which_all_went_well_violates_nothing(small_run: Run) -> None:
    assert small_run.violated() == {}


def test_messages_that_come_again_under_their_ids_violate_nothing(small_run: Run) -> None:
    evidence = small_run.evidence
    evidence.alerts *= 2
    evidence.groups *= 2
    evidence.escalations *= 2
    evidence.receipts[small_run.report] *= 2

    assert small_run.violated() == {}


# -- what is odd, old or short --


def test_a_receipt_that_is_silent_about_what_was_odd_violates_i3(small_run: Run) -> None:
    created = small_run.evidence.created
    created[small_run.report] = msgspec.structs.replace(created[small_run.report], odd=True)
    assert small_run.violated() == {"I3": 1}

    receipts = small_run.evidence.receipts[small_run.report]
    receipts[0] = msgspec.structs.replace(receipts[0], notes=1)
    assert small_run.violated() == {}


def test_an_alert_to_what_was_seen_hours_ago_violates_i5(small_run: Run) -> None:
    created = small_run.evidence.created
    seen_at = created[small_run.report].t - 4_000.0
    created[small_run.report] = msgspec.structs.replace(created[small_run.report], seen_at=seen_at)
    assert small_run.violated() == {"I5": 1}

    small_run.evidence.alerts.clear()
    assert small_run.violated() == {}


def test_an_alert_in_short_is_an_alert(small_run: Run) -> None:
    alerts = small_run.evidence.alerts
    alerts[:] = [msgspec.structs.replace(one, wave=0, reason=None) for one in alerts]
    assert small_run.violated() == {}

    alerts.clear()
    assert small_run.violated() == {"I4": 1}


def test_a_missed_alert_is_told_with_all_that_decides_it(small_run: Run) -> None:
    small_run.evidence.alerts.clear()
    small_run.evidence.take(small_run.stands("bob", (51.0543, 3.7217), short=True))
    small_run.evidence.add("strikes", [Blow(12.0, "device", "device-1")])

    (told,) = small_run.judged().violations["I4"]

    assert told.startswith(f"bob was not alerted to fire {small_run.incident}; opened 10.000, ")
    assert "confirmed +0.200 s" in told
    assert "surely open until +990.000 s" in told  # when the run had settled
    assert "500 m from +0.000 s to +0.200 s on" in told
    assert "m from -8.000 s (-7.900 s for sure)" in told
    assert "surely due at +0.200 s" in told
    assert "hears alerts in short since -8.000 s" in told
    assert told.endswith("what was on its way to them was lost at +2.000 s")


def test_one_who_hides_before_they_are_looked_for_need_not_be_alerted(small_run: Run) -> None:
    small_run.evidence.alerts.clear()
    small_run.evidence.take(small_run.stands("bob", None, t=12.0, done=12.1))
    assert small_run.violated() == {}

    small_run.evidence.take(small_run.stands("bob", (51.0543, 3.7217), t=14.0, done=14.1))
    assert small_run.violated() == {"I4": 1}  # they came back, and stay


def test_one_who_comes_in_is_alerted_though_they_hide_at_once(small_run: Run) -> None:
    small_run.evidence.take(small_run.stands("dirk", (51.0543, 3.7217), t=20.0, done=20.1))
    small_run.evidence.take(small_run.stands("dirk", None, t=21.0, done=21.1))
    assert small_run.violated() == {"I4": 1}


# -- I1, I6: the store --


def test_a_receipted_report_that_the_store_lacks_is_lost(small_run: Run) -> None:
    small_run.facts.reports.clear()

    judgement = small_run.judged()

    assert small_run.violated() == {"I1": 1}
    assert judgement.lost == 1


def test_a_report_in_two_incidents_is_duplicated(small_run: Run) -> None:
    small_run.facts.reports[small_run.report] = 2

    assert small_run.violated() == {"I1": 1}
    assert small_run.judged().duplicated == 1


def test_a_probe_that_redis_forgot_when_it_was_killed_violates_i6(small_run: Run) -> None:
    created = small_run.evidence.created
    created[small_run.report] = msgspec.structs.replace(created[small_run.report], probe=True)
    small_run.facts.reports.clear()

    assert small_run.violated() == {"I6": 1}


def test_a_report_whose_receipt_only_the_journal_saw_must_be_in_the_store(small_run: Run) -> None:
    del small_run.evidence.receipts[small_run.report]
    small_run.facts.reports.clear()

    assert small_run.violated()["I1"] == 1


# -- I2: the journal --


def test_a_journaled_report_that_is_neither_receipted_nor_journaled_any_more_is_lost(
    small_run: Run,
) -> None:
    _without_receipt(small_run)

    assert small_run.violated()["I2"] == 1


def test_a_report_that_is_still_in_its_journal_is_not_lost_but_not_at_rest_either(
    small_run: Run,
) -> None:
    _without_receipt(small_run)
    small_run.facts.journals.add(small_run.report)

    violated = small_run.violated()

    assert "I2" not in violated
    assert violated["I8"] == 1


def test_what_a_dying_device_had_not_yet_journaled_was_never_promised(small_run: Run) -> None:
    _without_receipt(small_run)
    small_run.evidence.journaled.clear()
    small_run.evidence.started["device-1"].append(11.0)

    assert "I2" not in small_run.violated()


def _without_receipt(small_run: Run) -> None:
    small_run.evidence.receipts.clear()
    small_run.evidence.receipted.clear()


# -- I3: one effect --


def test_a_report_that_the_police_never_heard_of_is_lost(small_run: Run) -> None:
    small_run.evidence.escalations.clear()

    assert small_run.violated() == {"I3": 1}


def test_a_second_escalation_id_for_one_report_is_a_duplicate(small_run: Run) -> None:
    small_run.evidence.escalations.append(small_run.escalation(uuid.uuid4()))

    assert small_run.violated() == {"I3": 1}
    assert small_run.judged().duplicated == 1


def test_receipts_of_one_report_that_differ_violate_i3(small_run: Run) -> None:
    small_run.evidence.receipts[small_run.report].append(small_run.receipt(sequence=2))

    assert small_run.violated() == {"I3": 1}


def test_an_incident_that_counts_one_report_twice_violates_i3(small_run: Run) -> None:
    (kept,) = small_run.evidence.retained
    small_run.evidence.retained[:] = [msgspec.structs.replace(kept, reports=2)]

    assert small_run.violated() == {"I3": 1}
    assert small_run.judged().duplicated == 1


def test_an_incident_that_is_overdue_twice_in_one_attempt_violates_i3(small_run: Run) -> None:
    for identifier in (overdue_id(small_run.incident, 2), uuid.uuid4()):
        small_run.evidence.escalations.append(
            EscalationSeen(
                t=20.0,
                zone="gent",
                priority="p1",
                id=identifier,
                kind=EscalationKind.OVERDUE,
                incident=small_run.incident,
                attempt=2,
            )
        )

    assert small_run.violated() == {"I3": 1}


# -- I4, I5: alerts --


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
        msgspec.structs.replace(
            small_run.alert("bob"), incident=incident, id=alert_id(incident, 1, "bob")
        )
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


# -- I7: versions --


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


# -- I8: at rest --


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


# -- I10: commands --


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


# -- what is struck, and how long it takes --


def test_every_kind_of_victim_has_its_turn_and_the_seed_decides() -> None:
    kills = len(VICTIMS)
    strikes = strikes_of(kills, seed=7)

    assert {strike.victim for strike in strikes if strike.pause_s is None} == set(VICTIMS)
    assert [strike.share for strike in strikes] == sorted(strike.share for strike in strikes)
    assert strikes == strikes_of(kills, seed=7)
    assert strikes != strikes_of(kills, seed=8)


def test_recovery_is_the_time_until_the_next_report_has_its_receipt(small_run: Run) -> None:
    blows = [Blow(9.9, "intake", "intake-1"), Blow(500.0, "intake", "intake-2")]

    recovered = recovery_s(small_run.evidence, blows, Policy.parse(policy_text()).file)

    assert recovered == {"intake": {"p50": 0.3, "max": 0.3, "backlog_max": 0.3}}


def test_a_service_is_back_when_what_the_contract_gives_it_is_done_again(small_run: Run) -> None:
    sent = [
        MessageSent(
            t=12.0, user="bob", subject=Subject.REPLY, incident=small_run.incident, done=12.5
        ),
        MessageSent(
            t=30.0, user="ann", subject=Subject.ANSWER, incident=small_run.incident, done=30.1
        ),
    ]
    small_run.evidence.take_all(sent)
    killed = {"presence": 1.9, "alerting": 9.9, "groups": 11.9, "police": 19.9}
    blows = [Blow(at, service, f"{service}-1") for service, at in killed.items()]
    blows.append(Blow(29.9, "police", "police-2"))

    recovered = recovery_s(small_run.evidence, blows, Policy.parse(policy_text()).file)

    assert {service: times["max"] for service, times in recovered.items()} == {
        "presence": 0.2,
        "alerting": 0.4,
        "groups": 0.6,
        "police": 0.2,
    }
