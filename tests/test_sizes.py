"""What is long says why: a reason stands beside it, or it is split."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "broker", "services", "devices", "verify", "nabij", "bench")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

LINES, PARAMETERS, FILE_LINES = 40, 7, 400
REASON = re.compile(r"# (?:noqa: [\w, ]+ - |long: )\w.{9,}")


def reason_beside(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a comment with a reason stands on the function's first line, or right above it."""
    first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
    return any(REASON.search(lines[number - 1]) for number in (function.lineno, first - 1))


def too_long(lines: list[str], name: Path) -> Iterator[str]:
    if len(lines) > FILE_LINES and not any(REASON.search(line) for line in lines[:40]):
        yield f"{name}: {len(lines)} lines"


def unexplained(path: Path) -> Iterator[str]:
    """What in a file is too long, or takes too much, and does not say why."""
    with tokenize.open(path) as file:
        text = file.read()
    lines, name = text.splitlines(), path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    yield from too_long(lines, name)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        given = node.args
        takes = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        parameters = len(takes) - (takes[:1] in (["self"], ["cls"]))
        assert node.end_lineno is not None
        length = node.end_lineno - node.lineno + 1
        is_long = length > LINES or parameters > PARAMETERS
        if is_long and not reason_beside(lines, node):
            yield f"{name}:{node.lineno} {node.name}: {length} lines, {parameters} parameters"


def test_what_is_above_40_lines_7_parameters_or_400_lines_a_file_says_why() -> None:
    assert len(FILES) > 200
    assert [problem for path in FILES for problem in unexplained(path)] == []


def test_a_file_of_tests_above_400_lines_says_why() -> None:
    assert len(TESTS) > 150
    found = (too_long(path.read_text(encoding="utf-8").splitlines(), path) for path in TESTS)
    assert [problem for problems in found for problem in problems] == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("def f():\n" + "    g()\n" * 39, []),
        ("def f():\n" + "    g()\n" * 40, ["f: 41 lines, 0 parameters"]),
        ("def f():  # long: one row for each kind\n" + "    g()\n" * 40, []),
        ("# long: one row for each kind\n@d\ndef f():\n" + "    g()\n" * 40, []),
        ("def f():  # noqa: C901\n" + "    g()\n" * 40, ["f: 41 lines, 0 parameters"]),
        ("class C:\n def f(self, a, b, c, d, e, f, g): ...\n", []),
        ("def f(a, b, c, d, *, e, f, g, h): ...\n", ["f: 1 lines, 8 parameters"]),
        ("x = 1\n" * 401, ["401 lines"]),
        ("# long: a table that is read as one\n" + "x = 1\n" * 401, []),
    ],
)
def test_a_reason_must_stand_beside_it(text: str, problems: list[str], tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(text)

    found = [re.sub(r"^\S+ ", "", problem) for problem in unexplained(path)]

    assert found == problems
