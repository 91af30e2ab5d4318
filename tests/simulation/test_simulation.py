"""Thousands of worlds, what is broken on purpose, and that a seed tells one story."""

import os
import subprocess
import sys

import pytest

from broker.mqtt.session import Event, Received, Session
from nabij.simulation.broken import Broken
from nabij.simulation.run import first_failing, lines, simulate
from nabij.simulation.wire import simulate_wires

SEEDS = 200
WITHIN = 150  # seeds: so soon must a broken promise be seen

STORY = """
import sys
from nabij.simulation.run import simulate
simulate([int(sys.argv[1])], on_trace=lambda now, who, what: print(repr(now), who, what))
"""


def test_no_promise_is_broken_in_any_world() -> None:
    result = simulate(range(SEEDS))
    assert result.seeds == SEEDS
    assert list(lines(result)) == []
    assert set(result.invariants) == {"I1", "I2", "I3", "I4", "I5", "I7", "I8", "I10"}
    assert result.reports > SEEDS
    assert result.alerts > SEEDS // 2
    assert result.commands > SEEDS


@pytest.mark.parametrize(
    ("broken", "invariants"),
    [
        (Broken.ACKNOWLEDGE_FIRST, {"I3", "I4", "I10"}),
        (Broken.PUBLISH_FIRST, {"I1", "I3"}),
        (Broken.NO_IDEMPOTENCY, {"I1", "I3"}),
        (Broken.BELIEVE_PUBACK, {"I3", "I7"}),
        (Broken.LOST_ALERT, {"I4"}),
    ],
)
def test_a_promise_broken_on_purpose_is_seen(broken: Broken, invariants: set[str]) -> None:
    found = first_failing(range(WITHIN), broken)
    assert found is not None, f"{broken} is not seen within {WITHIN} seeds"
    assert {violation.invariant for violation in found[1]} & invariants


def test_every_promise_has_its_breach() -> None:
    assert len(Broken) == 5


def story(seed: int, hash_seed: str) -> str:
    told = subprocess.run(
        [sys.executable, "-c", STORY, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
    )  # fmt: skip
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
            if isinstance(event, Received):
                self.acknowledge(event.packet_id, event.epoch)
        return events


@pytest.mark.parametrize("broken", [Forgetful, Eager])
def test_a_session_that_breaks_its_promise_is_seen(broken: type[Session]) -> None:
    assert simulate_wires(range(100), broken)
