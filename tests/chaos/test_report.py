"""What `nabij chaos` says of a run."""

import uuid
from typing import Any

import msgspec

from verify.chaos.chaos_run import ChaosOutcome
from verify.chaos.report import as_json

Run = Any  # tests/chaos/conftest.py: SmallRun


def test_a_report_whose_device_was_killed_before_it_was_on_its_disk_is_none(small_run: Run) -> None:
    evidence = small_run.evidence
    never_kept = msgspec.structs.replace(evidence.created[small_run.report], id=uuid.uuid4())
    evidence.created[never_kept.id] = never_kept
    outcome = ChaosOutcome(
        judgement=small_run.judged(),
        evidence=evidence,
        blows=[],
        recovery={},
        most_mb={},
        began=0.0,
        settled=True,
        struck_s=1.0,
        settle_s=1.0,
        changes=[],
        unexercised=[],
    )

    assert as_json(outcome, seed=1, engine="mosquitto", began=0.0)["reports"] == 1
