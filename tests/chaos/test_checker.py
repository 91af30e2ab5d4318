"""The judge can fail: I1 to I3, on reports, are each violated once in logs made by hand."""

import uuid

import msgspec

from schemas.ids import overdue_id
from schemas.messages import EscalationKind
from tests.chaos.conftest import SmallRun as Run
from verify.chaos.chaos_log import Blow
from verify.oracle.observations import EscalationSeen


def test_a_run_in_which_all_went_well_violates_nothing(small_run: Run) -> None:
    assert small_run.violated() == {}


def test_messages_that_come_again_under_their_ids_violate_nothing(small_run: Run) -> None:
    evidence = small_run.evidence
    evidence.alerts *= 2
    evidence.groups *= 2
    evidence.escalations *= 2
    evidence.receipts[small_run.report] *= 2

    assert small_run.violated() == {}


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
