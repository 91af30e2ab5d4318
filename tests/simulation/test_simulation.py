"""Thousands of worlds, what is broken on purpose, and that a seed tells one story."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from broker.mqtt.session import Event, PublishReceived, Session
from schemas import topics
from schemas.messages import Sync
from schemas.roles import Role
from schemas.topics import TOPICS, Topic
from verify.simulation import simulated_world
from verify.simulation.broken import Broken
from verify.simulation.session_fuzz import simulate_wires
from verify.simulation.simulation_run import first_failing, lines, simulate
from verify.world import exercised
from verify.world.exercised import Exercised, sent_topics

SEEDS = 100
WITHIN = 100  # seeds: so soon must a broken promise be seen

WORKERS = (topics.SERVICE, topics.PROBE)  # no promise is about what workers say of themselves
BROKEN = {
    Broken.ACKNOWLEDGE_FIRST: {"I3", "I4", "I8", "I10"},
    Broken.PUBLISH_FIRST: {"I1", "I3"},
    Broken.NO_IDEMPOTENCY: {"I1", "I3"},
    Broken.BELIEVE_PUBACK: {"I3", "I7"},
    Broken.LOST_ALERT: {"I4"},
    Broken.DEAF_SYNC: {"I3"},
    Broken.KEEP_PLACE: {"I5"},
    Broken.GOSSIP: {"I5"},
    Broken.WHOLE_HISTORY: {"I5"},
    Broken.TELL_LEAVERS: {"I5"},
    Broken.IGNORE_LEAVING: {"I3"},
    Broken.HEAR_ABSENCE: {"I5"},
    Broken.REPORT_HEARS_ABSENCE: {"I5"},
    Broken.REPORT_HELPS: {"I4"},
    Broken.NO_CALL_AGAIN: {"I4"},
    Broken.OLD_IS_NEW: {"I5"},
    Broken.WORDY_BRIEF: {"I5"},
    Broken.KEEP_RETAINED: {"I8"},
    Broken.LET_DEAD_LIE: {"I3", "I4", "I8"},
    Broken.NO_NOTES: {"I3"},
    Broken.ACKNOWLEDGE_UNWRITTEN: {"I11"},
    Broken.FORGET_SESSION: {"I11"},
}
# Where a breach was seen that few worlds show: tried first, to be quick.
SEEN = {
    Broken.ACKNOWLEDGE_FIRST: 65,
    Broken.ACKNOWLEDGE_UNWRITTEN: 7,
    Broken.FORGET_SESSION: 4,
    Broken.KEEP_PLACE: 20,
    Broken.LET_DEAD_LIE: 17,
    Broken.OLD_IS_NEW: 25,
    Broken.TELL_LEAVERS: 12,
    Broken.IGNORE_LEAVING: 8,
    Broken.HEAR_ABSENCE: 152,
    Broken.REPORT_HEARS_ABSENCE: 8,
    Broken.REPORT_HELPS: 8,
    Broken.NO_CALL_AGAIN: 8,
}

STORY = """
import sys
from verify.simulation.simulation_run import simulate
simulate([int(sys.argv[1])], on_trace=lambda now, who, what: print(repr(now), who, what))
"""


def test_honest_worlds_break_no_promise_and_show_all_that_the_contract_has() -> None:
    """One test: each worker that runs a part of it would live through all worlds again."""
    result = simulate(range(SEEDS))

    assert result.seeds == SEEDS
    assert list(lines(result)) == []
    assert set(result.invariants) == {"I1", "I2", "I3", "I4", "I5", "I7", "I8", "I10", "I11"}
    assert result.reports > SEEDS
    assert result.alerts > SEEDS // 3
    assert result.commands > SEEDS
    # MQTT brokers with a journal are killed, and those without.
    assert result.kept_deaths > SEEDS // 5
    assert result.forgetful_deaths > SEEDS // 10
    # No topic is forgotten.
    assert result.exercised.missing() == []


def test_a_right_that_an_account_lacks_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = simulated_world.accounts()
    for lacking in ({"reads": ()}, {"writes": ()}):
        accounts = honest | {"p1": replace(honest["p1"], **lacking)}
        monkeypatch.setattr(simulated_world, "accounts", lambda given=accounts: given)
        assert first_failing(range(3)) is not None


# -- no topic is forgotten -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic",
    [one for one in TOPICS if one not in sent_topics() and one not in WORKERS],
    ids=lambda topic: topic.template,
)
def test_the_judge_sees_it_when_nothing_arrives_on_a_topic(topic: Topic[object]) -> None:
    assert first_failing(range(WITHIN), swallowed=topic.template) is not None


def test_a_new_topic_is_missed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Topic("u/{user}/down/new", Sync, Role.SERVICE, Role.PARTICIPANT)
    monkeypatch.setattr(exercised, "TOPICS", (*TOPICS, new))
    assert "u/{user}/down/new: never heard" in Exercised().missing()


# -- no breach goes unseen -------------------------------------------------------------------------


@pytest.mark.parametrize("broken", Broken)
def test_a_promise_broken_on_purpose_is_seen(broken: Broken) -> None:
    found = first_failing([SEEN.get(broken, 0), *range(WITHIN)], broken)
    assert found is not None, f"{broken} is not seen within {WITHIN} seeds"
    assert {violation.invariant for violation in found[1]} & BROKEN[broken]


def story(seed: int, hash_seed: str) -> str:
    told = subprocess.run(
        [sys.executable, "-c", STORY, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    first = story(11, "1")
    assert len(first.splitlines()) > 20
    assert story(11, "2") == first


def test_different_seeds_tell_different_stories() -> None:
    assert story(11, "1") != story(12, "1")


def test_no_wire_loses_a_message_or_acknowledges_unasked() -> None:
    assert simulate_wires(range(1_000)) == []


class Forgetful(Session):
    """Does not send again what was in flight when the connection went."""

    def lost(self) -> None:
        self._outbound._in_flight.clear()
        super().lost()


class Eager(Session):
    """Acknowledges a delivery as soon as it has come."""

    def receive(self, data: bytes, now: float) -> list[Event]:
        events = super().receive(data, now)
        for event in events:
            if isinstance(event, PublishReceived):
                self.acknowledge(event.packet_id, event.epoch)
        return events


@pytest.mark.parametrize("broken", [Forgetful, Eager])
def test_a_session_that_breaks_its_promise_is_seen(broken: type[Session]) -> None:
    assert simulate_wires(range(100), broken)


def test_the_command_that_is_told_for_a_failing_seed_repeats_the_failure() -> None:
    def simulated(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nabij.cli", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    failing = simulated("simulate", "--seeds", "1", "--first", "2", "--broken", "lost-alert")
    assert failing.returncode == 1
    [told] = [line for line in failing.stderr.splitlines() if "nabij simulate" in line]
    again = simulated(*told.partition("nabij ")[2].split())
    assert (again.returncode, again.stdout.split(" in ")[0]) == (
        1,
        failing.stdout.split(" in ")[0],
    )
    assert len(again.stderr) > len(failing.stderr)
