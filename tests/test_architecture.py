"""docs/architecture.md names the rooms that there are, and what they import is what it lets them."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCUMENT = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w.]+)` \|.*\| ([^|]+) \|$", DOCUMENT, re.MULTILINE)
ALLOWED = {room: set(re.findall(r"`([\w.]+)`", cell)) for room, cell in ROWS}
LIKE_SERVICES = {room for room, cell in ROWS if "what `services` may import" in cell}
# Folders that belong to the room above them; `verify` is nothing but its rooms.
INNER = {"schemas.messages", "verify", "verify.datasets.mappings", "bench.peers"}


def packages() -> set[str]:
    tops = [path.parent for path in REPOSITORY.glob("*/__init__.py")]
    return {named(path.parent) for top in tops for path in top.rglob("__init__.py")}


def named(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def room_of(module: str) -> str | None:
    """The innermost room that `module` is in; None when it is none of ours."""
    rooms = [room for room in ALLOWED if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, also within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_between_rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for package in packages() - {"verify"}:
        for path in (REPOSITORY / package.replace(".", "/")).glob("*.py"):
            here = room_of(f"{package}.{path.stem}")
            assert here is not None
            rooms = {room_of(module) for module in imported(path)} - {None, here}
            found[here] |= {str(room) for room in rooms}
    return found


def test_every_room_has_its_row_and_every_row_its_room() -> None:
    assert len(ROWS) == len(ALLOWED)
    assert ALLOWED.keys() == packages() - INNER


def test_no_room_imports_what_the_document_does_not_let_it() -> None:
    everything = {room for room, cell in ROWS if cell == "everything"}
    shared = ALLOWED["services"]
    too_much = {
        room: used - ALLOWED[room] - (shared if room in LIKE_SERVICES else set())
        for room, used in imports_between_rooms().items()
        if room not in everything
    }
    assert {room: used for room, used in too_much.items() if used} == {}


@pytest.mark.parametrize(
    ("change", "most"),
    [
        ("A category", 2),
        ("A topic, with a service that handles it", 6),
        ("A question to the store", 4),
    ],
)
def test_a_change_is_made_in_few_files_and_these_exist(change: str, most: int) -> None:
    section = DOCUMENT.partition(f"### {change}\n")[2].partition("\n### ")[0]
    steps = re.findall(r"^\d\. `([\w./]+)`", section, re.MULTILINE)

    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) == len(steps)
    assert 0 < len(steps) <= most
    assert all((REPOSITORY / step).exists() for step in steps)
