"""The README's tables are the code's: topics, settings, commands; and nothing is unnamed.

After a change of topics or services: `.venv/bin/python -m tests.test_readme` writes them into it.
"""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

import services
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


def topic_rows() -> list[str]:
    """The table of topics, as the contract has it."""
    return [
        f"| `{topic.template}` | {getattr(topic.payload, '__name__', 'PoliceCommand')} "
        f"| {' | '.join(topic.from_and_to)} | {'0 or 1' if topic.name == 'presence' else topic.qos} "
        f"| {'yes ' if topic.retain else ''}|"
        for topic in TOPICS
    ]


def rewritten(readme: str) -> str:
    """The README with the table of topics and the list of services that the code has."""
    table = "\n".join(topic_rows())
    readme = re.sub(r"(?<=\| topic \| payload )(.*\n.*\n)(?:\|.*\n)+", rf"\1{table}\n", readme)
    return re.sub(r"(?<=one file each: ).*", " ".join(services.ALL), readme)


def test_topics_and_services_are_the_codes() -> None:
    assert rewritten(README) == README, "run `.venv/bin/python -m tests.test_readme`"


def test_another_topic_or_service_would_be_noticed() -> None:
    [row] = re.findall(r"^\| `u/\{user\}/down/alert`.*\n", README, re.MULTILINE)
    assert rewritten(README.replace(row, "")) == README
    assert rewritten(README.replace("one file each: intake", "one file each:")) == README


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


if __name__ == "__main__":
    (REPOSITORY / "README.md").write_text(rewritten(README), encoding="utf-8")
