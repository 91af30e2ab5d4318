"""How many reports and alerts a second: a ramp with 50 recipients each, until p99 passes 1 s."""

import asyncio
import time

from bench.bench_world import BenchWorld, TimedReport, world
from bench.fanout import Volley, packets_to, volley_at
from bench.results import BenchResult, Histogram, Plot, Ratio, Row
from schemas.ids import new_id

RECIPIENTS = 50
TOO_LATE_MS = 1_000.0
_FLOOR_REPORTS = 400
_FIRST_RATE, _GROWTH = 20.0, 1.25
_SETTLE_S = 40.0


async def floor_of(here: BenchWorld, volley: Volley, reports: int) -> float:
    """Return the deliveries a second of `reports` times 50 packets, written as they are taken."""
    users = list(here.groups[RECIPIENTS].users)
    key = str(new_id())
    packets = packets_to(users * reports, key)
    began = volley.fire(packets)
    answer = await here.recipients[RECIPIENTS].ask(len(users) * reports, 60.0)
    group = answer.groups[key]
    return group.count / (group.last - began)


async def step(
    here: BenchWorld, rate: float, lasts_s: float
) -> tuple[list[TimedReport], float, float]:
    """Return the reports of one step, their p99 (ms) to the last alert, and deliveries a second."""
    began = time.perf_counter()
    sent = await here.start(max(20, int(rate * lasts_s)), rate, RECIPIENTS)
    await here.settle(sent, _SETTLE_S)
    ended = max(one.last for one in sent)
    late = Histogram(one.last - one.due for one in sent)
    return sent, late.ms(99), sum(one.alerts for one in sent) / (ended - began)


# long: one measurement, told in its order
async def measure(*, quick: bool) -> BenchResult:
    """Raise the rate by a quarter a step until the 99th percentile passes a second."""
    lasts_s = 3.0 if quick else 8.0
    rounds = 1 if quick else 3
    knees, floors, reports = [], [], []
    curve: list[tuple[float, float]] = []
    async with world([RECIPIENTS]) as here:
        volley = await volley_at(here.stack.mqtt_url)
        await here.send(40, 20.0, RECIPIENTS)  # warm-up
        for _ in range(rounds):
            floors.append(await floor_of(here, volley, _FLOOR_REPORTS))
            await asyncio.sleep(0.5)
            rate, knee, carried = _FIRST_RATE * (2.0 if quick else 1.0), 0.0, 0.0
            curve = []
            while True:
                _, late_ms, deliveries = await step(here, rate, lasts_s)
                curve.append((rate, late_ms))
                if late_ms > TOO_LATE_MS:
                    break
                knee, carried = deliveries, rate
                rate *= _GROWTH
            knees.append(knee)
            reports.append(carried)
    ratio = Ratio.of(knees, floors)
    keys: dict[str, object] = {
        "ratio_knee": ratio.median,
        "reports_per_s": max(reports),
        "deliveries_per_s": max(knees),
        "floor_deliveries_per_s": max(floors),
    }
    rows = [
        Row("reports a second at the knee", f"{max(reports):.0f}"),
        Row(
            "alerts a second at the knee",
            f"{max(knees):,.0f}",
            f"{max(floors):,.0f}",
            str(ratio),
            "≥ 0.75",
        ),
    ]
    plot = Plot("p99 to the last alert", "reports a second", "ms", {"Nabij": curve})
    return BenchResult("saturation", keys, rows, [plot])
