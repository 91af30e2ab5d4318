"""Whenever the terminal is closed, or a signal comes: no process is left, and no folder."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nabij.local.temporary import remove_abandoned, temporary_directory

NABIJ = (sys.executable, "-m", "nabij.cli")
PATIENCE_S = 45.0


class Command:
    """A running command on a terminal of its own; it and all that it starts share a TMPDIR."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        self.folder = folder
        self.terminal, theirs = pty.openpty()
        kept = {name: text for name, text in os.environ.items() if not name.startswith("NABIJ_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_ITS_TERMINAL, *NABIJ, *words],
            env={**kept, "TMPDIR": str(folder)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self.terminal, False)
        self.said = ""

    def hears(self, word: str) -> bool:
        with contextlib.suppress(BlockingIOError, OSError):
            self.said += os.read(self.terminal, 65_536).decode(errors="replace")
        return word in self.said

    def processes(self) -> set[int]:
        """All of ours: whatever has our TMPDIR in its environment."""
        mark = f"TMPDIR={self.folder}\0".encode()
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.add(int(path.parent.name))
        return found

    def hang_up(self) -> None:
        os.close(self.terminal)


# The kernel sends SIGHUP to the leader of the session whose controlling terminal is closed.
_ON_ITS_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.005)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*words: str) -> Command:
        folder = tmp_path / "folders"
        folder.mkdir()
        started.append(Command(words, folder))
        return started[-1]

    yield start
    for command in started:
        for pid in command.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()


MOMENTS: dict[str, Callable[[Command], bool]] = {
    "its folder is made": lambda command: any(command.folder.iterdir()),
    "its Redis starts": lambda command: len(command.processes()) > 1,
    "its workers start": lambda command: len(command.processes()) > 4,
    "it is ready": lambda command: command.hears("ready: "),
}


@pytest.mark.parametrize(
    ("words", "moment", "number"),
    [
        (("demo",), "its folder is made", signal.SIGTERM),
        (("demo",), "its folder is made", None),
        (("demo",), "its Redis starts", signal.SIGINT),
        (("demo",), "its workers start", None),
        (("demo",), "it is ready", None),
        (("up", "--data-dir"), "its Redis starts", signal.SIGHUP),
        (("up", "--data-dir"), "it is ready", None),
    ],
)
def test_a_signal_or_a_closed_terminal_leaves_no_process_and_no_folder(  # noqa: PLR0917 - fixtures
    start: Callable[..., Command],
    tmp_path: Path,
    words: tuple[str, ...],
    moment: str,
    number: signal.Signals | None,
) -> None:
    command = start(*words, *([str(tmp_path / "data")] if "--data-dir" in words else []))
    until(lambda: MOMENTS[moment](command))
    if number is None:
        command.hang_up()
    else:
        command.process.send_signal(number)
    command.process.wait(PATIENCE_S)
    until(lambda: not command.processes())
    assert list(command.folder.iterdir()) == []
    assert "Traceback" not in command.said


def test_killing_the_demo_outright_leaves_no_process_and_its_folders_until_the_next_start(
    start: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = start("demo")
    monkeypatch.setattr(tempfile, "tempdir", str(command.folder))
    until(lambda: MOMENTS["its workers start"](command))
    before = set(command.folder.iterdir())
    remove_abandoned()
    assert set(command.folder.iterdir()) >= before  # in use
    command.process.kill()
    until(lambda: not command.processes())
    assert len(list(command.folder.iterdir())) == 2
    with temporary_directory() as ours:
        assert list(command.folder.iterdir()) == [ours]


def test_only_what_a_dead_process_of_this_user_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def left(name: str, *, mode: int = 0o700, locks: Sequence[str] = ("owner.lock",)) -> Path:
        path = tmp_path / name
        path.mkdir(mode=mode)
        (path / "redis").mkdir()
        for lock in locks:
            (path / lock).touch()
        return path

    elsewhere = left("elsewhere")
    abandoned = [left("nabij-a"), left("nabij-metrics-b", locks=("owner.lock", "redis/lock"))]
    kept = [
        left("nabij-of-another-release", locks=()),
        left("nabij-open-to-all", mode=0o755),
        left("nabij-with-a-server", locks=("owner.lock", "redis/lock")),
    ]
    if os.geteuid() == 0:
        kept.append(left("nabij-of-another-user"))
        os.chown(kept[-1], 65534, 65534)
    kept.append(tmp_path / "nabij-link")
    kept[-1].symlink_to(elsewhere)
    with (tmp_path / "nabij-with-a-server" / "redis" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned()
    assert not [path for path in abandoned if path.exists()]
    assert not [path for path in (elsewhere, *kept) if not path.exists()]
