"""A detail never costs a message: what is odd and not required is repaired or left out, with a note.

Walks over a message that strict decoding refuses, by the types of its fields
(`schemas/lenient.py`). The result is decoded strictly again, so it is always well formed.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec

from schemas.lenient import Ambiguous, Lenient, NotFinite, choice
from schemas.reasons import bare, explained
from schemas.restrictions import LONGEST, Restriction, closest, meant, style_free
from schemas.validation_errors import Code, Invalid, sayable

_T = TypeVar("_T")

MAX_NOTES, MAX_NOTE = 8, 160  # bytes of each
_SHOWN = 5  # unknown names in a note
_COMPARED = 30  # with more unknown names than this, none counts as a typo
_HEARD = 100  # unknown names of a message that are compared with those that restrict


class _Field(NamedTuple):
    hint: Any
    lenient: Lenient | None
    restriction: Restriction | None
    is_required: bool
    default: str | None  # of a choice
    nested: type[msgspec.Struct] | None


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, _Field]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        one.encode_name: _Field(
            hints[one.name],
            _said(Lenient, hints[one.name]),
            _said(Restriction, hints[one.name]),
            one.required,
            str(one.default) if isinstance(one.default, enum.Enum) else None,
            _nested(hints[one.name]),
        )
        for one in msgspec.structs.fields(kind)
    }


def _said(kind: type[_T], hint: Any) -> _T | None:
    """Return the annotation of a field that is of this kind."""
    said = getattr(hint, "__metadata__", ())
    return next((one for one in said if isinstance(one, kind)), None)


def _nested(hint: Any) -> type[msgspec.Struct] | None:
    structs = [
        one for one in bare(hint) if isinstance(one, type) and issubclass(one, msgspec.Struct)
    ]
    return structs[0] if len(structs) == 1 else None


def has_lenient(kind: Any) -> bool:
    """Whether anything in a `kind` is repaired: in what devices send, not in what they receive."""
    return any(
        one.lenient is not None or (one.nested is not None and has_lenient(one.nested))
        for struct in bare(kind)
        for one in _fields(struct).values()
    )


def choices_of(kind: type[msgspec.Struct]) -> Mapping[str, Lenient]:
    """Return how each enumeration among the fields of `kind` is read."""
    return {
        name: one.lenient or Lenient(needed=True)
        for name, one in _fields(kind).items()
        if any(isinstance(each, type) and issubclass(each, enum.Enum) for each in bare(one.hint))
    }


@dataclass
class Cleaning:
    """The repairs of one message, and why the parts that were left out could not be used."""

    _first: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _left_out: dict[str, Invalid] = field(default_factory=dict)
    _restrictions: dict[str, Restriction] = field(default_factory=dict)  # by field
    _owners: set[tuple[str, str]] = field(
        default_factory=set
    )  # path and field of each that is present
    _heard: list[tuple[str, str, Any]] = field(default_factory=list)  # path, field, value
    _unknown: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes for the sender, misspelt names first."""
        notes = [sayable(note, MAX_NOTE) for note in (*self._first, *self._notes)]
        if (more := len(notes) - MAX_NOTES) > 0:
            notes[MAX_NOTES - 1 :] = [f"and {more + 1} more"]
        return tuple(notes)

    def note(self, text: str) -> None:
        """Add a note for the sender."""
        self._notes.append(text)

    def read(self, kind: Any, raw: Any) -> Any:
        """Return the value of `kind` in `raw`, a decoded JSON message.

        Raises:
            Invalid: a required part could not be repaired.
        """
        struct, chosen = _chosen(kind, raw)
        if chosen is not raw:
            self.note("the name of the command was read in lower case")
        for path, name, restriction in _restricting(struct) if struct else ():
            self._restrictions[name] = restriction
            self._owners.add((path, name))
        named = self._named(struct, chosen, "$")
        self._restrict(struct, named, "$")
        cleaned = self._clean(struct, named, "$")
        try:
            return _strict(cleaned, struct or kind, "$")
        except Invalid as error:
            if error.code is Code.MISSING_FIELD and (why := self._left_out.get(error.field)):
                raise why from None
            raise

    def _clean(self, kind: type[msgspec.Struct] | None, raw: Any, path: str) -> Any:
        if kind is None or not isinstance(raw, dict):
            return raw
        known = _fields(kind)
        cleaned = {**raw}
        for name, one in known.items():
            where = f"{path}.{name}"
            if name in cleaned:
                cleaned[name] = self._clean(one.nested, self._once(cleaned[name], where), where)
                if one.lenient is not None:
                    self._repair(cleaned, name, one, where)
            elif one.is_required and one.lenient and one.lenient.otherwise:
                self._stand_in(cleaned, name, one, why=f"{_short(where)}: missing.")
        return cleaned

    def _once(self, value: Any, where: str) -> Any:
        """Return a repeated value if all its occurrences are equal."""
        if isinstance(value, Ambiguous) and all(one == value.values[0] for one in value.values):
            self._notes.append(f"{_short(where)}: it stood more than once")
            return value.values[0]
        return value

    def _repair(self, cleaned: dict[str, Any], name: str, one: _Field, where: str) -> None:
        """Repair the field `name` of `cleaned`, or remove it if it cannot be used."""
        assert one.lenient is not None
        value = cleaned[name]
        repaired = one.lenient.repair(value) if one.lenient.repair else None
        try:
            _strict(repaired.value if repaired else value, one.hint, where)
        except Invalid as error:
            if one.lenient.needed:
                raise
            del cleaned[name]
            self._left_out[where] = error
            self._tell_left_out(cleaned, name, one, error, given=value)
        else:
            if repaired:
                cleaned[name] = repaired.value
                self._notes.append(f"{_short(where)}: {repaired.done}")

    def _tell_left_out(
        self, cleaned: dict[str, Any], name: str, one: _Field, error: Invalid, *, given: Any
    ) -> None:
        where = _short(error.field) if name in error.field else name
        if given is None and not one.is_required:
            self._notes.append(f"{where}: null was read as not given")
        elif one.lenient and one.lenient.otherwise:
            self._stand_in(cleaned, name, one, why=f"{where}: {error.reason}", given=given)
        elif not one.is_required:
            default = f"Read as {one.default}." if one.default else "It was left out."
            self._notes.append(f"{where}: {error.reason} {default}")

    def _stand_in(
        self, cleaned: dict[str, Any], name: str, one: _Field, *, why: str, given: Any = None
    ) -> None:
        assert one.lenient is not None
        assert one.lenient.otherwise is not None
        if (value := one.lenient.otherwise({name: given, **cleaned})) is not None:
            cleaned[name] = value
            self._notes.append(f"{why} {one.lenient.told.format(value)}")

    # -- names ------------------------------------------------------------------------------------

    def _named(self, kind: type[msgspec.Struct] | None, raw: Any, path: str) -> Any:
        """Return the message with the known fields; note what unknown ones may restrict."""
        if kind is None or not isinstance(raw, dict):
            return raw
        named = self._with_known_names(kind, raw, path)
        for name, one in _fields(kind).items():
            if one.nested and name in named:
                where = f"{path}.{name}"
                named[name] = self._named(one.nested, self._once(named[name], where), where)
        return named

    def _with_known_names(
        self, kind: type[msgspec.Struct], raw: Mapping[str, Any], path: str
    ) -> dict[str, Any]:
        """Return the known fields; add notes of the others and what they may have meant."""
        known = {*_fields(kind), *filter(None, [kind.__struct_config__.tag_field])}
        named = {name: value for name, value in raw.items() if name in known}
        missing = {style_free(name): name for name in known - raw.keys()}
        ignored = []
        for number, name in enumerate(name for name in raw if name not in known):
            value = raw[name]
            if field := missing.get(style_free(name)):
                named[field] = _both(named[field], value) if field in named else value
                self._tell_read_as(_in(path, name), field)
            elif self._hear(name, value, path, _in(path, name)):
                pass
            elif number < _COMPARED and (close := closest(name, known, 0.6)):
                self._first.append(f"unknown field '{_in(path, name)}': did you mean '{close}'?")
            else:
                ignored.append(f"'{_in(path, name)}'")
        if ignored:
            more = f" and {len(ignored) - _SHOWN} more" if len(ignored) > _SHOWN else ""
            names = ", ".join(ignored[:_SHOWN])
            self._notes.append(f"unknown field{'s' * (len(ignored) > 1)} {names}{more}: ignored")
        return named

    def _tell_read_as(self, shown: str, field: str) -> None:
        self._first.append(f"unknown field '{shown}': did you mean '{field}'? It was read so.")

    # -- what restricts ---------------------------------------------------------------------------

    def _hear(
        self, name: str, value: Any, path: str, shown: str, *, is_element: bool = False
    ) -> bool:
        """Note what an unknown field says of one that restricts; return whether it does.

        An element of an array has the array's name, which has been compared and is not another.
        """
        self._unknown += not is_element
        compare = not is_element and self._unknown <= _HEARD
        field = meant(name, value, self._restrictions, compare=compare)
        if field is None:
            is_array = not isinstance(value, dict)
            for key, one in _within(name, value):
                inner = shown if is_array else f"{shown}.{key}"
                self._hear(key, one, path, inner, is_element=is_array)
            return False
        for one in value.values if isinstance(value, Ambiguous) else (value,):
            said = self._restrictions[field].value(name, one)
            if said is not None:
                self._heard.append((path, field, said))
        self._tell_read_as(shown, field)
        return True

    def _restrict(self, kind: type[msgspec.Struct] | None, named: Any, path: str) -> None:
        """Apply what unknown fields said: to the field of their object, else to each in the message."""
        if kind is None or not isinstance(named, dict):
            return
        for name, one in _fields(kind).items():
            self._restrict(one.nested, named.get(name), f"{path}.{name}")
            if one.restriction is None:
                continue
            said = [
                value
                for at, field, value in self._heard
                if field == name and (at == path or (at, name) not in self._owners)
            ]
            if said and named.get(name) is not None:
                said.append(named[name])
            if said:
                named[name] = _both(*said) if len(said) > 1 else said[0]


def _within(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Return the values in an unknown field, by name."""
    if isinstance(value, dict):
        return value.items()
    inner = value.values if isinstance(value, Ambiguous) else value
    return [(name, one) for one in inner] if isinstance(inner, list | tuple) else []


class _Restricting(NamedTuple):
    path: str  # of its object
    name: str
    restriction: Restriction


@cache
def _restricting(kind: type[msgspec.Struct], path: str = "$") -> tuple[_Restricting, ...]:
    """Return the fields of a message that restrict, also those of its objects."""
    found = []
    for name, one in _fields(kind).items():
        if one.restriction is not None:
            found.append(_Restricting(path, name, one.restriction))
        if one.nested is not None:
            found.extend(_restricting(one.nested, f"{path}.{name}"))
    return tuple(found)


def _both(*values: Any) -> Ambiguous:
    return Ambiguous(
        tuple(
            one
            for some in values
            for one in (some.values if isinstance(some, Ambiguous) else (some,))
        )
    )


def _in(path: str, name: str) -> str:
    return sayable(f"{_short(path)}.{name}" if path != "$" else name, LONGEST)


def _short(path: str) -> str:
    return path.removeprefix("$.")


# -- strictly ------------------------------------------------------------------------------------


def _chosen(kind: Any, raw: Any) -> tuple[type[msgspec.Struct] | None, Any]:
    """Return a message's Struct of the union `kind`, and the message with its tag repaired."""
    structs: list[type[msgspec.Struct]] = bare(kind)
    if len(structs) == 1 or not isinstance(raw, dict):
        return structs[0], raw
    tags = {str(one.__struct_config__.tag): one for one in structs}
    field = str(structs[0].__struct_config__.tag_field)
    if isinstance(tag := raw.get(field), str) and tag in tags:
        return tags[tag], raw
    if (repaired := choice(tags)(tag)) is None:
        return None, raw
    return tags[repaired.value], {**raw, field: repaired.value}


def _strict(raw: Any, kind: Any, path: str) -> Any:
    """Return the value of `kind`, or raise Invalid with a path below `path`."""
    _refuse_marked(raw, kind, path)
    try:
        return msgspec.convert(raw, kind, str_keys=True)
    except msgspec.ValidationError as error:
        invalid = explained(str(error), kind)
        raise Invalid(invalid.code, path + invalid.field[1:], invalid.reason) from None
    except UnicodeEncodeError:
        raise Invalid(
            Code.INVALID_UTF8, path, "A lone surrogate, such as U+D800, is no character."
        ) from None


def _refuse_marked(value: Any, kind: Any, path: str) -> None:
    """Refuse what the JSON reader has marked: two values under one key, NaN and Infinity.

    `path` names only known fields: it is logged, and the sender's own keys may contain anything.
    """
    if isinstance(value, Ambiguous):
        raise Invalid(Code.DUPLICATE_KEY, path, "The field stands more than once, and differs.")
    if isinstance(value, NotFinite):
        raise Invalid(Code.NOT_FINITE, path, "NaN and Infinity are not numbers in JSON.")
    if isinstance(value, dict):
        struct = _nested(kind)
        known = _fields(struct) if struct else {}
        for name, inner in value.items():
            if name in known:
                _refuse_marked(inner, known[name].hint, f"{path}.{name}")
            else:
                _refuse_marked(inner, None, path)
    elif isinstance(value, list):
        for inner in value:
            _refuse_marked(inner, None, path)
