"""The tables of normative statements are complete, and the tests that they name exist."""

import ast
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# How many statements each section has, of the appendix B of either specification.
V5 = {
    "1.5.4": 3, "1.5.5": 1, "1.5.7": 1, "2.1.3": 1, "2.2.1": 6, "2.2.2": 1, "3.1.0": 2, "3.1.2": 30,
    "3.1.3": 12, "3.1.4": 6, "3.2.0": 2, "3.2.2": 22, "3.3.1": 13, "3.3.2": 20, "3.3.4": 10,
    "3.4.2": 3, "3.5.2": 3, "3.6.1": 1, "3.6.2": 3, "3.7.2": 3, "3.8.1": 1, "3.8.3": 5, "3.8.4": 8,
    "3.9.2": 2, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.11.2": 2, "3.11.3": 2,
    "3.12.4": 1, "3.14.0": 1, "3.14.1": 1, "3.14.2": 4, "3.14.4": 3, "3.15.1": 1, "3.15.2": 3,
    "4.1.0": 2, "4.2.0": 1, "4.3.1": 1, "4.3.2": 5, "4.3.3": 13, "4.4.0": 2, "4.5.0": 2, "4.6.0": 6,
    "4.7.0": 1, "4.7.1": 2, "4.7.2": 1, "4.7.3": 4, "4.8.2": 6, "4.9.0": 3, "4.12.0": 7, "4.12.1": 2,
    "4.13.1": 1, "4.13.2": 1, "6.0.0": 4,
}  # fmt: skip
V311 = {
    "1.5.3": 3, "2.2.2": 2, "2.3.1": 7, "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1,
    "3.2.2": 6, "3.3.1": 12, "3.3.2": 3, "3.3.4": 1, "3.3.5": 2, "3.6.1": 1, "3.8.1": 1, "3.8.3": 4,
    "3.8.4": 6, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.12.4": 1, "3.14.1": 1,
    "3.14.4": 3, "4.1.0": 2, "4.3.1": 1, "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6,
    "4.7.1": 3, "4.7.2": 1, "4.7.3": 4, "4.8.0": 2, "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
}  # fmt: skip
ABSENT = {"2.2.1-1"}  # MQTT 5 has no statement of this number


def statements(name: str) -> dict[str, dict[str, Any]]:
    """Return a table; a number that stands twice is an error of TOML."""
    found: dict[str, dict[str, Any]] = tomllib.loads((HERE / name).read_text())
    return found


def names_in(path: Path) -> set[str]:
    """Return the names of the tests of a file."""
    tree = ast.parse(path.read_text())
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("name", "sections", "absent"),
    [("statements_v5.toml", V5, ABSENT), ("statements_v311.toml", V311, set[str]())],
)
def test_every_statement_is_in_its_table_once(
    name: str, sections: dict[str, int], absent: set[str]
) -> None:
    numbers = [f"{one}-{number + 1}" for one, count in sections.items() for number in range(count)]
    assert list(statements(name)) == [number for number in numbers if number not in absent]


@pytest.mark.parametrize("name", ["statements_v5.toml", "statements_v311.toml"])
def test_every_statement_has_a_test_that_exists_or_says_why_not(name: str) -> None:
    for number, statement in statements(name).items():
        assert {"says"} < {*statement} <= {"says", "test", "client", "why"}, number
        assert len(statement) == 2, number
        if "test" in statement:
            path, _, test = statement["test"].partition("::")
            assert test.startswith("test_")
            assert test in names_in(ROOT / path), number
        else:
            assert statement.get("client") is True or statement["why"], number
