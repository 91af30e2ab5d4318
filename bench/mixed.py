"""Report to police while alerts to 5,000 people run without pause and positions flood in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from bench.bench_world import BenchWorld, world
from bench.fanout import volley_at
from bench.presence_load import updates
from bench.results import BenchResult, Histogram, Plot, Ratio, Row

FEW, MANY = 10, 5_000
RATE = 10.0
UPDATES_PER_S = 5_000
_SLICE_S = 0.02


@asynccontextmanager
async def crowded(here: BenchWorld) -> AsyncIterator[None]:
    """Let alerts to many run, one fan-out after another, beside positions, while this lasts."""
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        alerting = tasks.create_task(_alert(here, enough))
        flooding = tasks.create_task(_flood(here))
        await asyncio.sleep(1.0)
        try:
            yield
        finally:
            enough.set()  # and not cancelled: its answers would be taken for those of the next
            flooding.cancel()
            await asyncio.wait([alerting])


async def _alert(here: BenchWorld, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await here.send(1, 1.0, MANY, within_s=60.0)


async def _flood(here: BenchWorld) -> None:
    volley, random = await volley_at(here.stack.mqtt_url), Random(7)
    packets = updates(UPDATES_PER_S, random)
    portion = int(UPDATES_PER_S * _SLICE_S)
    slices = [b"".join(packets[at : at + portion]) for at in range(0, len(packets), portion)]
    while True:
        for one in slices:
            volley.fire(one)
            await asyncio.sleep(_SLICE_S)


async def measure(*, quick: bool) -> BenchResult:
    """Measure idle and crowded by turns."""
    rounds, count = (2, 60) if quick else (5, 200)
    idle: list[list[float]] = []
    busy: list[list[float]] = []
    async with world([FEW, MANY]) as here:
        await here.send(40, RATE, FEW)  # warm-up
        await here.send(2, 1.0, MANY)
        for _ in range(rounds):
            sent = await here.send(count, RATE, FEW)
            idle.append([one.police - one.due for one in sent])
            async with crowded(here):
                sent = await here.send(count, RATE, FEW)
            busy.append([one.police - one.due for one in sent])
    ratio = Ratio.of([Histogram(x).ms(99) for x in busy], [Histogram(x).ms(99) for x in idle])
    all_busy = Histogram(one for some in busy for one in some)
    all_idle = Histogram(one for some in idle for one in some)
    keys: dict[str, object] = {
        "ratio_police_p99": ratio.median,
        "police_p99_ms": all_busy.ms(99),
        "idle_police_p99_ms": all_idle.ms(99),
    }
    row = Row(
        "report → police, p99, crowded (floor: idle)",
        f"{all_busy.ms(99):.1f} ms",
        f"{all_idle.ms(99):.1f} ms",
        str(ratio),
        "≤ 3",
    )
    curves = {"crowded": all_busy.curve(), "idle": all_idle.curve()}
    return BenchResult("mixed", keys, [row], [Plot("Report to police", "percentile", "ms", curves)])
