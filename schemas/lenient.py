"""How odd fields are repaired, and what replaces them when they cannot be.

A field with a `Lenient` in its type never costs a message that is of use without it:

    language: Annotated[Language, Lenient(language_tag(Language))] = Language.NL
"""

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from schemas.text import with_plain_line_breaks, without_controls


class Repaired(NamedTuple):
    """A repaired value, and what was done to it, for the receipt."""

    value: Any
    done: str


Repair = Callable[[Any], Repaired | None]


@dataclass(frozen=True)
class Lenient:
    """How a malformed field is read.

    `repair` returns the repaired value, or None if there is nothing to repair. A value that still
    cannot be used is left out. It is replaced by `otherwise`, a function of the whole message
    (`told` is the note for the sender), or else by the field's default; without either the message
    is refused. `unknown` is the value that a reader uses for one of a later version (see
    `may_grow`).
    """

    repair: Repair | None = None
    otherwise: Callable[[Mapping[str, Any]], Any] | None = None
    told: str = "Read as {}."
    needed: bool = False
    unknown: str | None = None


class Ambiguous(NamedTuple):
    """The different values of a key that occurs more than once in one object."""

    values: tuple[Any, ...]


class NotFinite(float):
    """NaN or Infinity, which are not JSON, but which lax writers write."""


def always(value: Any) -> Callable[[Mapping[str, Any]], Any]:
    """Return an `otherwise` that does not depend on the message."""
    return lambda _: value


def may_grow(unknown: enum.StrEnum) -> Lenient:
    """Read a choice of what Nabij sends, and a value that this reader does not know as `unknown`.

    Otherwise each new value would cost existing readers the whole message.
    """
    known = frozenset(map(str, type(unknown)))

    def repair(value: Any) -> Repaired | None:
        if value is None or (isinstance(value, str) and value in known):
            return None
        if not isinstance(value, str):
            return Repaired(unknown, f"what stands there was read as '{unknown}'")
        return Repaired(unknown, f"'{value}' is not known here, and was read as '{unknown}'")

    return Lenient(repair, otherwise=always(unknown), unknown=unknown)


def text(limit: int) -> Repair:
    """Keep the text, without control characters and direction marks, cut to `limit` characters."""

    def repair(value: Any) -> Repaired | None:
        done = []
        if isinstance(value, Ambiguous):
            value = "\n".join(filter(_is_text, value.values))
            done.append("it stood more than once, and was joined")
        if not isinstance(value, str):
            return None
        broken = with_plain_line_breaks(value)
        if broken != value:
            done.append(r"its line breaks were made \n")
        shown = without_controls(broken)
        if left_out := len(broken) - len(shown):
            done.append(f"{left_out} control characters or direction marks were left out")
        if len(shown) > limit:
            done.append(f"of its {len(shown)} characters the first {limit} were kept")
        return Repaired(shown[:limit], "; ".join(done)) if done else None

    return repair


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def number(limit: float, *, unknown: float | None = None) -> Repair:
    """Bound a number above, also one in a string; any other value is `unknown`.

    With `unknown`, the largest of several numbers is taken.
    """

    def repair(value: Any) -> Repaired | None:
        if isinstance(value, Ambiguous) and unknown is not None:
            found = [(repair(one) or Repaired(one, "")).value for one in value.values]
            largest = max(one if _is_number(one) and one >= 0 else unknown for one in found)
            return Repaired(largest, f"of several the largest was read: {largest:g}")
        if isinstance(value, str) and (digits := _NUMBER.fullmatch(value)):
            meant = min(float(digits[1]), limit)
            return Repaired(meant, f"'{value}' was read as {meant:g}")
        if _is_number(value):
            if not value > limit:  # NaN is not
                return None
            return Repaired(limit, f"{value:g} was bounded to {limit:g}")
        if unknown is None or value is None:
            return None
        return Repaired(unknown, f"it is no number, and was read as {unknown:g}")

    return repair


_NUMBER = re.compile(r"\s*([+-]?\d{1,12}(?:\.\d{1,12})?)\s*m?\s*", re.ASCII)


def whole(limit: int) -> Repair:
    """Round to a whole number, and bound it above."""
    bound = number(limit)

    def repair(value: Any) -> Repaired | None:
        if bounded := bound(value):
            return bounded._replace(value=round(bounded.value))
        if not isinstance(value, float) or not math.isfinite(value):
            return None
        return Repaired(round(value), f"{value} was read as {round(value)}")

    return repair


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choice(values: Iterable[str]) -> Repair:
    """Read "On-Duty" as on_duty."""
    known = frozenset(map(str, values))

    def repair(value: Any) -> Repaired | None:
        if not isinstance(value, str) or value in known:
            return None
        meant = _folded(value).replace("-", "_")
        return Repaired(meant, f"'{value}' was read as '{meant}'") if meant in known else None

    return repair


def code(value: Any) -> Repaired | None:
    """Read "Missing Person" as missing-person."""
    if not isinstance(value, str) or value == (meant := _folded(value).replace("_", "-")):
        return None
    return Repaired(meant, f"'{value}' was read as '{meant}'")


def _folded(value: str) -> str:
    return "-".join(without_controls(value).casefold().split())


def language_tag(values: Iterable[str]) -> Repair:
    """Read tags of BCP 47 and POSIX locales by their first part: nl-BE, fr_FR.UTF-8."""
    known = frozenset(map(str, values))

    def repair(value: Any) -> Repaired | None:
        if not isinstance(value, str) or value in known:
            return None
        meant = re.split(r"[-_.]", _folded(value))[0]
        return Repaired(meant, f"'{value}' was read as '{meant}'") if meant in known else None

    return repair


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
_LEAP_SECOND = re.compile(r"(:\d\d):60(?:\.\d+)?")


def instant(value: Any) -> Repaired | None:
    """Read times that are not RFC 3339 but exact: leap seconds, ISO 8601 with an offset."""
    if not isinstance(value, str) or _RFC_3339.fullmatch(value):
        return None
    try:
        meant = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", value.strip()))
    except ValueError:
        return None
    if meant.tzinfo is None:
        return None
    return Repaired(meant.isoformat(), f"'{value}' was read as {meant.isoformat()}")


def ids(limit: int) -> Repair:
    """Keep the ids of an array, up to `limit`."""

    def repair(value: Any) -> Repaired | None:
        if not isinstance(value, list):
            return None
        kept = [one for one in value if _is_id(one)][:limit]
        if kept == value:
            return None
        return Repaired(kept, f"of {len(value)} ids {len(kept)} were read")

    return repair


def numbers_by_id(limit: int, numbers: int) -> Repair:
    """Keep ids and their arrays of numbers: up to `limit` ids, and numbers in each."""

    def repair(value: Any) -> Repaired | None:
        if not isinstance(value, dict):
            return None
        kept = {
            key: [one for one in some if type(one) is int][-numbers:]
            for key, some in [(key, some) for key, some in value.items() if _is_id(key)][:limit]
            if isinstance(some, list)
        }
        if kept == value:
            return None
        return Repaired(kept, f"what was not read of {len(value)} groups comes again")

    return repair


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(msgspec.convert(value, UUID))
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False


def roughly(value: Any) -> datetime | None:
    """Return the time that an unreadable one may mean, but for an offset; the first of several."""
    if isinstance(value, Ambiguous):
        return min(filter(None, map(roughly, value.values)), default=None)
    meant = _time(value)
    return meant.replace(tzinfo=UTC) if meant and meant.tzinfo is None else meant


def has_offset(value: Any) -> bool:
    """Whether a time, or one of several, says its offset, as Unix time does."""
    if isinstance(value, Ambiguous):
        return any(map(has_offset, value.values))
    meant = _time(value)
    return meant is not None and meant.tzinfo is not None


_UNIX = re.compile(r"\s*\d{9,19}(?:\.\d+)?\s*", re.ASCII)


def _time(value: Any) -> datetime | None:
    try:
        if isinstance(value, str) and _UNIX.fullmatch(value):
            value = float(value)
        if not _is_number(value):
            meant = datetime.fromisoformat(value.strip())
            return meant.astimezone(UTC) if meant.tzinfo else meant
        # Seconds, milli-, micro- or nanoseconds.
        unit = next((unit for least, unit in _UNITS if value > least), 1)
        return datetime.fromtimestamp(value / unit, UTC)
    except (AttributeError, ValueError, OverflowError, OSError):
        return None


_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
