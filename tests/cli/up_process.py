"""`nabij up` as a process, and what a test asks of its tree of processes."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NABIJ = (sys.executable, "-m", "nabij.cli")
PATIENCE_S = 45.0
SOME = ("--service", "intake", "--service", "presence")


class Up:
    """A running `nabij up`; every process that it started dies with it."""

    def __init__(self, data_dir: Path, *words: str, **settings: str) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [*NABIJ, "up", "--data-dir", str(data_dir), "--json", *words],
            env={**kept, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def ready(self) -> dict[str, Any]:
        """Wait until it says that it is."""
        try:
            said: dict[str, Any] = json.loads(self._lines.get(timeout=PATIENCE_S))
        except queue.Empty:
            self.process.kill()
            assert self.process.stderr
            pytest.fail(f"not ready: {self.process.stderr.read()[-2000:]}")
        return said

    def descendants(self) -> dict[int, list[str]]:
        return {
            pid: command
            for pid, command in processes().items()
            if pid in children_of(self.process.pid)
        }

    def workers(self) -> dict[str, int]:
        """Worker processes, by service."""
        return {
            command[command.index("nabij.local.worker_process") + 1]: pid
            for pid, command in self.descendants().items()
            if "nabij.local.worker_process" in command
        }

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def processes() -> dict[int, list[str]]:
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                found[int(path.name)] = (path / "cmdline").read_text().split("\0")[:-1]
            except OSError:
                continue
    return {pid: command for pid, command in found.items() if command}


def children_of(pid: int) -> set[int]:
    children = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        children |= {int(child) for child in (task / "children").read_text().split()}
    return children


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.02)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
