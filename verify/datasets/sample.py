"""A look at an unknown file: its header, how it is written, and a fair sample of its rows."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from nabij.geodata.geodata_errors import StreamError
from verify.datasets.rows import DELIMITERS, Layout, OnBytes, Record, Rows, opened

FIRST = 2_000  # rows from the beginning …
OTHERS = 3_000  # … and so many at random from all that follow
SNIFFED = 50  # lines by which a delimiter is chosen
NOTHING = frozenset(
    ("", "null", "none", "nan", "n/a", "na", "-", "\\n", "unknown", "onbekend", "?")
)
RARE_DELIMITERS = ("||", "^", "~", "\x1f", "\x01")


@dataclass(frozen=True)
class Table:
    """The sample: `rows` are as wide as the header."""

    path: Path
    layout: Layout
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int

    @cached_property
    def columns(self) -> tuple["Column", ...]:
        """The columns whose name stands once: no other can be named."""
        count = Counter(self.header)
        return tuple(
            Column(name, tuple(row[at] for row in self.rows))
            for at, name in enumerate(self.header)
            if name and count[name] == 1
        )

    def column(self, name: str) -> "Column":
        """Return the column of that name."""
        return next(each for each in self.columns if each.name == name)


@dataclass(frozen=True)
class Column:
    """A column's name and what the sample has in it, row by row."""

    name: str
    values: tuple[str, ...]

    @cached_property
    def present(self) -> tuple[str, ...]:
        """The values that say something, stripped."""
        stripped = (value.strip() for value in self.values)
        return tuple(value for value in stripped if value.casefold() not in NOTHING)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its name: `xCoord_Lambert72` has x, coord, lambert72."""
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name)
        return tuple(re.findall(r"[^\W_]+", spaced.casefold()))

    def is_called(self, names: Sequence[str]) -> bool:
        """Whether one of its words is one of these, or begins with one that ends in `*`."""
        return any(
            word == name or (name.endswith("*") and word.startswith(name[:-1]))
            for word in self.words
            for name in names
        )


def look_at(path: Path, layout: Layout, on_bytes: OnBytes | None = None) -> Table:
    """Read the whole file once, and keep a sample of it.

    Raises:
        StreamError: it cannot be read, or has no rows or no columns.
    """
    if layout.delimiter is None:
        layout = Layout(layout.encoding, _delimiter_of(path, layout), layout.quote)
    with opened(path, layout, on_bytes) as rows:
        header = rows.header()
        if len(header) < 2:
            raise StreamError(f"{path}: no columns can be told apart: name the delimiter")
        found = _sampled(rows, len(header))
        layout = Layout(rows.encoding, rows.delimiter, layout.quote)
    if not found[0]:
        raise StreamError(f"{path}: has a header, and no rows")
    return Table(path, layout, tuple(header), found[0], found[1])


def _sampled(rows: Rows, width: int) -> tuple[tuple[tuple[str, ...], ...], int]:
    random, kept, total = Random(0), [], 0
    for record in rows:
        total += 1
        if total <= FIRST + OTHERS:
            kept.append(record)
        elif (at := random.randrange(total - FIRST)) < OTHERS:
            kept[FIRST + at] = record
    return tuple(_fitted(record, width) for record in kept if record.whole), total


def _fitted(record: Record, width: int) -> tuple[str, ...]:
    fields = record.fields[:width]
    return (*fields, *("" for _ in range(width - len(fields))))


def _delimiter_of(path: Path, layout: Layout) -> str | None:
    """Return the delimiter that gives the most columns, as many in the lines as in the header."""
    scores: dict[str, float] = {}
    for delimiter in (*DELIMITERS, *RARE_DELIMITERS):
        with opened(path, Layout(layout.encoding, delimiter, layout.quote)) as rows:
            width = len(rows.header())
            if rows.delimiter != delimiter:
                return rows.delimiter  # the file says so itself
            widths = [len(record.fields) for record, _ in zip(rows, range(SNIFFED), strict=False)]
        alike = sum(each == width for each in widths) / len(widths) if widths else 1.0
        scores[delimiter] = width * alike if width > 1 else 0.0
    best = max(scores, key=lambda each: scores[each])
    return best if scores[best] else None
