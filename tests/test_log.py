"""What is logged or printed steers no terminal, whatever its source."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from broker.redaction import wordless
from broker.runtime.log import printable
from broker.runtime.refusals import known_path
from tests.services.logs import logged

STEERING = "\x1b[2J \x07\x7f \x9b31m \u202e\u2066\ufeff\u2028 \r"
SCRIPT = """
import structlog, sys
from broker.runtime.log import set_up
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
        capture_output=True,
        check=True,
        timeout=30,
    )
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


CANARY = "Kanarievogel"


def test_an_error_without_its_words_keeps_its_type_its_frames_and_its_causes() -> None:
    def failing() -> None:
        try:
            int(CANARY)
        except ValueError as error:
            raise KeyError(CANARY) from error

    with pytest.raises(KeyError) as caught:
        failing()
    with logged() as lines:
        structlog.get_logger().error("failed", exc_info=wordless(caught.value))
        group = ExceptionGroup(CANARY, [caught.value, OSError(CANARY)])
        structlog.get_logger().error("failed", exc_info=wordless(group))
    for line in lines:
        assert CANARY not in line.replace("KeyError(CANARY)", "").replace("int(CANARY)", "")
        assert all(what in line for what in ("ValueError", "KeyError", "in failing"))
    assert "OSError" in lines[1]


# What a log call may say, and where a value might be a sender's, in which words alone.
SAID = frozenset(
    (
        "at",
        "before",
        "by_s",
        "client_id",
        "code",
        "count",
        "desk",
        "entry",
        "for_s",
        "id",
        "incident",
        "kind",
        "late_ms",
        "masters",
        "mend",
        "messages",
        "now",
        "oldest_s",
        "pause_s",
        "problems",
        "reason",
        "server",
        "service",
        "since_ms",
        "size",
        "stack",
        "states",
        "status",
        "to",
        "unattended_s",
        "version",
        "what",
        "why",
        "worker",
    )
)
SAID_AS = {
    "topic": {"shape_of(message.topic)", "template_of(refused.topic)", "shape"},
    "field": {"known_path(error.field)", "field"},
    "item": {"str(item)"},  # `isolated`: an id, or what has a `__str__` that says no more
    "exc_info": {"wordless(error)", "error", "(kind, error, traceback)"},  # a crash of our own
}
LEVELS = frozenset(("info", "warning", "error", "exception", "critical", "bind"))
ROOT = Path(__file__).parents[1]


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for room in ("broker", "services", "nabij"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in LEVELS
                    and ast.unparse(node.func.value) in ("_log", "log", "logger")
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_log_call_has_a_field_for_who_sent_something_or_what_or_where() -> None:
    """One that fails here may be right: then say above in which words alone it is said."""
    calls = list(log_calls())
    assert len(calls) > 50
    for where, call in calls:
        assert not any(isinstance(one, ast.JoinedStr) for one in call.args), where
        for keyword in call.keywords:
            value = ast.unparse(keyword.value)
            if keyword.arg in SAID_AS:
                assert value in SAID_AS[keyword.arg], where
            elif keyword.arg is not None:
                assert keyword.arg in SAID, f"{where}: {keyword.arg}"
