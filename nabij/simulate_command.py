"""`nabij simulate`: thousands of small worlds in virtual time, and what was broken in them."""

import sys
import time
from typing import Annotated

import typer

from nabij.output import print_json, print_line, say
from nabij.simulation.broken import Broken
from nabij.simulation.run import Result, lines, simulate
from nabij.simulation.wire import simulate_wires

FAILED = 1


def simulate_command(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="how many worlds")] = 500,
    first: Annotated[int, typer.Option("--first", "--seed", min=0, help="the first seed")] = 0,
    *,
    trace: Annotated[bool, typer.Option(help="tell everything that happens, in order")] = False,
    broken: Annotated[
        Broken | None, typer.Option(help="break this promise on purpose: it must be seen")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Live through small worlds in which everything goes wrong, and judge what was promised.

    The services' own code, with a modelled clock, network, Redis and MQTT broker. A seed always
    tells the same story: `nabij simulate --seeds 1 --first SEED --trace` replays it.
    """
    began = time.perf_counter()
    chosen = range(first, first + seeds)
    result = simulate(chosen, broken=broken, on_trace=_tell if trace else None)
    wires = [] if broken else simulate_wires(chosen)
    took_s = time.perf_counter() - began
    if as_json:
        print_json(_summary(result, wires, took_s))
    else:
        _print(result, wires, took_s)
    if result.failing or wires:
        raise typer.Exit(FAILED)


def _tell(now: float, who: str, what: str) -> None:
    sys.stderr.write(f"{now:10.4f} {who:8} {what}\n")


def _print(result: Result, wires: list[str], took_s: float) -> None:
    for line in (*lines(result), *wires):
        print_line(line)
    for seed in result.failing:
        say(f"again, with everything told: nabij simulate --seeds 1 --first {seed} --trace")
    print_line("  ".join(f"{name} {count}" for name, count in result.invariants.items()))
    print_line(
        f"{result.seeds} seeds, {len(result.failing)} failing, in {took_s:.1f} s: "
        f"{result.reports} reports, {result.alerts} alerts, {result.commands} commands"
    )


def _summary(result: Result, wires: list[str], took_s: float) -> dict[str, object]:
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
