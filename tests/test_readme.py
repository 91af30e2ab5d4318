"""The README's tables are the code's: topics, settings, commands; and nothing is unnamed.

After a change of topics or services: `.venv/bin/python -m tests.test_readme` writes them into it,
rights into mosquitto.acl, and containers into docker-compose.yml.
"""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from broker.runtime.config import SETTINGS
from nabij.cli import app
from tests.derived import WRITTEN, differences, write

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
# With arguments; `nabij chaos` alone is the name of a command, which each document explains once.
_BEFORE = r"(?:[A-Z_]+=\S+ )*"
_PROGRAM = r"(?:nabij (?!-)[a-z-]+ \S|python3? -m |pytest \S)"
COMMAND = re.compile(rf"{_BEFORE}(?:[\w./-]+/)?{_PROGRAM}")
RUNNABLE = re.compile(rf"{_BEFORE}(?:/opt/nabij/)?\.venv/bin/{_PROGRAM}")
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


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_file_repeats_of_the_code_is_the_codes(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")

    lines = "\n".join(differences(text, WRITTEN[name](text)))

    assert lines == "", f"{name}: run `.venv/bin/python -m tests.test_readme`:\n{lines}"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("README.md", "| `u/{user}/down/alert` | Alert | alerting | participant | 1 | |"),
        ("mosquitto.acl", "pattern write nabij/v1/u/%u/up/#"),
        ("mosquitto.acl", "topic readwrite nabij/v1/police/maaseik/#"),
        ("mosquitto.acl", "topic read nabij/v1/city/+/#"),
        (
            "docker-compose.yml",
            "  groups:\n    <<: *service\n    command: [up, --service, groups]\n",
        ),
    ],
)
def test_what_it_lacks_would_be_noticed_and_written(name: str, line: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    lacking = text.replace(f"{line}\n", "")

    assert differences(lacking, text) == [f"+ {one}" for one in line.split("\n") if one]
    assert WRITTEN[name](lacking) == text


def test_a_service_that_the_readme_lacks_would_be_noticed() -> None:
    assert WRITTEN["README.md"](README.replace("each: intake", "each:")) == README


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


def commands(text: str) -> list[str]:
    """The commands with arguments in a document: in a line of code, or in a block of shell."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [*re.findall(r"`([^`\n]+)`", prose), *"\n".join(blocks).splitlines()]
    return [line for line in lines if COMMAND.match(line)]


@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if one.name != "CHANGELOG.md"], ids=str
)
def test_commands_in_a_document_can_be_run_as_they_stand(document: Path) -> None:
    found = commands((REPOSITORY / document).read_text(encoding="utf-8"))
    assert [one for one in found if not RUNNABLE.match(one)] == []
    modules = [match[1] for one in found if (match := re.search(r" -m ([\w.]+)", one))]
    files = [REPOSITORY.joinpath(*one.split(".")) for one in modules]
    assert [
        str(one) for one in files if not (one.is_dir() or one.with_suffix(".py").exists())
    ] == []


def test_commands_that_cannot_be_run_as_they_stand_would_be_noticed() -> None:
    text = "`nabij up`: `A=1 nabij doctor --json`, `.venv/bin/pytest x`\n```sh\npython -m tests.x\n```\n"
    assert [one for one in commands(text) if not RUNNABLE.match(one)] == [
        "A=1 nabij doctor --json",
        "python -m tests.x",
    ]


if __name__ == "__main__":
    write()
