"""What is wrong with a message, in JSON's terms: where, what was expected, what is allowed."""

import enum
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin

import msgspec

from schemas.validation_errors import Code, Invalid

_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
    "NoneType": "null",
    "uuid": "an id (a UUID as a string)",
    "datetime": "a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z)",
}
_CODES = frozenset(Code)
_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
_EXPECTED = re.compile(
    r"Expected `(?P<kinds>[^`]*)`(?:, got `(?P<got>[^`]*)`)?(?P<rest>.*)$", re.DOTALL
)

Said = tuple[Code, str]
_Say = Callable[[re.Match[str]], Said]


def explained(message: str, kind: Any) -> Invalid:
    """Return what msgspec's `message` about a value of `kind` means for the sender."""
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    if what.count("|") >= 2 and what.partition("|")[0] in _CODES:  # a FieldError of ours
        code, name, reason = what.split("|", 2)
        return Invalid(Code(code), f"{path}.{name}" if name else path, reason)
    if missing := re.match(r"Object missing required field `([^`]+)`", what):
        return Invalid(
            Code.MISSING_FIELD, f"{path}.{missing[1]}", f"The field '{missing[1]}' is missing."
        )
    code, reason = _said(what)
    if allowed := [*_allowed(kind, path)]:
        reason = f"Expected one of {', '.join(allowed)}{_instead(what)}."
    return Invalid(code, path, reason)


def _instead(what: str) -> str:
    given = re.search(r"Invalid (?:enum )?value (.*)$", what, re.DOTALL)
    return f", got {given[1]}" if given else ""


_RULES: tuple[tuple[re.Pattern[str], _Say], ...] = tuple(
    (re.compile(pattern, re.DOTALL), say)
    for pattern, say in (
        (r"Invalid (?:enum )?value ", lambda _: (Code.OUT_OF_RANGE, "The value is not allowed.")),
        (r"Invalid UUID", lambda _: (Code.BAD_ID, "The id is no UUID.")),
        (r"Invalid RFC3339", lambda _: (Code.BAD_TIME, f"Expected {_KINDS['datetime']}.")),
        (
            r"with a timezone component",
            lambda _: (
                Code.BAD_TIME,
                "The time has no offset: expected one as 2026-03-01T12:00:00Z.",
            ),
        ),
        (r"Number out of range", lambda _: (Code.OUT_OF_RANGE, "The number is out of range.")),
        (
            r"`(\w+)` of length <= (\d+)",
            lambda found: (
                Code.TEXT_TOO_LONG,
                f"Expected {_KINDS[found[1]]} of at most length {found[2]}.",
            ),
        ),
        (
            r"matching regex",
            lambda _: (Code.OUT_OF_RANGE, "Expected lower case, with '-' in the place of a space."),
        ),
        (
            r"`str` of length >= 1",
            lambda _: (Code.OUT_OF_RANGE, "Expected a string of at least 1 character."),
        ),
        (
            r"`array` of length >= 1",
            lambda _: (Code.OUT_OF_RANGE, "Expected an array that is not empty."),
        ),
        (
            r"`(?:float|int)` >= (\S+)",
            lambda found: (Code.OUT_OF_RANGE, f"Expected a number of at least {_plain(found[1])}."),
        ),
        (
            r"`(?:float|int)` <= (\S+)",
            lambda found: (Code.OUT_OF_RANGE, f"Expected a number of at most {_plain(found[1])}."),
        ),
    )
)


def _said(what: str) -> Said:
    for pattern, say in _RULES:
        # The sender's own text comes after "value" and must not matter.
        if found := pattern.search(what.partition(" value ")[0] + " value " * (" value " in what)):
            return say(found)
    expected = _EXPECTED.match(what)
    if expected is None:
        return Code.WRONG_TYPE, "The value is not of the type that is expected."
    kinds = [part.strip() for part in expected["kinds"].split("|")]
    got = f", got {_kind(expected['got'])}" if expected["got"] else ""
    return _code_of(kinds), f"Expected {' or '.join(map(_kind, kinds))}{got}."


def _code_of(kinds: list[str]) -> Code:
    if "uuid" in kinds:
        return Code.BAD_ID
    return Code.BAD_TIME if "datetime" in kinds else Code.WRONG_TYPE


def _kind(name: str) -> str:
    return _KINDS.get(name, "something else")


def _plain(number: str) -> str:
    return number.removesuffix(".0")


# -- what is allowed ------------------------------------------------------------------------------


def _allowed(kind: Any, path: str) -> Iterator[str]:
    """Return the allowed values at `path` of a `kind`, if that is a choice: an enum, or a tag."""
    kinds = bare(kind)
    for name in path.split(".")[1:]:
        structs = [one for some in kinds for one in _structs(some)]
        kinds = [hint for one in structs for hint in _hints(one, name)]
    for one in kinds:
        if isinstance(one, type) and issubclass(one, enum.Enum):
            yield from map(str, one)
        elif isinstance(one, str):
            yield one


def _hints(kind: type[msgspec.Struct], name: str) -> Iterator[Any]:
    config = kind.__struct_config__
    if name == config.tag_field:
        yield str(config.tag)
    for field in msgspec.structs.fields(kind):
        if field.encode_name == name:
            yield from bare(field.type)


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    return (one for one in bare(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct))


def bare(kind: Any) -> list[Any]:
    """Return the types that a value of `kind` may have, without annotations."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if alternatives := get_args(kind) if not isinstance(kind, type) else ():
        return [one for part in alternatives for one in bare(part)]
    return [kind]
