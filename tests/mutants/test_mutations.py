"""The mutants themselves: each kind is made, each compiles, and every pure module is found."""

import ast
import subprocess
import sys
import tomllib

import pytest

from tests.mutants.__main__ import ACCEPTED, ROOMS, _line, _modules
from tests.mutants.mutations import Shape, mutations_of

SOURCE = '''
"""Docstrings stay."""
import ast
LIMIT = 5
class Kind(enum.Enum):
    """A choice."""
    ONE = "one"
    TWO = "two"
class Note(Struct, frozen=True):
    at: int
    till: int
    text: Annotated[str, Meta(max_length=7)] | None = None
def told(note: Note, other: Note, *, many: bool = False) -> str:
    """Say it."""
    if note.at < LIMIT and many:
        raise ValueError(f"no {note.text} here")
    listed = [each for each in (1, 2) if each]
    show(note, other, end="x")
    return note.at + max(listed) if Kind.ONE else -other.till
'''


def changed(source: str = SOURCE) -> set[str]:
    shape = Shape()
    shape.add(ast.parse(source))
    made = set()
    for one in mutations_of(source, shape):
        text = source.encode()
        after = text[: one.start] + one.text.encode() + text[one.end :]
        compile(after, "mutant", "exec")
        begin = after.rfind(b"\n", 0, one.start) + 1
        made.add(" ".join(after[begin : after.find(b"\n", one.start)].decode().split()))
    return made


@pytest.mark.parametrize(
    "line",
    [
        "LIMIT = 6",
        "ONE = ''",
        "class Note(Struct):",
        "if (note.at <= LIMIT) and many:",
        "if (note.at < LIMIT or many):",
        "if (many):",
        "if (other.at) < LIMIT and many:",
        "if (note.till) < LIMIT and many:",
        "pass",
        "raise ValueError((f'no here'))",
        "listed = ([each for each in (1, 2)])",
        "listed = [each for each in ((2,)) if each]",
        "(show(other, note, end='x'))",
        "(show(note, other))",
        "return",
        "return note.at + (min(listed)) if Kind.ONE else -other.till",
        "return note.at + max(listed) if (Kind.TWO) else -other.till",
        "return note.at + max(listed) if Kind.ONE else (other.till)",
        "return (note.at - max(listed)) if Kind.ONE else -other.till",
        "def told(note: Note, other: Note, *, many: bool = True) -> str:",
        "text: Annotated[str, Meta(max_length=8)] | None = None",
    ],
)
def test_each_kind_of_fault_is_made(line: str) -> None:
    assert line in changed()


def test_docstrings_imports_and_unions_of_types_stay() -> None:
    for line in (
        '""',
        "pass  # docstring",
        "text: Annotated[str, Meta(max_length=7)] & None = None",
    ):
        assert line not in changed()
    assert changed('"""Only words."""\nimport ast\n') == set()


def test_every_module_of_the_pure_rooms_is_found_but_for_those_with_a_connection_clock_or_log() -> (
    None
):
    found = {str(each.path) for each in _modules([])}
    for room in ROOMS:
        assert any(path.startswith(room) for path in found)
    assert {"broker/core/incidents.py", "schemas/topics.py", "broker/mqtt/session.py"} <= found
    assert not found & {
        "broker/mqtt/connection.py",
        "broker/mqtt/transport.py",
        "broker/mqtt/status.py",
    }


def test_what_is_accepted_is_still_in_the_code_and_has_a_reason() -> None:
    accepted = tomllib.loads(ACCEPTED.read_text("utf-8"))
    for name, reasons in accepted.items():
        (module,) = _modules([name])
        source = module.source.encode()
        lines = {_line(source, each) for each in module.mutations}
        stale = [key for key in reasons if key.partition(" → ")[0] not in lines]
        assert stale == [], name
        assert all(len(reason) > 20 for reason in reasons.values())


def test_a_mutant_dies_of_a_test_and_without_one_it_lives_and_no_file_changes() -> None:
    program = """
from pathlib import Path
from tests.mutants.trial import Baseline, is_killed
path = Path("schemas/ids.py").absolute()
text = path.read_bytes()
test = "tests/schemas/test_ids.py::test_ids_of_different_kinds_never_meet"
for after in (text, text.replace(b'"escalation"', b'"answer"')):
    print(is_killed(path, after, Baseline({test: 0.1}), tests=[], wanted=[test]))
assert path.read_bytes() == text
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
