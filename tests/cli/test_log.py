"""JSON logs hold JSON only: libraries, warnings, uncaught errors and the earliest mistakes too."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ODDITIES = """
import asyncio, logging, threading, warnings
from broker.runtime import log
log.set_up("info", "json", service="x")
logging.getLogger("redis").warning("a library %s", "speaks")
warnings.warn("old\\nways", stacklevel=1)
def fail():
    raise ValueError("in a thread")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Sour:
    def __del__(self):
        raise ValueError("while deleted")
Sour()
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
from nabij.event_loop import run
run(main())
raise RuntimeError("two\\nlines")
"""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_whatever_is_written_is_json() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ODDITIES], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    said = lines(ran.stderr)
    whole = json.dumps(said)
    for text in (
        "a library speaks",
        "old\\nways",
        "in a thread",
        "while deleted",
        "division by zero",
        "two\\nlines",
    ):
        assert text in whole, text
    assert all({"at", "level", "event"} <= set(one) for one in said)


def up(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
    return subprocess.run(
        [sys.executable, "-m", "nabij.cli", "up", *words],
        env={**kept, "NABIJ_LOG_FORMAT": "json", **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_earliest_mistakes_are_json(tmp_path: Path) -> None:
    ran = up(NABIJ_HTTP="x", NABIJ_POLICY="/no/such/file")
    assert ran.returncode == 2
    [said] = lines(ran.stderr)
    assert "NABIJ_HTTP" in said["event"]
    assert "NABIJ_POLICY" in said["event"]
    ran = up("--workers", "nobody=2", "--data-dir", str(tmp_path))
    assert (ran.returncode, "nobody" in lines(ran.stderr)[0]["event"]) == (2, True)


def test_a_worker_that_is_badly_configured_says_so_in_json() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "nabij.local.worker_process", "city", "1", "2", str(os.getpid())],
        env={**os.environ, "NABIJ_LOG_FORMAT": "json", "NABIJ_PARTITIONS": "many"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 2
    [said] = lines(ran.stderr)
    assert "NABIJ_PARTITIONS" in said["problems"][0]
