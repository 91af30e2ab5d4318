"""One report at a time, 100 recipients: how long to its receipt, to the police, to the alerts."""

from collections.abc import Sequence

from bench.bench_world import TimedReport, Way, beside, world
from bench.results import BenchResult, Histogram, Plot, Ratio, Row

RECIPIENTS = 100
RATE = 10.0  # a second: far below what it carries, so that nothing queues


async def measure(*, quick: bool) -> BenchResult:
    """Measure in rounds, each with its floor."""
    rounds, count = (5, 30) if quick else (10, 200)
    ours, floors = [], []
    async with world([RECIPIENTS]) as here, beside(here, "bench.relay_floor"):
        await here.open_aside()
        await here.send(50, RATE * 2, RECIPIENTS)  # warm-up
        await here.send(50, RATE * 2, RECIPIENTS, by=Way.RELAY)
        for _ in range(rounds):
            floors.append(await here.send(count, RATE, RECIPIENTS, by=Way.RELAY))
            ours.append(await here.send(count, RATE, RECIPIENTS))
    return told(ours, floors)


# long: one table, its rows in their order
def told(
    ours: Sequence[Sequence[TimedReport]], floors: Sequence[Sequence[TimedReport]]
) -> BenchResult:
    """Return the result of these rounds."""
    times = {
        "receipt": [[one.receipt - one.due for one in some] for some in ours],
        "police": [[one.police - one.due for one in some] for some in ours],
        "first alert": [[one.first - one.due for one in some] for some in ours],
        "last alert": [[one.last - one.due for one in some] for some in ours],
    }
    floor_of = {
        "receipt": [[one.receipt - one.due for one in some] for some in floors],
        "police": [[one.police - one.due for one in some] for some in floors],
    }
    goals: dict[tuple[str, float], str] = {
        ("police", 50): "≤ 1.6",
        ("police", 99): "≤ 2.5",
        ("receipt", 50): "≤ police",
    }
    keys: dict[str, object] = {}
    rows, curves = [], {}
    for name, rounds in times.items():
        whole = Histogram(one for some in rounds for one in some)
        curves[f"report → {name}"] = whole.curve()
        beside = floor_of.get(name)
        bare = Histogram(one for some in beside for one in some) if beside else None
        for percentile in (50, 99, 99.9):
            label = f"p{percentile:g}"
            key = f"{name.replace(' ', '_')}_{label.replace('.', '')}"
            keys[f"{key}_ms"] = whole.ms(percentile)
            ratio = ""
            if beside is not None and bare is not None:
                # A round is too short for a tail of its own: of p99 on, the ratio of the whole.
                measured = (
                    Ratio.of(_percentiles(rounds, 50), _percentiles(beside, 50))
                    if percentile == 50
                    else Ratio.of([whole.ms(percentile)], [bare.ms(percentile)])
                )
                keys[f"ratio_{key}"] = measured.median
                ratio = str(measured) if percentile == 50 else f"{measured.median:.2f}"
            rows.append(
                Row(
                    f"report → {name}, {label}",
                    f"{whole.ms(percentile):.2f} ms",
                    f"{bare.ms(percentile):.2f} ms" if bare else "",
                    ratio,
                    goals.get((name, percentile), ""),
                )
            )
        if bare is not None:
            curves[f"floor: relay → {name}"] = bare.curve()
    return BenchResult("latency", keys, rows, [Plot("Latency", "percentile", "ms", curves)])


def _percentiles(rounds: Sequence[Sequence[float]], percentile: float) -> list[float]:
    return [Histogram(some).ms(percentile) for some in rounds]
