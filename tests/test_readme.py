"""The README's tables are the code's: topics, settings, commands; and nothing is unnamed."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from broker.runtime.config import SETTINGS
from nabij.cli import app
from schemas.topics import TOPICS

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [
    path.relative_to(REPOSITORY)
    for path in sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
]
PACKAGES = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
FOLDERS = (
    "schemas",
    "broker",
    "services",
    "devices",
    "verify",
    "nabij",
    "bench",
    "tests",
    "docs",
    "ops",
)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the README's table whose heads are `heading`."""
    lines = README.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return table


def test_topic_table_is_the_codes() -> None:
    table = {
        row[0]: (row[1], row[2], row[3], row[4], row[5] == "yes") for row in rows("topic | payload")
    }
    code = {
        topic.template: (
            getattr(topic.payload, "__name__", "PoliceCommand"),
            *topic.from_and_to,
            "0 or 1" if topic.name == "presence" else str(topic.qos),
            topic.retain,
        )
        for topic in TOPICS
    }
    assert table == code


def test_settings_table_is_the_codes() -> None:
    assert [row[0] for row in rows("setting | default")] == [setting.name for setting in SETTINGS]


def test_command_table_is_the_codes() -> None:
    commands = typer.main.get_group(app).commands  # type: ignore[attr-defined]
    documented = {row[0].removeprefix("nabij ") for row in rows("command | what it does")}
    assert documented == set(commands)


def test_every_package_is_known_to_the_import_rules_and_the_wheel() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["importlinter"]["root_packages"]) == PACKAGES
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == PACKAGES
    assert set(project["tool"]["mypy"]["packages"]) == PACKAGES


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    linked = {(document.parent / name) for name in re.findall(r"\]\(([\w./-]+)[)#]", text)}
    named = {Path(name) for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+\.\w+)`", text)}
    assert [str(name) for name in linked | named if not (REPOSITORY / name).exists()] == []
