"""The shell completes the values of options."""

import os
import subprocess
import sys

import pytest

from nabij.tail import full_filter


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nabij up --service p", {"police", "presence"}),
        ("nabij chaos --engine ", {"auto", "iotcore", "mosquitto"}),
        ("nabij replay x.csv --map z", {"zurich"}),
    ],
)
def test_values_of_options_are_offered(line: str, offered: set[str]) -> None:
    words = line.split(" ")
    ran = subprocess.run(
        [sys.executable, "-c", "from nabij.cli import app; app(prog_name='nabij')"],
        env={
            **os.environ, "_NABIJ_COMPLETE": "complete_bash", "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert set(ran.stdout.split()) == offered


@pytest.mark.parametrize(
    ("given", "listened_to"),
    [
        ("police/gent/#", "nabij/v1/police/gent/#"),
        ("nabij/v1/ops/#", "nabij/v1/ops/#"),
        ("#", "#"),
        ("+/v1/ops/#", "+/v1/ops/#"),
        ("$SYS/#", "$SYS/#"),
    ],
)
def test_tail_adds_what_all_topics_begin_with(given: str, listened_to: str) -> None:
    assert full_filter(given) == listened_to
