"""Checks a mapping file, and collects all that is wrong with it."""

import codecs
import re
from collections.abc import Iterable
from datetime import date
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nabij.geodata.geodata_errors import StreamError
from nabij.geodata.places import Columns, Place, Point, Projection, projection
from verify.datasets.mappings import NONE, Condition, Mapping, Rule
from verify.datasets.rows import Layout
from verify.datasets.template import Template
from verify.datasets.timestamps import TimeFormat, Window, window_of

_TIMES = ("timezone", "time_format", "since", "until")
_PLACES = ("decimal", "crs", "point_order")
_ROWS = ("encoding", "delimiter", "quote", "none", "keep", "drop")
KEYS = frozenset((*_TIMES, *_PLACES, *_ROWS, "text", "default", "columns", "rules"))
COLUMN_KEYS = frozenset(("time", "lat", "lon", "x", "y", "point", "category"))
RULE_KEYS = frozenset(("when", "category", "text"))
ORDERS = ("lat lon", "lon lat")
_NAME_IT = "name a column of the file"

_EPSG = re.compile(r"(?:EPSG:)?(\d{4,6})", re.IGNORECASE)


class MappingReader:
    """Reads one mapping; `mapping` once."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name = name
        self._values = values
        self._errors: list[str] = []

    def mapping(self) -> Mapping:
        """Return it.

        Raises:
            StreamError: with every error at once.
        """
        values = self._values
        self._unknown(values, KEYS, "")
        columns = self._columns()
        zone = self._zone()
        text = self._template(self._string(values, "text", default=""), "text")
        default = self._string(values, "default", default="")
        mapping = Mapping(
            name=self._name,
            time=self._time(columns.get("time")),
            time_formats=self._time_formats(),
            place=self._place(columns),
            category=self._names(columns.get("category"), "columns.category"),
            zone=zone,
            rules=self._rules(text),
            default=Rule((), default, text) if default else None,
            layout=self._layout(),
            none=frozenset(
                each.strip().casefold()
                for each in self._strings(values.get("none", list(NONE)), "none")
            ),
            keep=self._conditions(values.get("keep", {}), "keep"),
            drop=self._conditions(values.get("drop", {}), "drop"),
            window=self._window(zone),
        )
        if not mapping.rules and not mapping.default and not self._errors:
            self._errors.append("neither [[rules]] nor a default: every row would be left out")
        if self._errors:
            raise StreamError("\n".join(f"mapping {self._name}: {each}" for each in self._errors))
        return mapping

    def _unknown(self, values: dict[str, Any], known: Iterable[str], where: str) -> None:
        for key in values.keys() - set(known):
            begun = [each for each in known if key.startswith(each) or each.startswith(key)]
            near = [*get_close_matches(key, known, 1), *sorted(begun, key=len, reverse=True)]
            told = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            self._errors.append(f"unknown key {where}{key}: {told}")

    def _columns(self) -> dict[str, Any]:
        columns = self._values.get("columns")
        if not isinstance(columns, dict):
            self._errors.append("no table [columns] with time, lat, lon and category")
            return {}
        self._unknown(columns, COLUMN_KEYS, "columns.")
        return columns

    # -- time ------------------------------------------------------------------------------------

    def _time(self, value: Any) -> Template:
        columns = self._names(value, "columns.time")
        if len(columns) == 1 and "{" in columns[0]:
            return self._template(columns[0], "columns.time")
        return Template.of_columns(columns)

    def _time_formats(self) -> tuple[TimeFormat, ...]:
        formats = []
        for text in self._strings(self._values.get("time_format", "iso"), "time_format"):
            try:
                formats.append(TimeFormat.parse(text))
            except ValueError as error:
                self._errors.append(f"time_format {text!r}: {error}")
        return tuple(formats)

    def _zone(self) -> ZoneInfo:
        name = self._string(self._values, "timezone")
        try:
            return ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._errors.append(
                f"timezone {name!r} is none that this machine knows: write a name as Europe/Brussels"
            )
            return ZoneInfo("UTC")

    def _window(self, zone: ZoneInfo) -> Window:
        since, until = (self._day(key) for key in ("since", "until"))
        try:
            return window_of(since, until, zone)
        except ValueError as error:
            self._errors.append(str(error))
            return Window()

    def _day(self, key: str) -> str:
        """TOML has dates of its own: both `2024-05-01` and "2024-05-01" are right."""
        value = self._values.get(key)
        if isinstance(value, date):  # so is a datetime
            return value.isoformat()
        return self._string(self._values, key, default="")

    # -- place -----------------------------------------------------------------------------------

    def _place(self, columns: dict[str, Any]) -> Place:
        project = self._projection()
        decimal = self._one_of("decimal", (".", ","), ".")
        order = self._one_of("point_order", ORDERS, ORDERS[0])
        given = {key for key in ("lat", "lon", "x", "y", "point") if key in columns}
        if given == {"point"}:
            return Point(
                self._string(columns, "point", where="columns."), order == ORDERS[0], project
            )
        if "crs" in self._values:
            x, y = self._pair(columns, ("x", "y"), "crs says that places are projected")
        else:
            x, y = self._pair(columns, ("lon", "lat"), "without crs places are in degrees")
        return Columns(x, y, decimal, project)

    def _pair(self, columns: dict[str, Any], names: tuple[str, str], why: str) -> tuple[str, str]:
        others = {"lat", "lon", "x", "y", "point"} - set(names)
        if other := sorted(others & columns.keys()):
            self._errors.append(
                f"columns.{other[0]}: {why}, so [columns] needs {' and '.join(names)} (or point alone)"
            )
        x, y = (self._string(columns, name, where="columns.") for name in names)
        return x, y

    def _projection(self) -> Projection | None:
        crs = self._values.get("crs")
        if crs is None:
            return None
        found = _EPSG.fullmatch(str(crs))
        if found is None or isinstance(crs, float):
            self._errors.append(f'crs must be an EPSG code as "EPSG:31370", not {crs!r}')
            return None
        try:
            return projection(int(found[1]))
        except StreamError as error:
            self._errors.append(str(error))
            return None

    # -- rows ------------------------------------------------------------------------------------

    def _layout(self) -> Layout:
        encoding = self._string(self._values, "encoding", default="") or None
        if encoding and not _is_encoding(encoding):
            self._errors.append(f"encoding {encoding!r} is none that Python knows: utf-8, cp1252 …")
        delimiter = self._string(self._values, "delimiter", default="") or None
        if delimiter and set(delimiter) & set("\r\n"):
            self._errors.append("delimiter: a line break ends rows, and cannot separate columns")
            delimiter = None
        quote = self._string(self._values, "quote", default='"')
        if len(quote) > 1 or quote in ("\r", "\n") or (quote and quote == delimiter):
            self._errors.append(f"quote must be one character, or empty for none, not {quote!r}")
            quote = '"'
        return Layout(encoding, delimiter, quote)

    def _rules(self, text: Template) -> tuple[Rule, ...]:
        rules = self._values.get("rules", [])
        if not isinstance(rules, list):
            self._errors.append("rules must be a list of tables: [[rules]]")
            return ()
        return tuple(self._rule(each, f"rules[{index}]", text) for index, each in enumerate(rules))

    def _rule(self, values: Any, where: str, text: Template) -> Rule:
        if not isinstance(values, dict) or not isinstance(values.get("when"), dict):
            self._errors.append(f"{where}: no `when` of columns and values")
            return Rule((), "", text)
        self._unknown(values, RULE_KEYS, f"{where}.")
        if "text" in values:
            text = self._template(self._string(values, "text", default=""), f"{where}.text")
        return Rule(
            self._conditions(values["when"], f"{where}.when"),
            self._string(values, "category", where=f"{where}."),
            text,
        )

    def _conditions(self, values: Any, where: str) -> tuple[Condition, ...]:
        if not isinstance(values, dict):
            self._errors.append(f'{where} must be a table: {{ column = "value" }}, not {values!r}')
            return ()
        if any(not column.strip() for column in values):
            self._errors.append(f"{where} has an empty key: {_NAME_IT}")
        return tuple(
            (
                column,
                tuple(each.casefold() for each in self._strings(patterns, f"{where}.{column}")),
            )
            for column, patterns in values.items()
        )

    # -- values ----------------------------------------------------------------------------------

    def _template(self, text: str, where: str) -> Template:
        try:
            return Template.parse(text)
        except ValueError as error:
            self._errors.append(f"{where} {text!r}: {error}")
            return Template(())

    def _one_of(self, key: str, known: tuple[str, ...], default: str) -> str:
        value = self._values.get(key, default)
        if value in known:
            return str(value)
        told = " or ".join(map(repr, known))
        self._errors.append(f"{key} must be {told}, not {value!r}")
        return default

    def _string(
        self, values: dict[str, Any], key: str, *, default: str | None = None, where: str = ""
    ) -> str:
        value = values.get(key, default)
        if isinstance(value, str) and (value.strip() or default is not None):
            return value
        if isinstance(value, str):
            told = f"is empty: {_NAME_IT}" if where == "columns." else "is empty"
        else:
            told = "is missing" if value is None else f"must be a text, not {value!r}"
        self._errors.append(f"{where}{key} {told}")
        return ""

    def _names(self, value: Any, where: str) -> tuple[str, ...]:
        """Return names of columns: texts of which none is empty."""
        names = self._strings(value, where)
        if not all(name.strip() for name in names):
            self._errors.append(f"{where} is empty: {_NAME_IT}")
        return names

    def _strings(self, value: Any, where: str) -> tuple[str, ...]:
        each = [value] if isinstance(value, str) else value
        if isinstance(each, list) and each and all(isinstance(item, str) for item in each):
            return tuple(each)
        told = "is missing" if value is None else f"must be a text or a list of them, not {value!r}"
        self._errors.append(f"{where} {told}")
        return ()


def _is_encoding(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # noqa: SLF001 - how open() tells
    except (LookupError, ValueError):
        return False
