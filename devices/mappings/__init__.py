"""How a stream of incidents is read: its columns, its time zone, and its categories as ours.

Mappings that ship are the TOML files beside this module; `devices/mappings/montgomery.toml` shows
every key. `--map FILE` takes one's own.
"""

import string
import tomllib
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SHIPPED = ("groningen", "montgomery", "zurich")


class StreamError(Exception):
    """A stream or its mapping that whoever started the replay must mend."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows whose columns match one pattern each (`*` and `?`, case ignored) are of `category`."""

    when: tuple[tuple[str, tuple[str, ...]], ...]
    category: str
    text: str

    def matches(self, values: Dict[str, str]) -> bool:
        """Whether every column has one of its patterns."""
        return all(
            any(fnmatchcase(values[column].strip().casefold(), each) for each in patterns)
            for column, patterns in self.when
        )

    def text_of(self, values: Dict[str, str]) -> str:
        """Return the report's text: the template with `{column}` filled in."""
        return self.text.format_map(values)

    @property
    def columns(self) -> set[str]:
        """The columns that the rule reads."""
        fields = {name for _, name, _, _ in string.Formatter().parse(self.text) if name}
        return fields | {column for column, _ in self.when}


@dataclass(frozen=True)
class Mapping:
    """One mapping file. The first rule that matches decides; `default` is for what none does."""

    name: str
    time: str
    lat: str
    lon: str
    category: tuple[str, ...]
    zone: ZoneInfo
    rules: tuple[Rule, ...]
    default: Rule | None = None
    time_format: str | None = None
    delimiter: str = ","

    @property
    def columns(self) -> set[str]:
        """Every column that a file must have."""
        rules = (*self.rules, self.default) if self.default else self.rules
        return {self.time, self.lat, self.lon, *self.category}.union(
            *(rule.columns for rule in rules)
        )

    @property
    def categories(self) -> set[str]:
        """Our categories that rows may become."""
        rules = (*self.rules, self.default) if self.default else self.rules
        return {rule.category for rule in rules}

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
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StreamError(
                f"no mapping {str(name)!r}: give a TOML file, or one of {', '.join(SHIPPED)} "
                f"({error})"
            ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StreamError(f"{name}: {error}") from None
    return _Reader(str(name), values).mapping()


class _Reader:
    """Checks a mapping file and collects all that is wrong with it."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self._values = values
        self._errors: list[str] = []

    def mapping(self) -> Mapping:
        known = {"columns", "timezone", "time_format", "delimiter", "text", "default", "rules"}
        self._errors += [f"unknown key {key!r}" for key in self._values.keys() - known]
        columns = self._values.get("columns")
        if not isinstance(columns, dict):
            columns = {}
            self._errors.append("no table [columns] with time, lat, lon and category")
        text = self._string(self._values, "text", default="")
        default = self._string(self._values, "default", default="")
        mapping = Mapping(
            name=self._name,
            time=self._string(columns, "time"),
            lat=self._string(columns, "lat"),
            lon=self._string(columns, "lon"),
            category=self._strings(columns.get("category"), "columns.category"),
            zone=self._zone(),
            rules=tuple(
                self._rule(each, f"rules[{index}]", text)
                for index, each in enumerate(self._values.get("rules", ()))
            ),
            default=Rule((), default, text) if default else None,
            time_format=self._string(self._values, "time_format", default="") or None,
            delimiter=self._string(self._values, "delimiter", default=","),
        )
        if not mapping.rules and not mapping.default:
            self._errors.append("neither [[rules]] nor a default")
        if self._errors:
            raise StreamError(f"mapping {self._name}: {'; '.join(self._errors)}")
        return mapping

    def _rule(self, values: Any, where: str, text: str) -> Rule:
        if not isinstance(values, dict) or not isinstance(values.get("when"), dict):
            self._errors.append(f"{where}: no `when` of columns and values")
            return Rule((), "", "")
        when = tuple(
            (column, tuple(each.casefold() for each in self._strings(patterns, f"{where}.when")))
            for column, patterns in values["when"].items()
        )
        template = self._string(values, "text", default=text)
        try:
            list(string.Formatter().parse(template))
        except ValueError as error:
            self._errors.append(f"{where}: text {template!r}: {error}")
            template = ""
        return Rule(when, self._string(values, "category", where=where), template)

    def _zone(self) -> ZoneInfo:
        name = self._string(self._values, "timezone")
        try:
            return ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            self._errors.append(f"timezone {name!r} is none that this machine knows")
            return ZoneInfo("UTC")

    def _string(
        self, values: dict[str, Any], key: str, *, default: str | None = None, where: str = ""
    ) -> str:
        value = values.get(key, default)
        if isinstance(value, str) and (value or default is not None):
            return value
        self._errors.append(f"{where}{' ' if where else ''}{key} must be a text, not {value!r}")
        return ""

    def _strings(self, value: Any, where: str) -> tuple[str, ...]:
        each = [value] if isinstance(value, str) else value
        if isinstance(each, list) and each and all(isinstance(item, str) for item in each):
            return tuple(each)
        self._errors.append(f"{where} must be a text or a list of them, not {value!r}")
        return ()
