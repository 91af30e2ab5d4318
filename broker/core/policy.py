"""What a policy file means, and all problems of one at once.

The file's schema is `schemas/taxonomy.py`; the shipped one is `schemas/policy.toml`.
"""

import difflib
import enum
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import msgspec

from broker.errors import ConfigError
from schemas.taxonomy import (
    CATEGORY_PATTERN,
    Audience,
    Category,
    Desk,
    Names,
    PolicyFile,
    Timers,
    Urgency,
    Widening,
)

# Farther apart, two reports are hardly of one incident; the search for it is bounded by this too.
MAX_MERGE_M = 1_000

_T = TypeVar("_T")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Policy:
    """A checked policy file, with the broker's questions to it."""

    file: PolicyFile

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the policy that `text` (TOML) describes.

        Raises:
            ConfigError: with every problem, each starting with its TOML path.
        """
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError([f"not TOML: {error}"]) from None
        if problems := [*_ill_formed(PolicyFile, raw, ""), *_contradictions(raw)]:
            raise ConfigError(problems)
        return cls(msgspec.convert(raw, PolicyFile))

    @property
    def codes(self) -> tuple[str, ...]:
        """Every category's code, in the file's order."""
        return tuple(self.file.categories)

    @property
    def advice(self) -> Names:
        """What every urgent receipt and alert says: call 112."""
        return self.file.advice

    @property
    def timers(self) -> Timers:
        """How long each party has, in seconds."""
        return self.file.timers

    def alert_if_seen_within_s(self, category: Category) -> int:
        """How long ago something may have been seen for people to be alerted to it."""
        return category.alert_if_seen_within_s or self.timers.alert_if_seen_within_s

    @property
    def widening(self) -> Widening:
        """How the radius grows while no participant has accepted."""
        return self.file.widening

    def first_radius_m(self, category: Category, accuracy_m: float) -> float:
        """Return the radius of a report's first wave, given its accuracy (0: no one is alerted).

        People near any place where it may have happened are alerted too, within bounds.
        """
        if not category.radius_m:
            return 0.0
        radius_m = category.radius_m + min(accuracy_m, self.file.accuracy.max_report_m)
        return float(min(radius_m, self.widening.max_radius_m))

    @property
    def max_presence_accuracy_m(self) -> int:
        """The accuracy that a position needs to make its participant a recipient."""
        return self.file.accuracy.max_presence_m

    @property
    def max_overdue(self) -> int:
        """How often an incident that is not acknowledged is escalated again."""
        return self.file.max_overdue

    @property
    def duty_zone(self) -> str | None:
        """The police zone whose desk gets escalations that no other desk has confirmed, if any."""
        return self.file.duty_zone

    def category(self, code: str) -> Category | None:
        """Return the category `code`, or None if this city has no such category."""
        return self.file.categories.get(code)

    def next_radius_m(self, wave: int, radius_m: float) -> float | None:
        """Return the radius of the wave after number `wave` (from 1), whose radius is `radius_m`.

        None if that was the last wave, or the radius would not grow.
        """
        if wave >= self.widening.max_waves:
            return None
        grown_m = min(radius_m * self.widening.factor, float(self.widening.max_radius_m))
        return grown_m if grown_m > radius_m else None


def effective_audience(category: Category, report_audience: Audience) -> Audience:
    """Return who may know of a report: the narrower of its category's and its own audience."""
    if Audience.POLICE in (category.audience, report_audience):
        return Audience.POLICE
    return Audience.POLICE_AND_NEARBY


# -- the shape: types, ranges, keys --------------------------------------------------------------


def _ill_formed(kind: type[msgspec.Struct], raw: Mapping[str, Any], path: str) -> Iterator[str]:
    """Check field by field: msgspec stops at the first error."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in raw:
        if key not in fields:
            yield f"{_join(path, key)}: no such key{_did_you_mean(key, fields)}"
    for key, field in fields.items():
        where = _join(path, key)
        if key not in raw:
            if field.required:
                yield f"{where}: missing"
        elif key == "categories":
            yield from _ill_formed_categories(raw[key])
        else:
            yield from _ill_typed(field.type, raw[key], where)


def _ill_typed(kind: Any, value: Any, where: str) -> Iterator[str]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        yield from _ill_formed(kind, value, where)
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield f"{where}: {error}{_meant(kind, value)}"


def _ill_formed_categories(categories: Any) -> Iterator[str]:
    if not isinstance(categories, dict) or not categories:
        yield "categories: needs at least one table [categories.CODE]"
        return
    for code, category in categories.items():
        path = _join("categories", code)
        if not re.fullmatch(CATEGORY_PATTERN, code):
            yield (
                f"{path}: a code is a topic level: 2 to 40 of a-z, 0-9 and -, the first a letter"
            )
        yield from _ill_typed(Category, category, path)


def _meant(kind: Any, value: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"; one of {', '.join(kind)}"
    return f", not {value!r}"


def _did_you_mean(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _join(path: str, key: str) -> str:
    shown = key if _BARE_KEY.fullmatch(key) else f'"{key}"'
    return f"{path}.{shown}" if path else shown


# -- the sense of what is well formed ------------------------------------------------------------


def _contradictions(raw: Mapping[str, Any]) -> Iterator[str]:
    if timers := _converted(raw.get("timers"), Timers):
        yield from _contradictions_in_timers(timers)
    widening = _converted(raw.get("widening"), Widening)
    categories = raw.get("categories")
    for code, fields in categories.items() if isinstance(categories, dict) else ():
        if category := _converted(fields, Category):
            path = _join("categories", code)
            yield from _contradictions_in(category, path)
            if widening and category.radius_m > widening.max_radius_m:
                yield (
                    f"{path}.radius_m: {category.radius_m} is above widening.max_radius_m "
                    f"({widening.max_radius_m})"
                )


def _converted(raw: Any, kind: type[_T]) -> _T | None:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        return None  # reported already


def _contradictions_in_timers(timers: Timers) -> Iterator[str]:
    for name in ("accept_s", "acknowledge_s"):
        if getattr(timers, name) >= timers.silence_s:
            yield (
                f"timers.{name}: {getattr(timers, name)} s must be shorter than silence_s "
                f"({timers.silence_s} s), or incidents close before anybody is asked again"
            )


def _contradictions_in(category: Category, path: str) -> Iterator[str]:
    radius_m, merge_m = category.radius_m, category.merge_m
    nearby = Audience.POLICE_AND_NEARBY
    if category.urgency is Urgency.ROUTINE and radius_m:
        yield f"{path}.radius_m: routine categories alert nobody, so it must be 0, not {radius_m}"
    if category.urgency is Urgency.URGENT and category.desk is Desk.CITY:
        yield f"{path}.desk: urgent reports go to the police, not to an office: set it to police"
    if merge_m > MAX_MERGE_M:
        yield f"{path}.merge_m: {merge_m} is above {MAX_MERGE_M}, the farthest that reports merge"
    if 0 < radius_m < merge_m:
        yield (
            f"{path}.merge_m: {merge_m} is above radius_m ({radius_m}): a report merged from there "
            "would alert nobody around its own place"
        )
    if category.audience is nearby and not radius_m:
        yield f"{path}.audience: police_and_nearby needs a radius_m above 0: nobody is alerted"
    if category.text_to is nearby and category.audience is Audience.POLICE:
        yield f"{path}.text_to: police_and_nearby, but audience is police: nobody nearby may know"
