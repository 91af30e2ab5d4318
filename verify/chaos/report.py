"""What `nabij chaos` prints of a run."""

import time
from collections import Counter
from typing import Any

from nabij.output import print_line, print_table
from verify.chaos.chaos_run import ChaosOutcome
from verify.oracle.judgement import INVARIANTS


def as_json(outcome: ChaosOutcome, *, seed: int, engine: str, began: float) -> dict[str, Any]:
    """Return the run as one object."""
    judgement = outcome.judgement
    kills = Counter(str(blow.victim) for blow in outcome.blows if blow.pause_s is None)
    pauses = Counter(str(blow.victim) for blow in outcome.blows if blow.pause_s is not None)
    evidence = outcome.evidence
    return {
        "passed": judgement.passed,
        "reports": sum(not evidence.created[report].probe for report in evidence.kept()),
        "receipted": len(evidence.receipts),
        "alerts": len({(alert.user, alert.incident) for alert in evidence.alerts}),
        "escalations": len({told.id for told in evidence.escalations}),
        "cases": len({case.id for case in evidence.cases}),
        "replies_and_messages": sum(sent.done is not None for sent in evidence.sent.values()),
        "commands": len(evidence.commands),
        "mqtt_acknowledged": len(evidence.acknowledged),
        "kills": dict(kills),
        "pauses": dict(pauses),
        "changes": dict(Counter(rescale.change.value for rescale in outcome.changes)),
        "lost": judgement.lost,
        "duplicated": judgement.duplicated,
        "invariants": {
            name: count
            for name, count in judgement.counts.items()
            if name not in outcome.not_judged
        },
        "not_judged": outcome.not_judged,
        "violations": {name: judgement.examples(name) for name in judgement.violations},
        "recovery_s": outcome.recovery,
        "most_mb": outcome.most_mb,
        "unexercised": outcome.unexercised,
        "settled": outcome.settled,
        "struck_s": round(outcome.struck_s, 1),
        "settle_s": round(outcome.settle_s, 1),
        "engine": engine,
        "seed": seed,
        "duration_s": round(time.time() - began, 1),
    }


def print_report(result: dict[str, Any]) -> None:
    """Write it for people."""
    kills, pauses = result["kills"], result["pauses"]
    print_line(
        f"{result['reports']:,} reports, {sum(kills.values())} kills, {sum(pauses.values())} "
        f"pauses, {result['engine']}, seed {result['seed']}, {result['duration_s']} s"
    )
    if changes := result["changes"]:
        print_line(", ".join(f"{change} {count}" for change, count in changes.items()))
    print_line(f"lost {result['lost']}, duplicated {result['duplicated']}\n")
    counts = result["invariants"]
    rows = [[name, str(counts.get(name, "-")), text] for name, text in INVARIANTS.items()]
    print_table(["", "violations", "invariant"], rows)
    for name, why in result["not_judged"].items():
        print_line(f"  {name} is not judged: {why}")
    for name, examples in result["violations"].items():
        for example in examples:
            print_line(f"  {name}: {example}")
    print_line("")
    recovery = result["recovery_s"]
    rows = [
        [victim, str(count), str(pauses.get(victim, 0)), *_times(recovery.get(victim))]
        for victim, count in sorted(kills.items())
    ]
    print_table(["victim", "kills", "pauses", "next p50 s", "max s", "backlog max s"], rows)


def _times(recovery: dict[str, float] | None) -> list[str]:
    if recovery is None:
        return ["-"] * 3
    return [f"{recovery[name]:.2f}" for name in ("p50", "max", "backlog_max")]
