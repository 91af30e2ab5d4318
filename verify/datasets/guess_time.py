"""Which columns of an unknown file say when, and in which formats."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from verify.datasets.sample import NOTHING, Column, Table
from verify.datasets.template import Template
from verify.datasets.timestamps import YEARS, TimeFormat

TIME_WORDS = (
    "ts",
    "time*",
    "date*",
    "datum*",
    "tijd*",
    "heure*",
    "uur",
    "dag",
    "jour",
    "day",
    "when",
    "zeit*",
    "created*",
    "occ*",
    "report*",
    "rptd",
    "melding*",
    "incident*",
    "begin*",
    "start*",
)
BEGIN_WORDS = ("occ*", "pleeg*", "feit*", "incident*")  # rather than when it was reported
NOT_WORDS = ("end*", "eind*", "fin", "close*", "update*", "modif*", "birth*", "geboorte*", "resol*")
HOUR_WORDS = ("uur", "hour*", "hr", "heure*", "std", "stunde*", "time*", "tijd*", "tijdstip")
MINUTE_WORDS = ("min", "minute*", "minuut", "minuten")

_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d-%m-%y",
    "%d.%m.%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %B %Y",
    "%b %d %Y",
)
_CLOCKS = (
    "%H:%M",
    "%H:%M:%S",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%I:%M%p",
    "%H:%M:%S.%f",
    "%Hh%M",
    "%Hu%M",
    "%H.%M",
)
_FORMATS = (
    *("iso", "unix", "unix_ms"),
    *_DAYS,
    *(f"{day}{gap}{clock}" for day in _DAYS for clock in _CLOCKS for gap in (" ", "T", ", ")),
    *(f"{day} {clock}{zone}" for day in _DAYS for clock in _CLOCKS[:2] for zone in ("%z", " %z")),
)
_MIDNIGHT = re.compile(r"[T ](?:0?0:00(?::00)?(?:\.0+)?(?:Z|[+-]00(?::?00)?)?|12:00(?::00)? ?AM)$")
_NUMBER = re.compile(r"[\d.,+-]+")
_CLOCK = re.compile(r"\d{1,2}[:huH]\d\d.*")
_DOTTED_CLOCK = re.compile(r"\d{1,2}\.\d\d.*")  # may be a coordinate
_HOUR = re.compile(r"[01]?\d|2[0-4]")
_MINUTE = re.compile(r"[0-5]?\d")
_DIGITS = re.compile(r"\d{1,4}")  # may be a duration
MOST_FORMATS = 3
WORTH = 0.005  # a further format must read so much of the column
LONGEST = 40  # characters of a time
TRIED = 1_000  # values of a column
MOSTLY = 0.5  # of a column's cells: the others are bad cells, and counted when rows are read
FEW = 25  # values by which most formats are ruled out


@dataclass(frozen=True, slots=True)
class TimeGuess:
    """A template of columns and the formats that read it; `remarks` say what is in doubt."""

    template: str
    formats: tuple[str, ...]
    share: float
    remarks: tuple[str, ...] = ()


def guess_time(table: Table) -> TimeGuess | None:
    """Return when rows happened, or None if no column tells."""
    best: tuple[float, Column, tuple[str, ...], float] | None = None
    for column in table.columns:
        if "{" in column.name or "}" in column.name or not _may_be_time(column):
            continue
        formats, share = _formats_of(column.present)
        score = share * _weight(column) * (1.0 if formats[:1] != ("unix",) else 0.9)
        if share >= MOSTLY and (best is None or score > best[0] + 1e-9):
            best = score, column, formats, share
    if best is None:
        return None
    _, column, formats, share = best
    guess = _with_hours(table, column, formats) or TimeGuess(
        Template.field(column.name), formats, share, tuple(_doubts(column.present, formats))
    )
    unused = unused_times(table, Template.parse(guess.template).columns)
    return replace(guess, remarks=(*guess.remarks, *unused))


def unused_times(table: Table, taken: Collection[str]) -> Iterator[str]:
    """Say which columns beyond `taken` hold a time of day, or are named a time and hold some."""
    for column in table.columns:
        if column.name in taken or column.is_called(NOT_WORDS):
            continue
        values = _spread(column.present, TRIED)
        if read := _clocks(column, values):
            kind = "times of day"
        elif column.is_called(TIME_WORDS):
            read, kind = _times(values), "times"
        if read:
            yield (
                f"{column.name} is left out, though {read:,} of the {len(values):,} values looked "
                f"at are {kind}"
            )


def _clocks(column: Column, values: Sequence[str]) -> int:
    """Return how many values are a time of day, 0 if so few that the name must say it and does not."""
    read = sum(bool(_CLOCK.fullmatch(value)) and _is_clock(value) for value in values)
    if not column.is_called(HOUR_WORDS):
        return read if read >= MOSTLY * len(values) else 0
    numbers = [value for value in values if _DIGITS.fullmatch(value) or _DOTTED_CLOCK.match(value)]
    others = sum(_is_clock(value.zfill(4)) for value in numbers)
    return read + (others if others >= MOSTLY * len(values) else 0)


def _is_clock(value: str) -> bool:
    return any(_reads(f"%Y-%m-%d {hours}", f"2000-01-01 {value}") for hours in (*_CLOCKS, "%H%M"))


def _times(values: Sequence[str]) -> int:
    """Return how many values are times, 0 if most are: such a column was weighed already."""
    texts = [
        value
        for value in values
        if re.search(r"\d", value) and len(value) <= LONGEST and not _NUMBER.fullmatch(value)
    ]
    formats, _ = _formats_of(texts)
    read = sum(any(_reads(each, value) for each in formats) for value in texts)
    return read if read < MOSTLY * len(values) else 0


def _weight(column: Column, names: Sequence[str] = TIME_WORDS) -> float:
    weight = 2.0 if column.is_called(names) else 1.0
    weight *= 1.1 if column.is_called(BEGIN_WORDS) else 1.0
    return weight * (0.6 if column.is_called(NOT_WORDS) else 1.0)


def _may_be_time(column: Column) -> bool:
    """Numbers are times only where the name says so: any column of ids could be."""
    few = _spread(column.present, FEW)
    numbers = [value for value in few if _NUMBER.fullmatch(value)]
    dates = [value for value in numbers if len(re.findall(r"\d+", value)) == 3]
    if len(numbers) > MOSTLY * len(few):
        return column.is_called(TIME_WORDS) or len(dates) > MOSTLY * len(few)
    texts = [value for value in few if re.search(r"\d", value) and len(value) <= LONGEST]
    return bool(few) and len(texts) >= MOSTLY * len(few)


def _spread(values: Sequence[str], most: int) -> list[str]:
    """Return about so many values from all over the column: bad cells often stand together."""
    return list(values[:: max(1, -(-len(values) // most))])


def _formats_of(
    values: Sequence[str], known: Sequence[str] = _FORMATS
) -> tuple[tuple[str, ...], float]:
    """Return the fewest formats that read most of the values, and which share they read."""
    left = _spread(values, TRIED)
    if not left:
        return (), 0.0
    total = len(left)
    chosen: list[str] = []
    while left and len(chosen) < MOST_FORMATS:
        few = left[:FEW] + left[:: max(1, len(left) // FEW)]
        possible = [each for each in known if any(_reads(each, value) for value in few)]
        counts = {each: sum(_reads(each, value) for value in left) for each in possible}
        best = max(counts, key=lambda each: counts[each], default="")
        if not best or counts[best] < max(1.0, WORTH * total):
            break
        chosen.append(best)
        left = [value for value in left if not _reads(best, value)]
    return tuple(chosen), 1.0 - len(left) / total


def _reads(format_: str, value: str) -> bool:
    read = TimeFormat(format_, any(f"%{mark}" in format_ for mark in "HIcX")).read(value)
    return read is not None and read.year in YEARS and (format_[:4] != "unix" or read.year > 1980)


def _with_hours(table: Table, day: Column, formats: tuple[str, ...]) -> TimeGuess | None:
    """Return a template of the day and the columns that have its hours, if there are such."""
    days = _day_formats(day.present, formats)
    if not days:
        return None
    tried: list[tuple[float, bool, float, TimeGuess]] = []
    for hours in _hours(table, day):
        texts = _filled(table, hours.template, day, days)
        known = [f"{each} {clock}" for each in days for clock in hours.formats]
        found, share = _formats_of(texts, known)
        if found and share >= hours.enough:
            doubts = tuple(_doubts(texts, found))
            guess = TimeGuess(hours.template, (*found, *days), share, doubts)
            weight = _weight(hours.column, (*TIME_WORDS, *HOUR_WORDS))
            # The name before the share: a bad cell does not make the end time the better one.
            tried.append((weight, "%M" in found[0], round(share, 2), guess))
    if tried:
        return max(tried, key=lambda each: each[:3])[3]
    if days[0] not in _DAYS:  # every time is midnight: the file knows only days
        return TimeGuess(
            Template.field(day.name),
            days,
            1.0,
            (
                f"every time in {day.name} is midnight: taken as a day, and spread over it",
                *_doubts(day.present, days),
            ),
        )
    return None


def _day_formats(values: Sequence[str], formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats of the day, none if the column has more than that."""
    read = [value for value in values if any(_reads(each, value) for each in formats)]
    if not read:
        return ()
    midnight = _MIDNIGHT.search(read[0])
    suffix = midnight[0] if midnight else ""
    if suffix and all(value.endswith(suffix) for value in read):
        found, share = _formats_of([value.removesuffix(suffix) for value in read], _DAYS)
        return tuple(each + suffix.replace("%", "%%") for each in found) if share > 0.99 else ()
    found, share = _formats_of(read, _DAYS)
    return found if share > 0.99 else ()


@dataclass(frozen=True, slots=True)
class _Hours:
    """A column of hours, a template with it, its formats and the share that these must read."""

    column: Column
    template: str
    formats: tuple[str, ...]
    enough: float


def _hours(table: Table, day: Column) -> Iterator[_Hours]:
    """Yield what may say the hours of the day."""
    for column in table.columns:
        if column is day or not column.present or "{" in column.name or "}" in column.name:
            continue
        few = _spread(column.present, FEW * 4)
        is_hour = column.is_called(HOUR_WORDS)
        begin = f"{Template.field(day.name)} {Template.field(column.name)}"
        if _are_mostly(_CLOCK, few):
            yield _Hours(column, begin, (*_CLOCKS, "%H"), MOSTLY)
        elif _are_mostly(_DOTTED_CLOCK, few):
            yield _Hours(column, begin, (*_CLOCKS, "%H"), 0.75 if is_hour else 0.9)
        elif is_hour and _are_mostly(_DIGITS, few):
            # Distinct values: many zeros for an unknown time do not make 1345 a column of hours.
            numbers = {value for value in few if _DIGITS.fullmatch(value)}
            if not _are_mostly(_HOUR, numbers):
                padded = f"{Template.field(day.name)} {{{column.name}:04}}"
                yield _Hours(column, padded, ("%H%M",), 0.75)
                continue
            for minute in table.columns:
                if minute.is_called(MINUTE_WORDS) and _are_mostly(_MINUTE, minute.present):
                    with_minutes = f"{begin}:{Template.field(minute.name)}"
                    yield _Hours(column, with_minutes, ("%H:%M",), MOSTLY)
            # Not %H%M: it reads the bad cell 99 as 9:09.
            yield _Hours(column, begin, ("%H",), 0.75)


def _are_mostly(pattern: "re.Pattern[str]", values: Collection[str]) -> bool:
    return sum(bool(pattern.fullmatch(value)) for value in values) >= MOSTLY * max(1, len(values))


def _filled(table: Table, text: str, day: Column, days: Sequence[str]) -> list[str]:
    """Return the texts of rows with a day that `days` read, and something in every column."""
    template = Template.parse(text)
    columns = [table.column(name) for name in sorted(template.columns)]
    rows = zip(*(column.values for column in columns), strict=True)
    named = (dict(zip(sorted(template.columns), each, strict=True)) for each in rows)
    return [
        template.fill(row)
        for row in named
        if not any(each.strip().casefold() in NOTHING for each in row.values())
        if any(_reads(each, row[day.name].strip()) for each in days)
    ]


def _doubts(values: Sequence[str], formats: tuple[str, ...]) -> Iterator[str]:
    """Say where day and month may be the other way round."""
    format_ = formats[0] if formats else ""
    if format_[:2] not in ("%d", "%m") or "%p" in format_ or "%b" in format_.casefold():
        return
    other = format_.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
    if all(_reads(other, value) for value in _spread(values, TRIED) if _reads(format_, value)):
        yield f"{format_} could as well be {other}: no day in the sample is above 12"
