"""`nabij bench`: measures, beside the floor of the same run, and tells."""

import importlib
import os
import platform
import time
from pathlib import Path

from bench.html import page
from bench.results import BenchResult
from broker.errors import ConfigError
from broker.runtime import log
from nabij.event_loop import Interrupted, run_until_signal
from nabij.local.embedded import find_program
from nabij.output import print_json, print_line, print_table, say

NAMES = (
    "latency",
    "fanout",
    "saturation",
    "presence",
    "mixed",
    "scale",
    "restart",
    "peers",
    "stages",
    "workers",
    "broker",
)


def bench(name: str, *, quick: bool, as_json: bool, html: Path | None) -> int:
    """Run one benchmark, or `all`; return the exit code."""
    log.set_up("error", "auto")
    if find_program("mosquitto") is None:
        raise ConfigError(["the benchmarks measure Mosquitto: there is none on the PATH"])
    results = []
    for one in NAMES if name == "all" else (name,):
        began = time.monotonic()
        say(f"{one}: {_what(one)}")
        try:
            result = run_until_signal(importlib.import_module(f"bench.{one}").measure(quick=quick))
        except Interrupted:
            return 1
        say(f"{one}: measured in {time.monotonic() - began:.0f} s")
        results.append(result)
        if not as_json:
            _print(result)
    if as_json:
        print_json(_as_json(results))
    if html is not None:
        html.write_text(page(results, machine()), encoding="utf-8")
        say(f"written: {html}")
    return 0


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _what(name: str) -> str:
    doc = importlib.import_module(f"bench.{name}").__doc__ or ""
    return doc.partition("\n")[0]


def _as_json(results: list[BenchResult]) -> dict[str, object]:
    """Return the keys of one benchmark as they are, those of several under their names."""
    if len(results) == 1:
        return {"name": results[0].name, **machine(), **results[0].keys}
    return {**machine(), **{result.name: result.keys for result in results}}


def _print(result: BenchResult) -> None:
    rows = [[*row] for row in result.rows]
    print_table([result.name, "ours", "floor", "ratio", "goal"], rows)
    print_line("")
