"""From 10,000 to a million participants at one density, from 1 to 10,000 open incidents."""

import itertools
import math
import os
import signal
import time
from collections.abc import Iterator

from bench.bench_world import CENTRE, BenchWorld, moved, place_all, server_pids, world
from bench.results import BenchResult, Histogram, Plot, Ratio, Row
from broker.store.kernel.redis_connection import RedisConnection as Redis
from schemas.messages import Position

RECIPIENTS = 50
RATE = 10.0
PER_KM2 = 1_000
_HOLE_M = 1_500.0  # around the recipients: they alone are alerted
_OPEN = (1_000, 10_000)


def population() -> Iterator[tuple[str, Position]]:
    """Yield people in rings around the centre, ever further out, at one density."""
    apart_m = 1_000.0 / math.sqrt(PER_KM2)
    numbers = itertools.count()
    for ring in itertools.count(int(_HOLE_M / apart_m)):
        radius_m = ring * apart_m
        around = int(2 * math.pi * radius_m / apart_m)
        for step in range(around):
            angle = 2 * math.pi * step / around
            place = moved(CENTRE, radius_m * math.cos(angle), radius_m * math.sin(angle))
            yield f"s{next(numbers)}", place


async def _memory(here: BenchWorld) -> int:
    async with Redis(here.stack.redis_url) as redis:
        info = (await redis.call("INFO", "memory")).decode()
    line = next(one for one in info.splitlines() if one.startswith("used_memory:"))
    return int(line.partition(":")[2])


async def _police_ms(here: BenchWorld, rounds: int, count: int) -> list[float]:
    """Return the median to the police of each round (ms)."""
    medians = []
    for _ in range(rounds):
        sent = await here.send(count, RATE, RECIPIENTS)
        medians.append(Histogram(one.police - one.due for one in sent).ms(50))
    return medians


async def _start_up_s(here: BenchWorld) -> float:
    """Return how long after a kill of Redis, with all that it has, a report comes to the police (s)."""
    pids = server_pids()
    os.kill(pids.get("redis-server") or pids["valkey-server"], signal.SIGKILL)
    killed_at = time.perf_counter()
    [sent] = await here.send(1, 1.0, RECIPIENTS, within_s=120.0)
    return sent.police - killed_at


# long: one measurement, told in its order
async def measure(*, quick: bool) -> BenchResult:
    """Measure at each size in turn, in one and the same system."""
    sizes = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000)
    rounds, count = (3, 20) if quick else (5, 100)
    keys: dict[str, object] = {}
    rows = []
    curve: list[tuple[float, float]] = []
    people = population()
    async with world([RECIPIENTS]) as here:
        await here.send(50, RATE * 2, RECIPIENTS)  # warm-up
        before, placed = await _memory(here), 0
        smallest: list[float] = []
        for size in sizes:
            began = time.perf_counter()
            await place_all(here.stack, list(itertools.islice(people, size - placed)))
            loaded_s, placed = time.perf_counter() - began, size
            per_head = (await _memory(here) - before) / size
            medians = await _police_ms(here, rounds, count)
            smallest = smallest or medians
            ratio = Ratio.of(medians, smallest)
            name = f"{size // 1_000_000}m" if size >= 1_000_000 else f"{size // 1_000}k"
            middle = sorted(medians)[len(medians) // 2]
            keys |= {f"ratio_p50_{name}": ratio.median, "bytes_per_participant": per_head}
            start_up_s = await _start_up_s(here)
            keys[f"start_up_{name}_s"] = start_up_s
            curve.append((size, middle))
            rows.append(
                Row(
                    f"report → police, p50, {size:,} participants",
                    f"{middle:.2f} ms",
                    f"{smallest[0]:.2f} ms",
                    str(ratio),
                    "≤ 1.3",
                )
            )
            rows.append(
                Row(
                    f"bytes a participant, {size:,} (placed in {loaded_s:.1f} s)",
                    f"{per_head:.0f}",
                    goal="≤ 250",
                )
            )
            rows.append(
                Row(
                    f"kill -9 of Redis to the next report at the police, {size:,} participants",
                    f"{start_up_s:.1f} s",
                )
            )
        opened = len(here.sent)
        for many in _OPEN[: 1 if quick else 2]:
            await here.send(many - opened, 100.0, RECIPIENTS)
            opened = many
            medians = await _police_ms(here, rounds, count)
            ratio = Ratio.of(medians, smallest)
            keys[f"ratio_p50_{many}_incidents"] = ratio.median
            rows.append(
                Row(
                    f"report → police, p50, {many:,} open incidents there",
                    f"{sorted(medians)[len(medians) // 2]:.2f} ms",
                    "",
                    str(ratio),
                )
            )
    plot = Plot("Report to police, p50", "participants", "ms", {"Nabij": curve})
    return BenchResult("scale", keys, rows, [plot])
