"""Real streams of incidents: a CSV file and a mapping become reports around a place of one's choice.

A mapping (TOML, see `verify/datasets/mappings/`) names the columns, the time zone and the rules
that turn the stream's categories into ours. No row is dropped in silence: what no rule knows is
counted by its category, what cannot be read by its reason, with the first such row.
"""

import heapq
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from random import Random

from nabij.geodata.geodata_errors import BadRowError, StreamError, shown
from nabij.geodata.timezones import looks_swapped
from verify.datasets.mappings import Mapping as StreamMapping
from verify.datasets.mappings import Rule, load_mapping
from verify.datasets.rows import OnBytes, Record, Rows, opened, positions
from verify.datasets.timestamps import (
    Moment,
    day_begins,
    day_ends,
    is_in_gap,
    is_unclear,
    read_moment,
)

__all__ = ["SkippedRows", "Stream", "StreamError", "StreamReport", "load_mapping", "read_stream"]

TEXT_LIMIT = 2_000  # schemas.messages.Text
DECIMALS = 6  # of a degree: 0.1 m
COUNTED = 2_000  # categories counted one by one, then all others together
SAMPLE = 200_000  # places whose median is taken
OTHERS = "(others)"
LATITUDE_MOST = 85.0  # beyond it a degree of longitude is no distance any more


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One row as a report: when (UTC), where (WGS 84 degrees), what (our category)."""

    at: datetime
    lat: float
    lon: float
    category: str
    text: str


@dataclass(frozen=True, slots=True)
class SkippedRows:
    """Rows that could not be read for one reason; `line` is the first's (1 is the header's)."""

    reason: str
    rows: int
    line: int
    first: str

    def __str__(self) -> str:
        return f"{_rows(self.rows)}: {self.reason}; first in line {self.line}: {self.first}"


@dataclass(frozen=True)
class Stream:
    """What a file holds, sorted by time.

    `unmapped` counts rows by a category that no rule matches, `skipped` those that could not be
    read by reason, `filtered` those that the mapping leaves out, `outside` those beyond its window,
    `mended` those that an unclosed quote had swallowed. `in_gaps` and `in_folds` count local times
    that daylight saving time left out (taken as if it had not begun: an hour later on the new
    clock) or repeated (taken as the first). `median` is that of all usable places. `remarks` are
    what looks odd, in words.
    """

    reports: tuple[StreamReport, ...]
    rows: int
    usable: int
    unmapped: Mapping[str, int]
    skipped: tuple[SkippedRows, ...]
    median: tuple[float, float] | None = None
    filtered: int = 0
    outside: int = 0
    mended: int = 0
    in_gaps: int = 0
    in_folds: int = 0
    remarks: tuple[str, ...] = ()

    def around(self, origin: tuple[float, float]) -> "Stream":
        """Return the stream moved so that its median point falls on `origin` (lat, lon).

        A fixed offset in degrees; longitudes are scaled by the ratio of the cosines of both
        latitudes, so that distances hold.

        Raises:
            StreamError: it would reach a pole or the other side of the date line.
        """
        if self.median is None:
            return self
        lat_m, lon_m = self.median
        if abs(origin[0]) > LATITUDE_MOST:
            raise StreamError(f"--origin {origin[0]:g},{origin[1]:g}: too near to a pole")
        scale = math.cos(math.radians(lat_m)) / math.cos(math.radians(origin[0]))
        moved = tuple(
            StreamReport(
                report.at,
                round(origin[0] + report.lat - lat_m, DECIMALS),
                round(origin[1] + (report.lon - lon_m) * scale, DECIMALS),
                report.category,
                report.text,
            )
            for report in self.reports
        )
        far = [each for each in moved if abs(each.lat) > LATITUDE_MOST or abs(each.lon) > 180.0]
        if far:
            raise StreamError(
                f"--origin {origin[0]:g},{origin[1]:g}: {len(far):,} of {len(moved):,} reports would "
                f"fall at places as {far[0].lat:g},{far[0].lon:g}: the stream is too wide for it"
            )
        return replace(self, reports=moved)

    def losses(self) -> list[str]:
        """Return what is not replayed, and why, the most frequent first."""
        lines = [str(each) for each in self.skipped]
        for category, rows in sorted(self.unmapped.items(), key=lambda each: -each[1])[:20]:
            lines.append(f"{_rows(rows)}: no rule for the category {shown(category)}")
        if self.filtered:
            lines.append(f"{_rows(self.filtered)}: left out by keep or drop")
        if self.outside:
            lines.append(f"{_rows(self.outside)}: before since or after until")
        return lines


@dataclass(frozen=True, slots=True)
class _Row:
    """A usable row; `index` counts those of its day where the day alone is known."""

    moment: Moment
    index: int
    report: StreamReport


class _LeftOutError(Exception):
    """A row that the mapping does not want: `keep`, `drop`, the window, or no rule."""


def read_stream(
    path: Path,
    mapping: StreamMapping,
    *,
    limit: int | None = None,
    on_bytes: OnBytes | None = None,
) -> Stream:
    """Read the incidents of a CSV file, gzipped or not, where they happened.

    With `limit` only the earliest so many are kept, in memory too; rows that know only their day
    count as its beginning for that. `on_bytes` hears now and then how many bytes of how many are
    read.

    Raises:
        StreamError: the file cannot be read, or lacks a column that the mapping names.
    """
    with opened(path, mapping.layout, on_bytes) as rows:
        reading = _Reading(mapping, limit)
        where = positions(path, header := rows.header(mapping.needed), mapping.needed)
        for record in rows:
            reading.take(rows, record, where, len(header))
    return reading.stream()


class _Reading:
    """What is known of a stream while it is read."""

    def __init__(self, mapping: StreamMapping, limit: int | None) -> None:
        self._mapping = mapping
        self._limit = limit
        self._rules = _RuleBook(mapping)
        self._kept: list[tuple[float, int, _Row]] = []  # with a limit: a heap, the latest first
        self._rows = self._usable = self._mended = self._gaps = self._folds = 0
        self._left_out: Counter[str] = Counter()
        self._unmapped: Counter[str] = Counter()
        self._skipped: dict[str, SkippedRows] = {}
        self._by_day: Counter[date] = Counter()
        self._places = _Sample()

    def take(self, rows: Rows, record: Record, where: Mapping[str, int], width: int) -> None:
        """Take one record, or each of its lines if a quote that is not closed swallowed some."""
        if record.whole and not (record.lines and self._swallowed(rows, record, where, width)):
            self._take(record, where, width)
            return
        for row in rows.one_by_one(record):
            self._mended += 1
            self._take(row, where, width)

    def _swallowed(self, rows: Rows, record: Record, where: Mapping[str, int], width: int) -> bool:
        """Whether a line within the record is a good row by itself."""
        inner = replace(record, lines=record.lines[1:])
        for row in rows.one_by_one(inner):
            try:
                self._read(row, where, width)
            except _LeftOutError:
                return True
            except BadRowError:
                continue
            return True
        return False

    def _take(self, record: Record, where: Mapping[str, int], width: int) -> None:
        self._rows += 1
        try:
            moment, report = self._read(record, where, width, self._unmapped)
        except BadRowError as error:
            known = self._skipped.get(error.reason)
            self._skipped[error.reason] = (
                replace(known, rows=known.rows + 1)
                if known
                else SkippedRows(error.reason, 1, record.line, error.detail)
            )
        except _LeftOutError as error:
            self._left_out[str(error)] += 1
        else:
            self._keep(moment, report)

    def _read(
        self,
        record: Record,
        where: Mapping[str, int],
        width: int,
        unmapped: Counter[str] | None = None,
    ) -> tuple[Moment, StreamReport]:
        fields, mapping = record.fields, self._mapping
        if not record.whole:
            raise BadRowError("the row cannot be read as CSV", shown("".join(record.lines)))
        if any(field.strip() for field in fields[width:]):
            raise BadRowError(
                f"it has more columns than the header's {width} (a delimiter or a quote in a text?)",
                shown(" | ".join(fields[width:])),
            )
        values = {name: fields[at] if at < len(fields) else "" for name, at in where.items()}
        if not mapping.takes(values):
            raise _LeftOutError("filtered")
        cleared = mapping.cleared(values)
        moment = read_moment(mapping.time.fill(cleared), mapping.time_formats, mapping.zone)
        lat, lon = mapping.place.read(cleared)
        at = moment.begins(mapping.zone)
        if at not in mapping.window:
            raise _LeftOutError("outside")
        rule = self._rules.rule_for(values)
        if rule is None:
            if unmapped is not None:
                category = mapping.category_of(values)
                unmapped[
                    category if category in unmapped or len(unmapped) < COUNTED else OTHERS
                ] += 1
            raise _LeftOutError("unmapped")
        return moment, StreamReport(at, lat, lon, rule.category, _printable(rule.text.fill(values)))

    def _keep(self, moment: Moment, report: StreamReport) -> None:
        self._usable += 1
        self._places.add(report.lat, report.lon)
        if moment.local and is_unclear(moment.local):
            self._gaps += is_in_gap(moment.local)
            self._folds += not is_in_gap(moment.local)
        index = 0
        if moment.day:
            index = self._by_day[moment.day]
            self._by_day[moment.day] += 1
        entry = (-report.at.timestamp(), -self._usable, _Row(moment, index, report))
        if self._limit is None or len(self._kept) < self._limit:
            heapq.heappush(self._kept, entry) if self._limit else self._kept.append(entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def stream(self) -> Stream:
        """Return what was read."""
        kept = [row for _, _, row in sorted(self._kept, key=lambda each: -each[1])]
        skipped = sorted(self._skipped.values(), key=lambda each: -each.rows)
        return Stream(
            reports=tuple(sorted(self._on_the_clock(kept), key=lambda report: report.at)),
            rows=self._rows,
            usable=self._usable,
            unmapped=dict(self._unmapped),
            skipped=tuple(skipped),
            median=self._places.median(),
            filtered=self._left_out["filtered"],
            outside=self._left_out["outside"],
            mended=self._mended,
            in_gaps=self._gaps,
            in_folds=self._folds,
            remarks=tuple(self._remarks()),
        )

    def _remarks(self) -> Iterator[str]:
        zone, median = self._mapping.zone.key, self._places.median()
        if median and looks_swapped(zone, *median):
            yield (
                f"the middle of it, {median[0]:.4f},{median[1]:.4f}, is far from {zone}, and near "
                "when turned round: are latitude and longitude swapped?"
            )
        if self._mended:
            yield (
                f"a quote is not closed somewhere: {self._mended:,} rows were read line by line "
                '(quote = "" in the mapping reads all of them so)'
            )

    def _on_the_clock(self, rows: Iterable[_Row]) -> Iterator[StreamReport]:
        """Yield the reports; those that know only their day are spread evenly over it."""
        zone = self._mapping.zone
        for row in rows:
            if row.moment.day is None:
                yield row.report
                continue
            begin = day_begins(row.moment.day, zone)
            step = (day_ends(row.moment.day, zone) - begin) / self._by_day[row.moment.day]
            yield replace(row.report, at=begin + step * (row.index + 0.5))


class _RuleBook:
    """The mapping's rules, each combination of values looked up once: ten times faster."""

    def __init__(self, mapping: StreamMapping) -> None:
        self._mapping = mapping
        self._columns = sorted({column for rule in mapping.rules for column, _ in rule.when})
        self._known: dict[tuple[str, ...], Rule | None] = {}

    def rule_for(self, values: Mapping[str, str]) -> Rule | None:
        key = tuple(values[column] for column in self._columns)
        if key in self._known:
            return self._known[key]
        rule = self._mapping.rule_for(values)
        if len(self._known) < COUNTED:  # a column of free text has as many values as rows
            self._known[key] = rule
        return rule


class _Sample:
    """Places of which the median is wanted: all of them, or a random sample of so many."""

    def __init__(self) -> None:
        self._lats, self._lons = array("d"), array("d")
        self._random = Random(0)
        self._seen = 0

    def add(self, lat: float, lon: float) -> None:
        self._seen += 1
        if self._seen <= SAMPLE:
            self._lats.append(lat)
            self._lons.append(lon)
        elif (at := self._random.randrange(self._seen)) < SAMPLE:
            self._lats[at], self._lons[at] = lat, lon

    def median(self) -> tuple[float, float] | None:
        if not self._seen:
            return None
        return statistics.median(self._lats), statistics.median(self._lons)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _printable(text: str) -> str:
    if not text.isprintable():  # so are control characters and the overrides that reorder text
        text = "".join(mark if mark.isprintable() else " " for mark in text)
    return " ".join(text.split())[:TEXT_LIMIT]
