"""Which columns of an unknown file say when, and in which formats."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from verify.datasets.sample import Column, Table
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
_HOURS = (*_CLOCKS, "%H%M", "%H")
_FORMATS = (
    *("iso", "unix", "unix_ms"),
    *_DAYS,
    *(f"{day}{gap}{clock}" for day in _DAYS for clock in _CLOCKS for gap in (" ", "T", ", ")),
    *(f"{day} {clock}{zone}" for day in _DAYS for clock in _CLOCKS[:2] for zone in ("%z", " %z")),
)
_MIDNIGHT = re.compile(r"[T ](?:0?0:00(?::00)?(?:\.0+)?(?:Z|[+-]00(?::?00)?)?|12:00(?::00)? ?AM)$")
MOST_FORMATS = 3
WORTH = 0.005  # a further format must read so much of the column
TRIED = 1_000  # values of a column
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
        if share >= 0.5 and (best is None or score > best[0] + 1e-9):
            best = score, column, formats, share
    if best is None:
        return None
    _, column, formats, share = best
    return _with_hours(table, column, formats) or TimeGuess(
        Template.field(column.name), formats, share, tuple(_doubts(column.present, formats))
    )


def _weight(column: Column) -> float:
    weight = 2.0 if column.is_called(TIME_WORDS) else 1.0
    weight *= 1.1 if column.is_called(BEGIN_WORDS) else 1.0
    return weight * (0.6 if column.is_called(NOT_WORDS) else 1.0)


def _may_be_time(column: Column) -> bool:
    """Numbers are times only where the name says so: any column of ids could be."""
    few = column.present[:FEW]
    if not few or any(len(value) > 40 for value in few):
        return False
    if all(re.fullmatch(r"[\d.,+-]+", value) for value in few):
        is_dates = all(len(re.findall(r"\d+", value)) == 3 for value in few)
        return is_dates or column.is_called(TIME_WORDS)
    return all(re.search(r"\d", value) for value in few[:5])


def _formats_of(
    values: Sequence[str], known: Sequence[str] = _FORMATS
) -> tuple[tuple[str, ...], float]:
    """Return the fewest formats that read most of the values, and which share they read."""
    left = list(values[:TRIED])
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
    day_format = _day_format(day.present, formats)
    if day_format is None:
        return None
    tried: list[tuple[float, bool, TimeGuess]] = []
    for template in _templates(table, day):
        texts = _filled(table, template)
        gap = "T" if "}T{" in template else " "
        known = [f"{day_format}{gap}{hours}" for hours in _HOURS]
        found, share = _formats_of(texts, known)
        if share >= 0.9:
            guess = TimeGuess(template, (*found, day_format), share, tuple(_doubts(texts, found)))
            tried.append((round(share, 2), "%M" in found[0], guess))
    if tried:
        return max(tried, key=lambda each: each[:2])[2]
    if day_format not in _DAYS:  # every time is midnight: the file knows only days
        return TimeGuess(
            Template.field(day.name),
            (day_format,),
            1.0,
            (
                f"every time in {day.name} is midnight: taken as a day, and spread over it",
                *_doubts(day.present, (day_format,)),
            ),
        )
    return None


def _day_format(values: Sequence[str], formats: tuple[str, ...]) -> str | None:
    """Return the one format of the day, if the column has no more than that."""
    if not formats:
        return None
    midnight = _MIDNIGHT.search(values[0])
    suffix = midnight[0] if midnight else ""
    if suffix and all(value.endswith(suffix) for value in values):
        days = [value.removesuffix(suffix) for value in values]
        found, share = _formats_of(days, _DAYS)
        return found[0] + suffix.replace("%", "%%") if found and share > 0.99 else None
    read = TimeFormat(formats[0]).read(values[0]) if formats[0] == "iso" else None
    if formats[0] == "iso" and isinstance(read, date) and not isinstance(read, datetime):
        return next(iter(_formats_of(values, _DAYS)[0]), None)
    return formats[0] if formats[0] in _DAYS else None


def _templates(table: Table, day: Column) -> Iterator[str]:
    for column in table.columns:
        if column is day or not column.present or "{" in column.name or "}" in column.name:
            continue
        few = column.present[: FEW * 4]
        is_hour = column.is_called(HOUR_WORDS)
        if all(re.fullmatch(r"\d{1,2}[:huH.]\d\d.*", value) for value in few):
            yield f"{Template.field(day.name)} {Template.field(column.name)}"
        elif is_hour and all(re.fullmatch(r"[01]?\d|2[0-4]", value) for value in few):
            minutes = (
                each
                for each in table.columns
                if each.is_called(MINUTE_WORDS)
                and all(re.fullmatch(r"[0-5]?\d", value) for value in each.present[:FEW])
            )
            for minute in minutes:
                yield f"{Template.field(day.name)} {Template.field(column.name)}:{Template.field(minute.name)}"
            yield f"{Template.field(day.name)} {Template.field(column.name)}"
        elif is_hour and all(re.fullmatch(r"\d{1,4}", value) for value in few):
            yield f"{Template.field(day.name)} {{{column.name}:04}}"


def _filled(table: Table, text: str) -> list[str]:
    template = Template.parse(text)
    names = sorted(template.columns)
    values = zip(*(table.column(name).values for name in names), strict=True)
    rows = (dict(zip(names, each, strict=True)) for each in values)
    return [template.fill(row) for row in rows if all(each.strip() for each in row.values())]


def _doubts(values: Sequence[str], formats: tuple[str, ...]) -> Iterator[str]:
    """Say where day and month may be the other way round."""
    format_ = formats[0] if formats else ""
    if format_[:2] not in ("%d", "%m") or "%p" in format_ or "%b" in format_.casefold():
        return
    other = format_.replace("%d", "%_").replace("%m", "%d").replace("%_", "%m")
    if all(_reads(other, value) for value in values[:TRIED] if _reads(format_, value)):
        yield f"{format_} could as well be {other}: no day in the sample is above 12"
