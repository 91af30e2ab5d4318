"""Processor time of each process: for a report, for one more alert of it, for a position update."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from random import Random

from bench.bench_world import BenchWorld, server_pids, world
from bench.fanout import volley_at
from bench.presence_load import updates
from bench.results import BenchResult, Row

FEW, MANY = 1, 101
RATE = 20.0
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_UPDATES_PER_S, _SLICES_PER_S = 4_000, 50


def processor_s(here: BenchWorld) -> dict[str, float]:
    """Return what each service, all its workers together, and each server has used so far (s)."""
    used: defaultdict[str, float] = defaultdict(float)
    for one in here.stack.supervisor.workers:
        if one.pid:
            used[one.service] += _used_s(one.pid)
    return used | {name: _used_s(pid) for name, pid in server_pids().items()}


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def idle_of(here: BenchWorld, lasts_s: float) -> Mapping[str, float]:
    """Return what each uses while nothing happens (s per s)."""
    before = processor_s(here)
    await asyncio.sleep(lasts_s)
    return {name: (used - before[name]) / lasts_s for name, used in processor_s(here).items()}


async def reports_of(
    here: BenchWorld, size: int, lasts_s: float, idle: Mapping[str, float]
) -> Mapping[str, float]:
    """Return what each uses for a report to `size` people (s)."""
    before = processor_s(here)
    sent = await here.send(int(RATE * lasts_s), RATE, size)
    await asyncio.sleep(0.5)  # what is recorded afterwards belongs to it
    after = processor_s(here)
    took_s = lasts_s + 0.5
    return {name: (after[name] - before[name] - idle[name] * took_s) / len(sent) for name in after}


async def _positions(
    here: BenchWorld, lasts_s: float, idle: Mapping[str, float]
) -> Mapping[str, float]:
    """Return what each uses for a position update (s)."""
    volley = await volley_at(here.stack.mqtt_url)
    packets = updates(int(_UPDATES_PER_S * lasts_s), Random(7))
    portion = _UPDATES_PER_S // _SLICES_PER_S
    before = processor_s(here)
    for first in range(0, len(packets), portion):
        volley.fire(b"".join(packets[first : first + portion]))
        await asyncio.sleep(1 / _SLICES_PER_S)
    await volley.acknowledged(len(packets))
    await asyncio.sleep(0.5)
    after = processor_s(here)
    took_s = lasts_s + 0.5
    return {
        name: (after[name] - before[name] - idle[name] * took_s) / len(packets) for name in after
    }


async def measure(*, quick: bool) -> BenchResult:
    """Measure at a rate that leaves the processors time."""
    lasts_s = 8.0 if quick else 30.0
    async with world([FEW, MANY]) as here:
        await here.send(40, RATE, FEW)  # warm-up
        await here.send(10, RATE, MANY)
        idle = await idle_of(here, 3.0)
        few = await reports_of(here, FEW, lasts_s, idle)
        many = await reports_of(here, MANY, lasts_s, idle)
        positions = await _positions(here, lasts_s / 2, idle)
    keys: dict[str, object] = {}
    rows = [Row("microseconds of processor time", "a report", "an alert more", "a position")]
    total = [0.0, 0.0, 0.0]
    for name in few:
        each = [few[name], (many[name] - few[name]) / (MANY - FEW), positions[name]]
        each = [max(0.0, one) * 1e6 for one in each]
        total = [sum(pair) for pair in zip(total, each, strict=True)]
        keys[name] = dict(zip(("report_us", "alert_us", "position_us"), each, strict=True))
        rows.append(_row(name, each))
    rows.append(_row("all", total))
    return BenchResult("stages", keys, rows, [])


def _row(name: str, each: list[float]) -> Row:
    report, alert, position = each
    return Row(name, f"{report:,.0f}", f"{alert:.1f}", f"{position:.1f}")
