"""What is logged or printed steers no terminal, whoever wrote it."""

import json
import subprocess
import sys

import pytest

from broker.log import printable
from broker.refusals import known_path

STEERING = "\x1b[2J \x07\x7f \x9b31m \u202e\u2066\ufeff\u2028 \r"
SCRIPT = """
import structlog, sys
from broker.log import set_up
set_up("info", sys.argv[1])
structlog.get_logger().info("said", word=sys.argv[2])
try:
    raise ValueError(sys.argv[2])
except ValueError:
    structlog.get_logger().exception("failed")
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_log_line_has_no_character_that_steers_a_terminal(log_format: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, log_format, STEERING],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    text = run.stderr.decode()
    assert text.replace("\n", "").isprintable(), ascii(text)
    assert text.count("said") == 1
    assert "ValueError" in text
    if log_format == "json":
        assert json.loads(text.splitlines()[0])["word"] == STEERING  # nothing is lost


def test_printable_text_is_left_as_it_is() -> None:
    text = "Twee mannen vechten, één met een mes 🔪\n\tBrûlé «là-bas» نص 中文"
    assert printable(text) == text
    assert printable("\x1b[31m\u202e") == r"\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("field", "logged"),
    [
        ("$", "$"),
        ("$.location.lat", "$.location.lat"),
        ("$.alerts[3]", "$.alerts[3]"),
        ("$.groups[...]", "$.groups[...]"),
        ("$.Jan woont op nr 7", "$.?"),
        ("$.location.\x1b[2J", "$.location.?[?"),
        ("$.seen_at\nforged: line", "$.?"),
        ("$." + "x" * 300, "$.?"),
    ],
)
def test_a_logged_path_names_fields_of_the_contract_alone(field: str, logged: str) -> None:
    assert known_path(field) == logged
