"""What docker-compose.yml runs in its containers, run here: no password is an argument, which `ps` shows."""

import os
import re
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nabij.local.embedded import Account, is_welcome, mqtt_connect, reply_of
from nabij.local.managed_process import free_port
from schemas.roles import Role

REPOSITORY = Path(__file__).parents[2]
COMPOSE = (REPOSITORY / "docker-compose.yml").read_text()
SECRETS = {
    name: f"secret-of-{name}" for name in ("MQTT_PASSWORD", "DESK_PASSWORD", "REDISCLI_AUTH")
}

Ask = Callable[[str], subprocess.CompletedProcess[str]]
Program = Callable[..., str]


def part_of(container: str, part: str) -> str:
    """The lines of one part of a container, as they are after compose's own `$$`."""
    lines = re.split(rf"^  {container}:$", COMPOSE, flags=re.MULTILINE)[1]
    lines = re.split(rf"^    {part}:$", lines, flags=re.MULTILINE)[1]
    return re.split(r"^ {2,4}\S", lines, maxsplit=1, flags=re.MULTILINE)[0].replace("$$", "$")


def script_of(container: str, edits: dict[str, str]) -> str:
    script = textwrap.dedent(part_of(container, "command").partition("- |\n")[2])
    for old, new in edits.items():
        assert old in script, (old, script)
        script = script.replace(old, new)
    return script


@contextmanager
def running(
    directory: Path, script: str, programs: dict[str, str], answers: Callable[[Ask], bool]
) -> Iterator[Ask]:
    """Run a container's script until it `answers`; each program that it calls notes its arguments."""
    noting, data = directory / "noting", directory / "data"
    noting.mkdir()
    data.mkdir(exist_ok=True)
    for name, real in programs.items():
        text = f'#!/bin/sh\necho "{name} $*" >> {directory}/arguments\nexec {real} "$@"\n'
        (noting / name).write_text(text)
        (noting / name).chmod(0o755)
    environment = {"PATH": f"{noting}:{os.environ['PATH']}", **SECRETS}

    def ask(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=data,
            env=environment,
            timeout=10,
            check=False,
            capture_output=True,
            text=True,
        )

    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            ["sh", "-euc", script], cwd=data, env=environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            give_up_at = time.monotonic() + 15
            while not answers(ask):
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
            yield ask
        finally:
            process.terminate()


def test_mosquitto_gets_its_accounts_without_a_password_among_arguments(
    tmp_path: Path, program: Program
) -> None:
    port, passwd = free_port(), program("mosquitto_passwd")
    data = tmp_path / "data"
    data.mkdir()
    (data / "passwd").write_text("ann:of-ann\nnabij:an-older-one\n")
    subprocess.run([passwd, "-U", data / "passwd"], check=True)
    edits = {
        "/nabij/": f"{REPOSITORY}/",
        "listener 1883": f"listener {port} 127.0.0.1",
        "chown -R mosquitto:mosquitto .\n": "",  # it stays who we are
        "exec ": "echo user root >> mosquitto.conf\nexec " if os.geteuid() == 0 else "exec ",
    }
    programs = {
        "mosquitto": program("mosquitto"),
        "mosquitto_passwd": passwd,
        "mosquitto_sub": f"{program('mosquitto_sub')} -p {port}",
    }
    health = re.split(r"^ +- ", part_of("mosquitto", "healthcheck"), flags=re.MULTILINE)[2].split(
        "\n"
    )[0]

    def answers(_: Ask) -> bool:
        return welcomes("ann", "of-ann")

    def welcomes(user: str, password: str) -> bool:
        account = Account(user, password, Role.PARTICIPANT)
        return is_welcome(reply_of(port, mqtt_connect(account, 5)))

    with running(tmp_path, script_of("mosquitto", edits), programs, answers) as ask:
        assert welcomes("nabij", SECRETS["MQTT_PASSWORD"])
        for desk in ("desk-gent", "desk-unassigned", "city-desk"):
            assert welcomes(desk, SECRETS["DESK_PASSWORD"])
        assert not welcomes("nabij", "an-older-one")
        assert not welcomes("desk-gent", "wrong")
        checked = ask(health)
        assert checked.returncode == 0, checked
    noted = (tmp_path / "arguments").read_text()
    assert {line.split()[0] for line in noted.splitlines()} == set(programs)
    assert not [secret for secret in SECRETS.values() if secret in noted]
    assert not [path for path in data.iterdir() if path.is_file() and path.stat().st_mode & 0o077]


def test_valkey_gets_its_password_without_it_among_arguments(
    tmp_path: Path, program: Program
) -> None:
    port = free_port()
    edits = {
        "/tmp/": f"{tmp_path}/",
        "--save ''": f"--save '' --port {port}",
    }
    programs = {
        "valkey-server": program("valkey-server", "redis-server"),
        "valkey-cli": f"{program('valkey-cli', 'redis-cli')} -p {port}",
    }
    health = re.findall(r'CMD-SHELL, "(.+)"\]', part_of("valkey", "healthcheck"))[0]

    def answers(ask: Ask) -> bool:
        return ask(health).returncode == 0

    with running(tmp_path, script_of("valkey", edits), programs, answers) as ask:
        assert "NOAUTH" in ask("env -u REDISCLI_AUTH valkey-cli ping").stdout
        assert "always" in ask("valkey-cli config get appendfsync").stdout
    assert SECRETS["REDISCLI_AUTH"] not in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    "name", ["docker-compose.yml", "README.md", "docs/operations.md", "ops/backup.sh"]
)
def test_no_command_has_a_password_as_an_argument(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert not re.findall(
        r"mosquitto_passwd (?:-\w+ )*-b|mosquitto_[ps]ub\b[^\n]* -P |--requirepass|-cli [^\n]*-a ",
        text,
    )
