"""Processor time of a report and of an alert with four workers of each service, beside one."""

from collections.abc import Mapping

from bench.bench_world import world
from bench.results import BenchResult, Row
from bench.stages import FEW, MANY, RATE, idle_of, reports_of
from services import ALL

SEVERAL = 4


async def measure(*, quick: bool) -> BenchResult:
    """Measure one after the other, each in a system of its own, at a rate that leaves time."""
    lasts_s = 5.0 if quick else 30.0
    one = await _of(1, lasts_s)
    several = await _of(SEVERAL, lasts_s)
    rows: list[Row] = []
    keys: dict[str, object] = {}
    for what, name in (("a report", "report"), ("an alert more", "alert")):
        ratio = round(several[name] / one[name], 2)
        keys[f"ratio_{name}_us"] = ratio
        keys[f"{name}_us"] = {"1": one[name], str(SEVERAL): several[name]}
        rows.append(
            Row(
                f"{what}, {SEVERAL} workers (floor: 1)",
                f"{several[name]:,.0f} µs",
                f"{one[name]:,.0f} µs",
                f"{ratio:.2f}",
            )
        )
    return BenchResult("workers", keys, rows, [])


async def _of(workers: int, lasts_s: float) -> Mapping[str, float]:
    """Return what all processes together use (µs)."""
    async with world([FEW, MANY], workers=dict.fromkeys(ALL, workers)) as here:
        await here.send(40, RATE, FEW)  # warm-up
        await here.send(10, RATE, MANY)
        idle = await idle_of(here, 3.0)
        few = sum((await reports_of(here, FEW, lasts_s, idle)).values())
        many = sum((await reports_of(here, MANY, lasts_s, idle)).values())
    return {"report": few * 1e6, "alert": (many - few) / (MANY - FEW) * 1e6}
