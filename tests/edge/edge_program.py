"""Our own MQTT broker as a process that a test kills, and a journal of any size for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from broker.edge.accounts import Grant
from broker.edge.journal import Journal
from broker.edge.packets import Publish
from broker.edge.records import (
    DoneRecord,
    MessageRecord,
    Record,
    SessionRecord,
    SubscriptionRecord,
    encode_batch,
)
from nabij.local.edge_config import EdgeAccount, EdgeConfig, EdgeListener, hashed
from nabij.local.embedded import is_welcome, reply_of
from nabij.local.managed_process import free_port
from tests.edge.wire import PLENTY

# CONNECT of MQTT 5 as `u` without a password, with the client id `probe`.
_PROBE = b"\x10\x15\0\4MQTT\5\x82\0\x0a\0\0\5probe\0\1u"


class EdgeProgram:
    """`python -m nabij.local.edge_process`, with one account `u` that may do anything."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "journal"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        grant = Grant(name="u", reads=("#",), writes=("#",), is_service=True, quotas=PLENTY)
        config = EdgeConfig(
            listeners=[EdgeListener("127.0.0.1", self.port)],
            directory=str(self.journal),
            accounts=[EdgeAccount(hashed(b""), grant)],
        )
        (directory / "edge.json").write_bytes(msgspec.json.encode(config))

    def start(self, *before: str) -> float:
        """Start it; return how many seconds of a processor it takes until it lets a client in."""
        give_up_at = time.monotonic() + 60
        command = [sys.executable, "-m", "nabij.local.edge_process"]
        self._process = subprocess.Popen(
            [*before, *command, str(self.directory / "edge.json")], stderr=subprocess.PIPE
        )
        while not is_welcome(reply_of(self.port, _PROBE)):
            assert self._process.poll() is None, self.ended()
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        return self.cpu_s()

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return its exit code, and what it said."""
        assert self._process is not None
        _, error = self._process.communicate(timeout=20)
        return self._process.returncode, error.decode()

    def cpu_s(self) -> float:
        """Return the processor time that it has had: other processes do not lengthen it."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the most that it has had resident."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def kill(self, number: int = signal.SIGKILL) -> tuple[int, str]:
        """Kill it."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.ended()


def write_journal(
    directory: Path, *, sessions: int, messages: int, payload: bytes, acknowledged: int = 0
) -> None:
    """Write a journal: each session subscribes to a topic, and messages come for them in turn.

    So many of the first are acknowledged, which is a record of its own.
    """
    journal = Journal(directory)
    journal.open()
    assert list(journal.read()) == []
    journal.rewrite()
    records, some = _records(sessions, messages, payload, acknowledged), []
    for record in records:
        some.append(record)
        if len(some) == 1000:
            journal.append(encode_batch(some))
            some.clear()
    journal.write(encode_batch(some))
    journal.rewritten()
    journal.close()


def _records(sessions: int, messages: int, payload: bytes, acknowledged: int) -> Iterator[Record]:
    for number in range(1, sessions + 1):
        yield SessionRecord(number, "u", f"c{number}", 86400, None, None, 0, None)
        yield SubscriptionRecord(number, f"to/{number}", (1, False, False, None))
    for number in range(1, messages + 1):
        key = (number - 1) % sessions + 1
        publish = Publish(f"to/{key}", payload, 1, retain=False)
        yield MessageRecord(number, publish, time.time(), {key: (1, False, (), 0, False)})
        if number <= acknowledged:
            yield DoneRecord(key, [number])
