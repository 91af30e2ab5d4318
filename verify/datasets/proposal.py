"""`nabij replay --inspect`: a mapping proposed for an unknown file, and what it would make of it."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Mapping as Dict
from dataclasses import dataclass, replace
from pathlib import Path

from nabij.geodata.geodata_errors import BadRowError, shown
from nabij.geodata.places import projection
from nabij.geodata.timezones import is_nearer_when_turned, nearest_zone
from verify.datasets.guess_category import category_of, guess_category
from verify.datasets.guess_place import PlaceGuess, guess_place
from verify.datasets.guess_time import TimeGuess, guess_time, unused_times
from verify.datasets.mappings import NONE, Mapping, parse_mapping
from verify.datasets.report_stream import OTHERS, Stream, read_stream
from verify.datasets.rows import Layout, OnBytes
from verify.datasets.sample import Table, look_at
from verify.datasets.template import Template

EXAMPLES = 3
LISTED = 60  # categories without a rule that are listed
LONGEST = 120  # characters of a category in a rule
MARKERS = frozenset(("0", "0.0", "0,0", "\\n", "na", "unknown", "onbekend", "?"))

Say = Callable[[str], OnBytes]  # what is being done now; returns who hears how far it is


@dataclass(frozen=True)
class Proposal:
    """A mapping as TOML, and what it makes of the file.

    `stream` is what the mapping would read; None when no time, place or category was found, and
    the mapping has gaps that the user must fill. `remarks` are what is in doubt.
    """

    toml: str
    table: Table
    stream: Stream | None
    remarks: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the mapping can be used as it is, and some rows with it."""
        return self.stream is not None and self.stream.usable > 0


def propose(path: Path, categories: Collection[str], say: Say) -> Proposal:
    """Look at a file and propose a mapping to `categories`, those of the policy.

    Raises:
        StreamError: the file cannot be read, or needs pyproj, which is not installed.
    """
    table = look_at(path, Layout(), say("looking at the columns"))
    when, where = guess_time(table), _turned(guess_place(table))
    taken = Template.parse(when.template).columns if when else set()
    taken |= set(where.columns.values()) if where else set()
    what = guess_category(table, categories, taken)
    draft = _Draft(table, when, where, what, categories)
    times = when.remarks if when else unused_times(table, ())
    remarks = (*times, *(where.remarks if where else ()))
    if not (when and where and what):
        counts = Counter(table.column(what).values) if what else {}
        return Proposal(draft.toml(counts), table, None, (*remarks, *draft.missing()))
    mapping = parse_mapping(str(path), draft.toml({}))
    found = read_stream(
        path,
        replace(mapping, rules=(), default=None),  # so that every row is counted by its category
        limit=1,
        on_bytes=say("counting what is usable"),
    )
    text = draft.toml(found.unmapped)
    return Proposal(text, table, _judged(parse_mapping(str(path), text), found, what), remarks)


def _judged(mapping: Mapping, found: Stream, what: str) -> Stream:
    """Return the stream as the rules would read it; `found` was read without them."""
    unmapped = {
        category: rows
        for category, rows in found.unmapped.items()
        if mapping.rule_for({what: category}) is None
    }
    usable = sum(found.unmapped.values()) - sum(unmapped.values())
    return replace(found, unmapped=unmapped, usable=usable)


def _turned(where: PlaceGuess | None) -> PlaceGuess | None:
    """Take latitude and longitude the other way round where only that is near any city."""
    if where is None or "lat" not in where.columns:
        return where
    lon, lat = where.middle
    if not is_nearer_when_turned(lat, lon):
        return where
    return replace(
        where,
        columns={"lat": where.columns["lon"], "lon": where.columns["lat"]},
        middle=(lat, lon),
        remarks=(
            *where.remarks,
            (
                f"{where.columns['lat']} looks like longitudes and {where.columns['lon']} like "
                "latitudes: taken so, check it"
            ),
        ),
    )


@dataclass(frozen=True)
class _Draft:
    """What is known of the mapping; `toml` writes it."""

    table: Table
    when: TimeGuess | None
    where: PlaceGuess | None
    what: str | None
    known: Collection[str]

    def missing(self) -> Iterator[str]:
        """Say which column was not found."""
        found = {"time": self.when, "place": self.where, "category": self.what}
        for name, each in found.items():
            if each is None:
                yield f"no column was found for the {name}: fill it in"

    def toml(self, counts: Dict[str, int]) -> str:
        """Return the mapping, with rules for the categories that are counted."""
        lines = [*self._head(), "", *self._columns(), *self._rules(counts)]
        return "\n".join(lines) + "\n"

    def _head(self) -> Iterator[str]:
        layout = self.table.layout
        yield f"# Proposed by nabij replay --inspect for {_comment(self.table.path.name)}: check it."
        yield f"# {self.table.total:,} rows; the columns, with examples:"
        for column in self.table.columns:
            examples = ", ".join(
                shown(each) for each, _ in Counter(column.present).most_common(EXAMPLES)
            )
            yield f"#   {_comment(column.name)}: {examples or 'nothing'}"
        yield ""
        yield f"timezone = {_quoted(self._zone())}  # of the times that carry no offset: a guess by the place"
        if self.when and self.when.formats != ("iso",):
            yield f"time_format = {_listed(self.when.formats)}"
        yield f"encoding = {_quoted(layout.encoding or 'utf-8')}"
        yield f"delimiter = {_quoted(layout.delimiter or ',')}"
        for key, value in (self.where.keys if self.where else {}).items():
            yield f"{key} = {_quoted(value)}"
        if markers := sorted(self._markers()):
            yield f"none = {_listed((*NONE, *markers))}"
        if self.what and not set("{}") & set(self.what):
            yield f"text = {_quoted(Template.field(self.what))}  # what the reporter says"

    def _columns(self) -> Iterator[str]:
        yield "[columns]"
        if self.when and self._is_plain(self.when.template):
            yield f"time = {_quoted(self.when.template[1:-1])}"
        else:
            yield f"time = {_quoted(self.when.template if self.when else '')}"
        for key, column in (self.where.columns if self.where else {"lat": "", "lon": ""}).items():
            yield f"{key} = {_quoted(column)}"
        yield f"category = {_quoted(self.what or '')}"

    @staticmethod
    def _is_plain(template: str) -> bool:
        return template.count("{") == 1 and re.fullmatch(r"\{[^{}:]*\}", template) is not None

    def _rules(self, counts: Dict[str, int]) -> Iterator[str]:
        values: dict[str, list[str]] = {}
        left: list[tuple[str, int]] = []
        for value, rows in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
            ours = category_of(value, self.known) if len(value) <= LONGEST else None
            if ours and value != OTHERS:
                values.setdefault(ours, []).append(value)
            else:
                left.append((value, rows))
        if not values:
            yield from self._default()
        for ours, theirs in values.items():
            yield ""
            yield "[[rules]]"
            matched = _listed([_literal(each) for each in theirs])
            yield f"when = {{ {_key(self.what or '')} = {matched} }}"
            yield f"category = {_quoted(ours)}"
        if values and left:
            yield ""
            sample = "" if self._is_counted else f" (of {len(self.table.rows):,} looked at)"
            yield f"# No rule for these{sample}; a rule of your own, or default = above, brings them in:"
            for value, rows in left[:LISTED]:
                yield f"#   {rows:,} rows: {shown(value)}"
            if len(left) > LISTED:
                yield f"#   and {len(left) - LISTED:,} more"

    @property
    def _is_counted(self) -> bool:
        """Whether the categories are those of all rows, and not of the sample."""
        is_whole = bool(self.when and self.where and self.what)
        return is_whole or len(self.table.rows) == self.table.total

    def _default(self) -> Iterator[str]:
        ours = "suspicious" if "suspicious" in self.known else min(self.known, default="suspicious")
        why = "None of their categories was understood" if self.what else "No category was found"
        yield ""
        yield f"# {why}: write rules as this one. The last takes all."
        yield f"# Ours are {', '.join(sorted(self.known))}."
        yield "[[rules]]"
        yield f'when = {{ {_key(self.what or "")} = "*" }}'
        yield f"category = {_quoted(ours)}"

    def _zone(self) -> str:
        if self.where is None:
            return "UTC"
        x, y = self.where.middle
        lat, lon = y, x
        if not self.where.is_degrees:
            project = projection(int(self.where.keys["crs"].removeprefix("EPSG:")))
            try:
                lat, lon = project(x, y) if project else (y, x)
            except BadRowError:
                return "UTC"
        return nearest_zone(lat, lon) or "UTC"

    def _markers(self) -> set[str]:
        """Return what stands for none in the columns of time and place, beyond the usual."""
        names = set(self.where.columns.values()) if self.where else set()
        names |= Template.parse(self.when.template).columns if self.when else set()
        hours = Template.parse(self.when.template).columns if self.when else set()
        return {
            word
            for column in self.table.columns
            if column.name in names
            for value in column.values
            if (word := value.strip().casefold()) in MARKERS
            and not (column.name in hours and word.startswith("0"))
        }


def _literal(value: str) -> str:
    """Return a pattern that matches this value alone."""
    return re.sub(r"([*?[])", r"[\1]", value.strip())


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _listed(texts: Iterable[str]) -> str:
    each = [_quoted(text) for text in texts]
    return each[0] if len(each) == 1 else f"[{', '.join(each)}]"


def _comment(text: str) -> str:
    return "".join(mark if mark.isprintable() else " " for mark in text)
