"""CHANGELOG.md keeps its order: each entry once, and the sections as Keep a Changelog has them."""

import re
from collections import Counter
from pathlib import Path

CHANGELOG = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_sections_of_a_release_stand_once_and_in_order() -> None:
    for release in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        found = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert found == [section for section in SECTIONS if section in found]


def test_no_entry_stands_twice() -> None:
    """A rebase over entries that were moved brings them back where they were."""
    entries = Counter(line[:60] for line in CHANGELOG.splitlines() if line.startswith("- "))
    assert len(entries) > 50
    assert [entry for entry, times in entries.items() if times > 1] == []
