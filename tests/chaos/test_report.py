"""What `nabij chaos` says of a run."""

import uuid
from typing import Any

import msgspec
import pytest

from verify.chaos.chaos_run import ChaosOutcome
from verify.chaos.report import as_json, print_report
from verify.oracle.judgement import INVARIANTS

Run = Any  # tests/chaos/conftest.py: SmallRun


def outcome_of(run: Run, not_judged: dict[str, str] | None = None) -> ChaosOutcome:
    return ChaosOutcome(
        judgement=run.judged(),
        evidence=run.evidence,
        blows=[],
        recovery={},
        most_mb={},
        began=0.0,
        settled=True,
        struck_s=1.0,
        settle_s=1.0,
        changes=[],
        unexercised=[],
        not_judged=not_judged or {},
    )


def test_a_report_whose_device_was_killed_before_it_was_on_its_disk_is_none(small_run: Run) -> None:
    evidence = small_run.evidence
    never_kept = msgspec.structs.replace(evidence.created[small_run.report], id=uuid.uuid4())
    evidence.created[never_kept.id] = never_kept

    result = as_json(outcome_of(small_run), seed=1, engine="mosquitto", began=0.0)
    assert result["reports"] == 1


def test_an_invariant_that_is_not_judged_counts_nothing_and_says_why(
    small_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = outcome_of(small_run, {"I11": "it has no journal"})

    result = as_json(outcome, seed=1, engine="mosquitto", began=0.0)
    print_report(result)

    assert result["invariants"].keys() == INVARIANTS.keys() - {"I11"}
    assert result["not_judged"] == {"I11": "it has no journal"}
    printed = capsys.readouterr().out.splitlines()
    row = next(line for line in printed if line.startswith("I11"))
    assert row.split()[:2] == ["I11", "-"]
    assert "  I11 is not judged: it has no journal" in printed
