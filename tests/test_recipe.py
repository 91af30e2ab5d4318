"""The README's recipe, word for word: Mosquitto's own clients as a participant and a police desk."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WITHIN_S = 60.0


def recipe() -> tuple[str, str, str]:
    """The three blocks of shell below the recipe's heading."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.partition("Mosquitto's own clients\n")[2].partition("\n## ")[0]
    first, confirm, second = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return first, confirm, second


@pytest.fixture
async def running(data_dir: Path, program: Callable[..., str]) -> AsyncIterator[Path]:
    """A directory in which `nabij up --data-dir try` runs and is ready."""
    program("mosquitto_pub")
    up = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from nabij.cli import main; main()",
        "up",
        "--data-dir",
        "try",
        cwd=data_dir,
        stderr=PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("NABIJ_")},
    )
    assert up.stderr is not None
    logged: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while not any('"ready: ' in line for line in logged):
                logged.append((await up.stderr.readline()).decode())
        yield data_dir
    finally:
        up.send_signal(signal.SIGTERM)
        logged.append((await up.stderr.read()).decode())
    assert await up.wait() == 0
    passwords = json.loads((data_dir / "try" / "accounts.json").read_text())
    assert any("accounts.json" in line for line in logged)
    assert not [user for user, word in passwords.items() if any(word in line for line in logged)]


async def heard(shell: Process, said: list[str], *wanted: str) -> str:
    """Read what the shell's clients print until each of `wanted` was in some line; that line."""
    assert shell.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        while not (found := [line for line in said if all(word in line for word in wanted)]):
            line = await shell.stdout.readline()
            assert line, f"the shell ended; it said {said}"
            said.append(line.decode())
    return found[0]


def shown_passwords(directory: Path) -> list[str]:
    """The users whose passwords anybody on this machine can read in `ps`."""
    passwords = json.loads((directory / "try" / "accounts.json").read_text())
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_text(errors="replace"))
    assert any("mosquitto_sub" in command for command in commands)
    return [user for user, word in passwords.items() if any(word in one for one in commands)]


async def test_mosquitto_clients_alone_play_a_participant_and_a_police_desk(running: Path) -> None:
    first, confirm, second = recipe()
    shell = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-s", cwd=running, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert shell.stdin is not None
    said: list[str] = []
    try:
        shell.stdin.write(first.encode())
        escalation = await heard(shell, said, "police/gent/escalation/p1 ", '"kind":"new"')
        assert "Twee mannen vechten" in escalation
        identifier = json.loads(escalation.partition(" ")[2])["id"]
        shell.stdin.write(confirm.replace("…", identifier).encode())
        await heard(shell, said, "police/gent/up/receipt", identifier)
        await heard(shell, said, "u/ann/down/receipt", '"accepted"', "112")
        alert = await heard(shell, said, "u/bob/down/alert")
        assert not shown_passwords(running)
        assert "Twee mannen vechten" not in alert
        incident = json.loads(alert.partition(" ")[2])["incident"]
        shell.stdin.write(second.replace("…", incident).encode())
        await heard(shell, said, "u/bob/down/group", '"joined"', "helper-1")
        # The states in between may be skipped: the last one says who had acknowledged it.
        desk = '"acknowledged_by":"desk 1"'
        await heard(shell, said, f"police/gent/incident/{incident}", '"closed"', desk)
        await heard(shell, said, "u/bob/down/group", '"closed"', "solved")
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        await shell.wait()
