"""Other names and values by which a sender may restrict who is alerted, and how exact a place is.

An unknown field must not be dropped if privacy depends on it: it is read as the field that it may
mean, towards the private side.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.lenient import number

LONGEST = 40  # characters of a name that is compared or shown
_NEAR = 0.8  # names this similar are read as the same; for a question 0.6 is enough
_LEAST = 6  # letters of a word within a name that is compared
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of targetAudience, target-audience, AUDIENCE

Heard = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Restriction:
    """How an unknown field is recognized as one that restricts.

    Its style-free name contains one of `stems`, or it is close to the field's name or one of
    `alike` (as is a word of it, if there are stems), unless it begins with one of `unrelated`; or
    its name or value is one of `words`, which mean `word`. `heard` returns the field's value for a
    style-free name and a value, or None if that restricts nothing.
    """

    stems: tuple[str, ...]
    heard: Heard
    alike: tuple[str, ...] = ()
    unrelated: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    word: str = ""

    def says(self, plain: str, value: Any) -> bool:
        """Whether the value is one of the words, or the name is one and the value is not false."""
        if isinstance(value, str) and style_free(value) in self.words:
            return True
        return bool(self.words & {plain, plain.removeprefix("is")}) and value not in (None, False)

    def is_meant_by(self, name: str, plain: str, field: str, *, compare: bool) -> bool:
        """Whether a name contains a stem, or (`compare`, which takes long) is close to the field's."""
        if plain.startswith(self.unrelated):
            return False
        if any(stem in plain for stem in self.stems):
            return True
        if not compare or len(name) > LONGEST:
            return False
        words = [word for word in _WORD.findall(name) if len(word) >= _LEAST] if self.stems else []
        return any(closest(each, (field, *self.alike), _NEAR) for each in (name, *words))

    def value(self, name: str, value: Any) -> Any:
        """Return an unknown field's value as one of the known field, or None."""
        plain = style_free(name)
        return self.word if self.says(plain, value) else self.heard(plain, value)


def as_it_is(_name: str, value: Any) -> Any:
    """Read an unknown field's value as the known field's would be."""
    return value


_TAKES_ALERTS_IF_TRUE = frozenset({"available", "isavailable"})
_TAKES_ALERTS_IF_FALSE = frozenset({"mute", "muted", "ismuted", "unavailable", "isunavailable"})


def availability_said(name: str, value: Any) -> Any:
    """Read a boolean by its name; one that says that alerts are taken restricts nothing."""
    if isinstance(value, str):
        return value.strip().casefold()
    if not isinstance(value, bool):
        return value
    takes_alerts = _TAKES_ALERTS_IF_TRUE if value else _TAKES_ALERTS_IF_FALSE
    return None if name in takes_alerts else "muted"


_UNITS_M = {"km": 1_000, "kilom": 1_000, "mile": 1_610}
_LEAST_EXACT_M = 10_000
_metres = number(_LEAST_EXACT_M, unknown=_LEAST_EXACT_M)


def inexactness_m(name: str, value: Any) -> Any:
    """Read metres, or kilometres if the name says so; what is no distance counts as least exact."""
    if value is None:
        return None
    repaired = _metres(value)
    read = repaired.value if repaired else value
    if not read >= 0:  # NaN is not; iOS gives -1 for a place that is not valid
        return _LEAST_EXACT_M
    unit_m = next((unit_m for unit, unit_m in _UNITS_M.items() if unit in name), 1)
    return min(read * unit_m, _LEAST_EXACT_M)


def style_free(name: str) -> str:
    """Return the letters and digits of a name, without case and accents."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", name))).casefold()


def meant(
    name: str, value: Any, restrictions: Mapping[str, Restriction], *, compare: bool
) -> str | None:
    """Return which of the `restrictions`, by field, an unknown field may mean."""
    plain = style_free(name)
    for field, one in restrictions.items():
        if one.says(plain, value):
            return field
        if one.is_meant_by(name, plain, field, compare=compare):
            return field
    return None


def closest(name: str, known: tuple[str, ...] | set[str], cutoff: float) -> str | None:
    """Return the name of `known` that is most similar to `name`, if one is similar enough."""
    if len(name) > LONGEST:
        return None
    close = difflib.get_close_matches(name.casefold(), sorted(known), n=1, cutoff=cutoff)
    return close[0] if close else None
