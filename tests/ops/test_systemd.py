"""The units in `ops/systemd`: systemd accepts them, what they name exists, and systemd is told."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from broker.runtime import config
from tests.cli.conftest import start
from tests.cli.up_process import Up, until

__all__ = ["start"]

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "ops" / "systemd"
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def here(text: str) -> str:
    """A unit as it is on a host on which the repository is in /opt/nabij."""
    return text.replace("/opt/nabij/.venv/bin", str(Path(sys.executable).parent)).replace(
        "/opt/nabij", str(REPOSITORY)
    )


def settings_in(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_systemd_accepts_the_units(tmp_path: Path, program: Callable[..., str]) -> None:
    analyze = program("systemd-analyze")
    for path in UNITS.glob("*.service"):
        (tmp_path / path.name).write_text(here(path.read_text(encoding="utf-8")))
    shutil.copy(UNITS / "nabij-backup.timer", tmp_path)
    for path in UNITS.glob("*.d.conf"):
        # Debian's own unit is replaced by a bare one: what counts is what we change.
        name = path.name.removesuffix(".d.conf")
        (tmp_path / name).write_text("[Service]\nExecStart=/bin/true\n")
        (tmp_path / f"{name}.d").mkdir()
        text = path.read_text(encoding="utf-8")
        for server in ("mosquitto", "redis-server"):
            text = re.sub(rf"/usr/s?bin/{server}\b", program(server), text)
        (tmp_path / f"{name}.d" / "nabij.conf").write_text(text)
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert len(names) == 5

    ran = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in names)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )

    ours = [line for line in ran.stderr.splitlines() if any(name in line for name in names)]
    assert (ran.returncode, ours) == (0, []), ran.stderr


def test_every_setting_of_the_example_is_one_and_is_valid(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    shutil.copy(REPOSITORY / "schemas" / "policy.toml", policy)
    example = settings_in((UNITS / "nabij.env.example").read_text(encoding="utf-8"))
    assert {"NABIJ_MQTT_URL", "NABIJ_REDIS_URL", "NABIJ_SHARE_GROUP"} < set(example)

    config.load({**example, "NABIJ_POLICY": str(policy)})


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_every_path_of_the_repository_exists_and_the_page_names_the_file(path: Path) -> None:
    named = re.findall(r"/opt/nabij/([\w./-]+)", path.read_text(encoding="utf-8"))
    for one in named:
        assert one == ".venv/bin/nabij" or (REPOSITORY / one).exists(), one
    assert f"ops/systemd/{path.name}" in PAGE


def test_redis_as_its_drop_in_starts_it_is_one_that_nabij_accepts(
    tmp_path: Path, program: Callable[..., str]
) -> None:
    text = (UNITS / "redis-server.service.d.conf").read_text(encoding="utf-8")
    [words] = re.findall(r"^ExecStart=\S+ \S+ (.+)$", text.replace("\\\n", " "), re.MULTILINE)
    options = words.replace("--supervised systemd", "")
    address = tmp_path / "socket"
    # fmt: off
    redis = subprocess.Popen(
        [program("redis-server", "valkey-server"), *shlex.split(options), "--port", "0",
         "--unixsocket", str(address), "--dir", str(tmp_path)], stdout=subprocess.DEVNULL,
    )
    # fmt: on
    try:
        until(address.exists)
        with Redis(unix_socket_path=str(address)) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("save") == {"save": ""}
    finally:
        redis.kill()
        redis.wait()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        yield listener


def test_systemd_is_told_when_all_is_ready_and_that_it_lives_and_ends(
    manager: socket.socket, start: Callable[..., Up]
) -> None:
    up = start(NOTIFY_SOCKET=str(manager.getsockname()), WATCHDOG_USEC="300000")

    assert manager.recv(100) == b"READY=1"
    up.ready()
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    assert up.end() == 0
    manager.setblocking(False)  # noqa: FBT003 - socket has it so
    *alive, last = iter(lambda: received(manager), b"")
    assert set(alive) <= {b"WATCHDOG=1"}
    assert last == b"STOPPING=1"


def received(listener: socket.socket) -> bytes:
    try:
        return listener.recv(100)
    except BlockingIOError:
        return b""
