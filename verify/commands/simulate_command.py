"""`nabij simulate`: thousands of small worlds in virtual time, and what was broken in them."""

import sys
import time

import typer

from nabij.output import print_json, print_line, program, say
from verify.simulation.broken import Broken
from verify.simulation.session_fuzz import simulate_wires
from verify.simulation.simulation_run import SimulationResult, lines, simulate


def run_simulation(chosen: range, breaking: str | None, *, trace: bool, as_json: bool) -> bool:
    """Simulate these seeds and print the judgement; return whether nothing was violated.

    The services' own code and MQTT broker, with a modelled clock, network and Redis. A seed always
    tells the same story: `nabij simulate --seeds 1 --first SEED --trace` replays it.
    """
    try:
        broken = Broken(breaking) if breaking else None
    except ValueError:
        raise typer.BadParameter(f"one of {', '.join(Broken)}", param_hint="--broken") from None
    began = time.perf_counter()
    result = simulate(chosen, broken=broken, on_trace=_tell if trace else None)
    wires = [] if broken else simulate_wires(chosen)
    took_s = time.perf_counter() - began
    if as_json:
        print_json(_summary(result, wires, took_s))
    else:
        _print(result, wires, took_s, broken)
    return not (result.failing or wires)


def _tell(now: float, who: str, what: str) -> None:
    sys.stderr.write(f"{now:10.4f} {who:8} {what}\n")


def _print(
    result: SimulationResult, wires: list[str], took_s: float, broken: Broken | None
) -> None:
    for line in (*lines(result), *wires):
        print_line(line)
    breaking = f" --broken {broken}" if broken else ""
    for seed in result.failing:
        again = f"{program()} simulate --seeds 1 --first {seed}{breaking} --trace"
        say(f"again, with everything told: {again}")
    print_line("  ".join(f"{name} {count}" for name, count in result.invariants.items()))
    print_line(
        f"{result.seeds} seeds, {len(result.failing)} failing, in {took_s:.1f} s: "
        f"{result.reports} reports, {result.alerts} alerts, {result.commands} commands"
    )


def _summary(result: SimulationResult, wires: list[str], took_s: float) -> dict[str, object]:
    return {
        "seeds": result.seeds,
        "failing": sorted(result.failing),
        "invariants": dict(result.invariants),
        "violations": list(lines(result)),
        "wires": wires,
        "reports": result.reports,
        "alerts": result.alerts,
        "commands": result.commands,
        "took_s": round(took_s, 2),
    }
