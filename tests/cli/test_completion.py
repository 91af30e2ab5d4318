"""The shell completes the values of options."""

import os
import subprocess
import sys

import pytest

from nabij.tail import full_filter, is_wanted


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("nabij up --service p", {"police", "presence"}),
        ("nabij chaos --engine ", {"auto", "edge", "mosquitto"}),
        ("nabij replay x.csv --map z", {"zurich"}),
    ],
)
def test_values_of_options_are_offered(line: str, offered: set[str]) -> None:
    words = line.split(" ")
    ran = subprocess.run(
        [sys.executable, "-c", "from nabij.cli import app; app(prog_name='nabij')"],
        env={
            **os.environ,
            "_NABIJ_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert set(ran.stdout.split()) == offered


@pytest.mark.parametrize(
    ("given", "listened_to"),
    [
        ("police/gent/#", "nabij/v1/police/gent/#"),
        ("nabij/v1/ops/#", "nabij/v1/ops/#"),
        ("#", "nabij/v1/#"),
        ("+/v1/ops/#", "+/v1/ops/#"),
        ("$SYS/#", "$SYS/#"),
    ],
)
def test_tail_adds_what_all_topics_begin_with(given: str, listened_to: str) -> None:
    assert full_filter(given) == listened_to


def test_tail_prints_probes_only_where_its_filter_names_them() -> None:
    probe, status = "nabij/v1/ops/probe/intake/1-1", "nabij/v1/ops/service/intake/1-1"
    for wide in ("nabij/v1/#", "nabij/v1/ops/#", "#"):
        assert [topic for topic in (probe, status) if is_wanted(topic, wide)] == [status]
    for named in (full_filter("ops/probe/#"), probe):
        assert is_wanted(probe, named)
