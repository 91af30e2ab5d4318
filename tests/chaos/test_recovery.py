"""Which victims a seed kills when, and how long it takes until reports are answered again."""

from broker.core.policy import Policy
from schemas.messages import Subject
from tests.chaos.conftest import SmallRun as Run
from verify.chaos.chaos_log import Blow
from verify.chaos.chaos_world import policy_text
from verify.chaos.plan import VICTIMS, strikes_of
from verify.chaos.recovery import recovery_s
from verify.oracle.observations import MessageSent


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
