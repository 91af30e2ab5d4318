"""What the tests of commands share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.up_process import Up


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*words: str, data_dir: Path | None = None, **settings: str) -> Up:
        up = Up(data_dir or tmp_path / "data", *words, **settings)
        started.append(up)
        return up

    yield start
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
        up.process.wait()
