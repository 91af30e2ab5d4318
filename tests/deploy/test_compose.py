"""docker-compose.yml: accepted by a compose implementation, and complete."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMPOSE = (REPOSITORY / "docker-compose.yml").read_text()
SECRETS = re.findall(r"^([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)


Compose = Callable[[dict[str, str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def compose_config(tmp_path: Path, program: Callable[..., str]) -> Compose:
    """`docker-compose config` with these secrets, and no part in it for a developer's .env."""
    env_file = tmp_path / "env"
    env_file.touch()
    command = [program("docker-compose"), "--env-file", str(env_file), "config"]

    def run(secrets: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **secrets},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_compose_accepts_the_file(compose_config: Compose) -> None:
    run = compose_config(dict.fromkeys(SECRETS, "secret"))
    assert run.returncode == 0, run.stderr
    assert "appendfsync always" in run.stdout


@pytest.mark.parametrize("secret", SECRETS)
def test_compose_refuses_to_start_without_a_secret(compose_config: Compose, secret: str) -> None:
    run = compose_config(dict.fromkeys(set(SECRETS) - {secret}, "secret"))
    assert run.returncode != 0
    assert "see .env.example" in run.stderr


def test_every_container_is_checked_for_health() -> None:
    images = re.findall(r"^    image: ", COMPOSE, re.MULTILINE)
    ours = re.findall(r"^    <<: \*service$", COMPOSE, re.MULTILINE)
    assert len(images) == 2
    assert len(ours) >= 7
    assert len(re.findall(r"healthcheck:", COMPOSE)) == len(images) + 1


def test_a_container_that_hears_nothing_is_not_healthy() -> None:
    [asked] = re.findall(r"urlopen\(\"http://127.0.0.1:8080/(\w+)\"", COMPOSE)
    assert asked == "readyz"
    assert "appendonly yes" in COMPOSE  # or the services refuse to start


def test_the_image_runs_as_nobody_special() -> None:
    assert "\nUSER nabij\n" in (REPOSITORY / "Dockerfile").read_text()
