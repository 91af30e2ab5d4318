"""How long from kill -9 of each service to the first alert that is reported after it."""

import asyncio
import math
import os
import signal
import time

from bench.bench_world import BenchWorld, pid_of, world
from bench.results import BenchResult, Row
from services import ALL

RECIPIENTS = 20
RATE = 20.0
_AFTER_S = 6.0


async def killed(here: BenchWorld, service: str) -> float:
    """Return how long after the kill of `service` the first later report's last alert came (s)."""
    sending = asyncio.create_task(here.start(int(RATE * _AFTER_S), RATE, RECIPIENTS))
    await asyncio.sleep(1.0)
    os.kill(pid_of(here.stack, service), signal.SIGKILL)
    at = time.perf_counter()
    sent = await sending
    await here.settle(sent, 30.0)
    return min(one.last - at for one in sent if one.due >= at and not math.isnan(one.last))


async def measure(*, quick: bool) -> BenchResult:
    """Kill each service, one worker each, under a steady load of 20 reports a second."""
    rounds = 1 if quick else 5
    keys: dict[str, object] = {}
    rows = []
    async with world([RECIPIENTS]) as here:
        await here.send(40, RATE, RECIPIENTS)
        for service in ALL:
            times = sorted([await killed(here, service) for _ in range(rounds)])
            await here.stack.wait_ready()
            keys[f"{service}_s"] = times[len(times) // 2]
            keys[f"{service}_most_s"] = times[-1]
            middle, most = times[len(times) // 2], times[-1]
            rows.append(Row(f"after kill -9 of {service}", f"{middle:.2f} s (most {most:.2f} s)"))
    return BenchResult("restart", keys, rows, [])
