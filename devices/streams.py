"""Real streams of incidents: a CSV file and a mapping become reports around a place of one's choice.

A mapping (TOML, see `devices/mappings/`) names the columns, the time zone and the rules that turn
the stream's categories into ours. No row is dropped in silence: what no rule knows is counted by
its category, what cannot be read is kept with its line and the reason.
"""

import csv
import gzip
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

from devices.mappings import Mapping as StreamMapping
from devices.mappings import Rule, StreamError, load_mapping

__all__ = ["SkippedRow", "Stream", "StreamError", "StreamReport", "load_mapping", "read_stream"]

TEXT_LIMIT = 2_000  # schemas.messages.Text
DECIMALS = 6  # of a degree: 0.1 m


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One row as a report: when (UTC), where (WGS 84 degrees), what (our category)."""

    at: datetime
    lat: float
    lon: float
    category: str
    text: str


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that could not be read; `line` counts from 1, the header's."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Stream:
    """What a file holds, sorted by time.

    `unmapped` counts rows by a category that no rule matches, `skipped` are those that could not
    be read. `in_gaps` and `in_folds` count local times that daylight saving time left out (taken
    as if it had not begun: an hour later on the new clock) or repeated (taken as the first).
    """

    reports: tuple[StreamReport, ...]
    rows: int
    unmapped: Mapping[str, int]
    skipped: tuple[SkippedRow, ...]
    in_gaps: int = 0
    in_folds: int = 0

    def first(self, limit: int | None) -> "Stream":
        """Return the stream with its earliest `limit` reports alone (None: all of them)."""
        return self if limit is None else replace(self, reports=self.reports[:limit])

    def around(self, origin: tuple[float, float]) -> "Stream":
        """Return the stream moved so that its median point falls on `origin` (lat, lon).

        A fixed offset in degrees; longitudes are scaled by the ratio of the cosines of both
        latitudes, so that distances hold.
        """
        if not self.reports:
            return self
        lat_m = statistics.median(report.lat for report in self.reports)
        lon_m = statistics.median(report.lon for report in self.reports)
        scale = math.cos(math.radians(lat_m)) / math.cos(math.radians(origin[0]))
        return replace(
            self,
            reports=tuple(
                StreamReport(
                    report.at,
                    round(origin[0] + report.lat - lat_m, DECIMALS),
                    round(origin[1] + (report.lon - lon_m) * scale, DECIMALS),
                    report.category,
                    report.text,
                )
                for report in self.reports
            ),
        )


@dataclass(frozen=True, slots=True)
class _Moment:
    """A time as the file gives it: an instant, or a day on which it was."""

    instant: datetime | None
    day: date | None
    local: datetime | None


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    moment: _Moment
    report: StreamReport


class _BadRowError(ValueError):
    pass


def read_stream(path: Path, mapping: StreamMapping) -> Stream:
    """Read the incidents of a CSV file (gzipped if it ends in `.gz`), where they happened.

    Raises:
        StreamError: the file cannot be read, or lacks a column that the mapping names.
    """
    rows: list[_Row] = []
    skipped: list[SkippedRow] = []
    unmapped: Counter[str] = Counter()
    rules = _RuleBook(mapping)
    for line, values in _lines(path, mapping):
        try:
            row = _read_row(line, values, rules)
        except _BadRowError as error:
            skipped.append(SkippedRow(str(path), line, str(error)))
            continue
        if row is None:
            unmapped[mapping.category_of(values)] += 1
        else:
            rows.append(row)
    unclear = [row.moment.local for row in rows if row.moment.local and _unclear(row.moment.local)]
    gaps = sum(1 for local in unclear if _in_gap(local))
    return Stream(
        reports=tuple(sorted(_on_the_clock(rows, mapping.zone), key=lambda report: report.at)),
        rows=len(rows) + len(skipped) + unmapped.total(),
        unmapped=dict(unmapped),
        skipped=tuple(skipped),
        in_gaps=gaps,
        in_folds=len(unclear) - gaps,
    )


def _lines(path: Path, mapping: StreamMapping) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with the number of its (last) line."""
    try:
        with _open(path) as text:
            reader = csv.DictReader(text, delimiter=mapping.delimiter, restval="", restkey="")
            _require_columns(path, reader.fieldnames or (), mapping)
            for values in reader:
                yield reader.line_num, values
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise StreamError(f"{path}: cannot be read as CSV: {error}") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _require_columns(path: Path, columns: Iterable[str], mapping: StreamMapping) -> None:
    present = list(columns)
    if missing := sorted(mapping.columns - set(present)):
        raise StreamError(
            f"{path}: the mapping needs the columns {', '.join(missing)}; "
            f"the file has {', '.join(present) or 'no header'}"
        )


class _RuleBook:
    """The mapping's rules, each combination of values looked up once: ten times faster."""

    def __init__(self, mapping: StreamMapping) -> None:
        self.mapping = mapping
        self._columns = sorted({column for rule in mapping.rules for column, _ in rule.when})
        self._known: dict[tuple[str, ...], Rule | None] = {}

    def rule_for(self, values: Mapping[str, str]) -> Rule | None:
        key = tuple(values[column] for column in self._columns)
        if key not in self._known:
            self._known[key] = self.mapping.rule_for(values)
        return self._known[key]


def _read_row(line: int, values: Mapping[str, str], rules: _RuleBook) -> _Row | None:
    """Return the row, or None if no rule of the mapping matches its category."""
    mapping = rules.mapping
    moment = _parse_moment(values[mapping.time], mapping)
    lat = _parse_degrees("latitude", values[mapping.lat], 90.0)
    lon = _parse_degrees("longitude", values[mapping.lon], 180.0)
    if lat == 0.0 and lon == 0.0:
        raise _BadRowError("the position is (0, 0)")
    rule = rules.rule_for(values)
    if rule is None:
        return None
    at = moment.instant or datetime.min.replace(tzinfo=UTC)
    text = _printable(rule.text_of(values))
    return _Row(line, moment, StreamReport(at, lat, lon, rule.category, text))


def _parse_degrees(name: str, value: str, limit: float) -> float:
    try:
        degrees = float(value)
    except ValueError:
        raise _BadRowError(f"the {name} {value!r} is no number") from None
    if not -limit <= degrees <= limit:  # NaN fails here too
        raise _BadRowError(f"the {name} {value!r} is not between -{limit:g} and {limit:g}")
    return degrees


def _parse_moment(value: str, mapping: StreamMapping) -> _Moment:
    value = value.strip()
    try:
        if mapping.time_format is None:
            parsed = datetime.fromisoformat(value)
            day_only = len(value) <= len("2016-01-01")
        else:
            parsed = datetime.strptime(value, mapping.time_format)  # noqa: DTZ007 - the zone follows
            day_only = not any(mark in mapping.time_format for mark in ("%H", "%I", "%X", "%T"))
    except ValueError:
        raise _BadRowError(f"the time {value!r} cannot be read") from None
    if parsed.tzinfo is not None:
        return _Moment(parsed.astimezone(UTC), None, None)
    if day_only:
        return _Moment(None, parsed.date(), None)
    local = parsed.replace(tzinfo=mapping.zone)
    return _Moment(local.astimezone(UTC), None, local)


def _on_the_clock(rows: Iterable[_Row], zone: ZoneInfo) -> Iterator[StreamReport]:
    """Yield the reports; those that know only their day are spread evenly over it."""
    by_day: dict[date, list[StreamReport]] = defaultdict(list)
    for row in rows:
        if row.moment.day is None:
            yield row.report
        else:
            by_day[row.moment.day].append(row.report)
    for day, reports in by_day.items():
        begin = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
        after = day + timedelta(days=1)
        end = datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC)
        step = (end - begin) / len(reports)  # 23 or 25 hours on two days of the year
        for index, report in enumerate(reports):
            yield replace(report, at=begin + step * (index + 0.5))


def _unclear(local: datetime) -> bool:
    """Whether the local time was left out or repeated (PEP 495: only then does `fold` matter)."""
    return local.utcoffset() != local.replace(fold=1).utcoffset()


def _in_gap(local: datetime) -> bool:
    back = local.astimezone(UTC).astimezone(local.tzinfo)
    return back.replace(tzinfo=None) != local.replace(tzinfo=None)


def _printable(text: str) -> str:
    if not text.isprintable():  # so are control characters and the overrides that reorder text
        text = "".join(mark if mark.isprintable() else " " for mark in text)
    return " ".join(text.split())[:TEXT_LIMIT]
