"""When a row happened: the formats that a mapping may name, and how a value is read by them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from nabij.geodata.geodata_errors import BadRowError, shown

YEARS = range(1900, 2101)  # before and after there are typing errors and placeholders only
WORDS = ("iso", "unix", "unix_ms")

_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_HOURS = frozenset("HIcX")
_YEARS = frozenset("YyGcx")
_DAYS = frozenset("djcxaAuw")
_SHORT_OFFSET = re.compile(r"[+-]\d\d")
_EXAMPLE = datetime(2024, 5, 16, 13, 14, 15, 678, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """One way to write a time: ISO 8601, seconds or milliseconds since 1970, or as of strptime."""

    text: str = "iso"
    has_hours: bool = True

    @classmethod
    def parse(cls, text: str) -> "TimeFormat":
        """Check a format.

        Raises:
            ValueError: strptime does not know it, or it says no year, no day, or a zone's name.
        """
        if text in WORDS:
            return cls(text)
        directives = {found[1] for found in _DIRECTIVE.finditer(text)}
        if "Z" in directives:
            raise ValueError(
                f"%Z at character {text.index('%Z') + 1}: names of zones are ambiguous; leave it "
                "out by a template, and name the zone in `timezone`"
            )
        try:
            datetime.strptime(_EXAMPLE.strftime(_known(text)), text)  # noqa: DTZ007 - a trial
        except re.error:
            raise ValueError("a directive stands twice") from None
        if not directives & _YEARS or not directives & _DAYS:
            raise ValueError(
                f"it needs a year and a day, as in %Y-%m-%d, or one of {', '.join(WORDS)}"
            )
        return cls(text, bool(directives & _HOURS))

    def read(self, value: str) -> datetime | date | None:
        """Return the time, a date alone if there are no hours, or None if it is not written so."""
        try:
            if self.text == "iso":
                parsed = datetime.fromisoformat(value)
                return parsed.date() if len(value) <= len("2016-01-01") else parsed
            if self.text in WORDS:
                seconds = float(value) / (1_000 if self.text == "unix_ms" else 1)
                return datetime.fromtimestamp(seconds, UTC)
            if self.text.endswith("%z") and _SHORT_OFFSET.fullmatch(value[-3:]):
                value += "00"  # as PostgreSQL writes offsets
            parsed = datetime.strptime(value, self.text)  # noqa: DTZ007 - the zone follows
        except (ValueError, OverflowError, OSError):
            return None
        return parsed if self.has_hours else parsed.date()


def _known(text: str) -> str:
    """Return the format after a check that names the position of what strptime does not know."""
    for found in _DIRECTIVE.finditer(text):
        if found[1] not in "aAwdbBmyYHIpMSfzjUWcxX%GuV" or not found[1]:
            raise ValueError(
                f"{found[0]} at character {found.start() + 1} is no directive of strptime"
                if found[1]
                else f"a lone % at character {found.start() + 1}"
            )
    return text


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as the file gives it: an instant (UTC), or a day on which it was.

    `local` is the time on the wall where it was written without an offset.
    """

    instant: datetime | None
    day: date | None
    local: datetime | None

    def begins(self, zone: ZoneInfo) -> datetime:
        """Return the instant, or that at which the day began."""
        if self.instant is not None:
            return self.instant
        assert self.day is not None
        return day_begins(self.day, zone)


def read_moment(value: str, formats: Sequence[TimeFormat], zone: ZoneInfo) -> Moment:
    """Return the time by the first format that reads it.

    Raises:
        BadRowError: none does, or the year is absurd.
    """
    value = value.strip()
    if not value:
        raise BadRowError("there is no time", "the columns are empty")
    found = next((each for format_ in formats if (each := format_.read(value))), None)
    if found is None:
        known = ", ".join(format_.text for format_ in formats)
        raise BadRowError(f"the time cannot be read as {known}", shown(value))
    if found.year not in YEARS:
        raise BadRowError(
            f"the time is not between the years {YEARS.start} and {YEARS.stop - 1}", shown(value)
        )
    if not isinstance(found, datetime):
        return Moment(None, found, None)
    if found.tzinfo is not None:
        return Moment(found.astimezone(UTC), None, None)
    local = found.replace(tzinfo=zone)
    return Moment(local.astimezone(UTC), None, local)


def day_begins(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant of midnight there."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def day_ends(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant of the next midnight: 23 or 25 hours later on two days of the year."""
    return day_begins(day + timedelta(days=1), zone)


def is_unclear(local: datetime) -> bool:
    """Whether the local time was left out or repeated (PEP 495: only then does `fold` matter)."""
    return local.utcoffset() != local.replace(fold=1).utcoffset()


def is_in_gap(local: datetime) -> bool:
    """Whether daylight saving time left this local time out."""
    back = local.astimezone(UTC).astimezone(local.tzinfo)
    return back.replace(tzinfo=None) != local.replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Window:
    """From when on (inclusive) and until when (exclusive); None: without end."""

    since: datetime | None = None
    until: datetime | None = None

    def __contains__(self, instant: datetime) -> bool:
        return (self.since is None or instant >= self.since) and (
            self.until is None or instant < self.until
        )


def window_of(since: str | None, until: str | None, zone: ZoneInfo) -> Window:
    """Return the window between two ISO times; a bare day counts whole at both ends.

    Raises:
        ValueError: one of them is no time, or they are in the wrong order.
    """
    window = Window(
        _bound(since, zone, day_begins) if since else None,
        _bound(until, zone, day_ends) if until else None,
    )
    if window.since and window.until and window.since >= window.until:
        raise ValueError(f"since {since} is not before until {until}")
    return window


def _bound(text: str, zone: ZoneInfo, of_day: Callable[[date, ZoneInfo], datetime]) -> datetime:
    try:
        moment = read_moment(text, [TimeFormat()], zone)
    except BadRowError:
        raise ValueError(
            f"{shown(text)} is no time: write 2024-05-01 or 2024-05-01T18:00"
        ) from None
    return of_day(moment.day, zone) if moment.day else moment.begins(zone)
