"""Real processes, really killed: nothing is lost; and where the promise is broken, it is told."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nabij.local.embedded import EmbeddedMqtt, MqttEngine
from verify.chaos.chaos_run import Run
from verify.chaos.chaos_world import ChaosWorld, Scale
from verify.chaos.plan import VICTIMS, Strike
from verify.oracle.judgement import Judgement

SABOTAGED = Path(__file__).with_name("sabotaged_worker.py")
SABOTAGED_EDGE = Path(__file__).with_name("sabotaged_edge.py")
NABIJ = (sys.executable, "-m", "nabij.cli")


@pytest.fixture
def engine(mqtt_engine: MqttEngine) -> MqttEngine:
    return mqtt_engine


def test_nothing_is_lost_or_happens_twice_while_everything_is_killed_in_turn(
    tmp_path: Path, engine: MqttEngine
) -> None:
    # Long enough that the second half has the samples by which I9 judges (verify/chaos/growth.py).
    result = _chaos(tmp_path, engine, "--reports", "1000", "--kills", "16", "--duration", "28")

    assert result["violations"] == {}
    keeps_word = engine is not MqttEngine.MOSQUITTO
    assert result["invariants"] == dict.fromkeys((f"I{n}" for n in range(1, 11 + keeps_word)), 0)
    assert [*result["not_judged"]] == ([] if keeps_word else ["I11"])
    assert (result["mqtt_acknowledged"] > 200) is keeps_word
    assert (result["lost"], result["duplicated"]) == (0, 0)
    # Of those on a device's disk: for one that was not there yet when it died, it makes another.
    assert result["reports"] == 1_000
    assert sum(result["kills"].values()) == 16
    assert set(result["kills"]) == set(VICTIMS)
    assert result["unexercised"] == []


def _chaos(data_dir: Path, engine: MqttEngine, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            *NABIJ,
            "chaos",
            *words,
            "--seed",
            "3",
            "--engine",
            engine,
            "--json",
            "--data-dir",
            str(data_dir),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr[-3_000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# Sabotages that do not touch each other share a run: each is caught by what it alone breaks.


async def test_skipped_idempotency_and_a_dropped_alert_are_caught(
    tmp_path: Path, engine: MqttEngine
) -> None:
    strikes = [Strike(0.3, "intake", pick, pause_s=2.0) for pick in (0.0, 0.9)]

    judgement = await _sabotaged(tmp_path, engine, "skip-idempotency,drop-an-alert", strikes)

    assert judgement.counts["I3"] > 0
    assert judgement.duplicated > 0
    assert judgement.counts["I4"] > 0
    assert all("p-7 " in what for what in judgement.violations["I4"]), judgement.violations["I4"]
    assert judgement.lost >= judgement.counts["I4"]


async def test_a_receipt_before_the_commit_and_a_puback_taken_for_a_reader_are_caught(
    tmp_path: Path, engine: MqttEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of our own MQTT broker: a PUBACK before the journal has the message, and a lost session."""
    strikes = [Strike(share, "intake", pick) for share, pick in ((0.3, 0.0), (0.6, 0.9))]
    strikes.append(Strike(0.8, "mqtt", 0.0))
    if keeps_word := engine is not MqttEngine.MOSQUITTO:
        _sabotage_edge(monkeypatch, "acknowledge-unwritten,forget-session")

    judgement = await _sabotaged(
        tmp_path, engine, "acknowledge-before-commit,believe-puback", strikes
    )

    forgotten = set(_reports_that("was receipted and is not in the store", judgement, "I1"))
    untold = set(_reports_that("had no escalation", judgement, "I3"))
    assert forgotten
    assert untold - forgotten  # the store has them: it was the desk that they never reached
    assert judgement.lost >= len(forgotten | untold)
    if keeps_word:
        blamed = judgement.violations["I11"]
        assert any(one.startswith("the session of kept-1 was forgotten") for one in blamed)
        assert [one for one in blamed if "kept-1" not in one]  # acknowledged, and not written


def _sabotage_edge(monkeypatch: pytest.MonkeyPatch, sabotages: str) -> None:
    """Have our own MQTT broker break its word."""
    honest = EmbeddedMqtt._command

    def command(self: EmbeddedMqtt) -> list[str]:
        return [sys.executable, str(SABOTAGED_EDGE), sabotages, honest(self)[-1]]

    monkeypatch.setattr(EmbeddedMqtt, "_command", command)


def _reports_that(what: str, judgement: Judgement, invariant: str) -> Iterator[str]:
    """Return the ids of the reports of which this is said."""
    for violation in judgement.violations[invariant]:
        if violation.startswith("report ") and violation.endswith(what):
            yield violation.split()[1]


async def _sabotaged(
    directory: Path, engine: MqttEngine, sabotages: str, strikes: Sequence[Strike]
) -> Judgement:
    scale = Scale(
        reports=220,
        lasts_s=5.0,
        seed=5,
        engine=engine,
        worker=(sys.executable, str(SABOTAGED), sabotages),
    )
    async with ChaosWorld(directory, scale) as world:
        return (await Run(world, strikes, lambda *_: None).run()).judgement
