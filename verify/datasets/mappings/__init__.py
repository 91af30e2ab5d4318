"""How a stream of incidents is read: its columns, its time zone, and its categories as ours.

Mappings that ship are the TOML files beside this module; `verify/datasets/mappings/montgomery.toml`
shows every key. `--map FILE` takes one's own, `nabij replay --inspect FILE` proposes one.
"""

import tomllib
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

from nabij.geodata.geodata_errors import StreamError
from nabij.geodata.places import Place
from verify.datasets.rows import Layout
from verify.datasets.template import Template
from verify.datasets.timestamps import TimeFormat, Window

SHIPPED = ("groningen", "montgomery", "zurich")
NONE = ("", "null", "none", "nan", "n/a", "-")

Condition = tuple[str, tuple[str, ...]]


def meets(condition: Condition, values: Dict[str, str]) -> bool:
    """Whether the column has one of the patterns (`*` and `?`, case ignored)."""
    column, patterns = condition
    value = values[column].strip().casefold()
    return any(fnmatchcase(value, each) for each in patterns)


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows that meet every condition are of `category`, and their reporter says `text`."""

    when: tuple[Condition, ...]
    category: str
    text: Template

    def matches(self, values: Dict[str, str]) -> bool:
        """Whether every column has one of its patterns."""
        return all(meets(condition, values) for condition in self.when)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """One mapping file. The first rule that matches decides; `default` is for what none does.

    Only rows that meet all of `keep` and none of `drop` are read, and of those the ones in
    `window`. What is in `none` (case ignored) stands for an empty column of time or place.
    """

    name: str
    time: Template
    time_formats: tuple[TimeFormat, ...]
    place: Place
    category: tuple[str, ...]
    zone: ZoneInfo
    rules: tuple[Rule, ...]
    default: Rule | None = None
    layout: Layout = field(default_factory=Layout)
    none: frozenset[str] = frozenset(NONE)
    keep: tuple[Condition, ...] = ()
    drop: tuple[Condition, ...] = ()
    window: Window = field(default_factory=Window)

    @cached_property
    def needed(self) -> dict[str, str]:
        """Every column that a file must have, and what it is needed for."""
        needed = dict.fromkeys(self.category, "columns.category")
        for number, rule in enumerate(self._all_rules):
            where = "text" if rule is self.default else f"rules[{number}]"
            needed |= dict.fromkeys(rule.text.columns, f"{where}: its text")
            needed |= {column: f"{where}.when" for column, _ in rule.when}
        needed |= {column: "keep" for column, _ in self.keep}
        needed |= {column: "drop" for column, _ in self.drop}
        needed |= dict.fromkeys(self.place.columns, "the place")
        return needed | dict.fromkeys(self.time.columns, "the time")

    @property
    def categories(self) -> set[str]:
        """Our categories that rows may become."""
        return {rule.category for rule in self._all_rules}

    @property
    def _all_rules(self) -> tuple[Rule, ...]:
        return (*self.rules, self.default) if self.default else self.rules

    def takes(self, values: Dict[str, str]) -> bool:
        """Whether `keep` and `drop` let the row through."""
        return all(meets(each, values) for each in self.keep) and not any(
            meets(each, values) for each in self.drop
        )

    def cleared(self, values: Dict[str, str]) -> Dict[str, str]:
        """Return the columns of time and place, emptied where they say none."""
        return {
            column: "" if (value := values[column]).strip().casefold() in self.none else value
            for column in self._cleared
        }

    @cached_property
    def _cleared(self) -> tuple[str, ...]:
        return (*(self.time.columns | self.place.columns),)

    def category_of(self, values: Dict[str, str]) -> str:
        """Return the row's category in the stream's own words."""
        return " / ".join(values[column] for column in self.category)

    def rule_for(self, values: Dict[str, str]) -> Rule | None:
        """Return the rule that decides on this row."""
        return next((rule for rule in self.rules if rule.matches(values)), self.default)


def load_mapping(name: str | Path) -> Mapping:
    """Return the mapping that ships under `name`, or that of a file.

    Raises:
        StreamError: there is none, or it says what cannot be; with every error at once.
    """
    if str(name) in SHIPPED:
        text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise StreamError(
                f"no mapping {str(name)!r}: give a TOML file, or one of {', '.join(SHIPPED)} "
                f"({error})"
            ) from None
    return parse_mapping(str(name), text)


def parse_mapping(name: str, text: str) -> Mapping:
    """Return the mapping in a TOML text.

    Raises:
        StreamError: with every error at once.
    """
    from verify.datasets.mappings.reader import MappingReader  # noqa: PLC0415 - it imports this module

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StreamError(f"mapping {name}: {error}") from None
    return MappingReader(name, values).mapping()
