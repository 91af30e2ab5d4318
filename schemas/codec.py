"""JSON on the wire: strict decoding that says what is wrong and where, and encoding.

Strict means more than the types: no invalid UTF-8 anywhere, no key twice in one object, no
nesting beyond `MAX_DEPTH`, no more than `MAX_PAYLOAD_BYTES`. Unknown keys are allowed, so that a
newer device can speak to an older broker.
"""

import enum
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

MAX_PAYLOAD_BYTES = 16 * 1024
MAX_DEPTH = 16

T = TypeVar("T")


class Code(enum.StrEnum):
    """Why a message was rejected, for machines."""

    EMPTY_PAYLOAD = "empty_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    INVALID_UTF8 = "invalid_utf8"
    NOT_JSON = "not_json"
    NOT_FINITE = "not_finite"
    NESTING_TOO_DEEP = "nesting_too_deep"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    NULL_ISLAND = "null_island"
    TEXT_TOO_LONG = "text_too_long"
    CONTROL_CHARACTERS = "control_characters"
    BAD_ID = "bad_id"
    BAD_TIME = "bad_time"
    BAD_TOPIC = "bad_topic"
    UNKNOWN_CATEGORY = "unknown_category"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_OLD = "too_old"
    EXPIRED = "expired"
    UNKNOWN_INCIDENT = "unknown_incident"
    UNKNOWN_REPORT = "unknown_report"
    UNKNOWN_QUESTION = "unknown_question"
    NOT_ALERTED = "not_alerted"
    NOT_A_MEMBER = "not_a_member"
    WRONG_ZONE = "wrong_zone"
    INCIDENT_CLOSED = "incident_closed"
    BAD_TRANSITION = "bad_transition"
    ID_REUSED = "id_reused"
    INTERNAL = "internal"


class Invalid(ValueError):  # noqa: N818 - an adjective of the message, read as `except Invalid`
    """A message that its sender must mend: `code`, `field` (JSON path) and `reason` (a sentence).

    Both may repeat what the sender wrote, which is up to 16 KiB of anything: they are cut, and
    made UTF-8, so that the receipt can always be sent.
    """

    def __init__(self, code: Code, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.code = code
        self.field = _sayable(field, 200)
        self.reason = _sayable(reason, 1_000)


def _sayable(text: str, limit: int) -> str:
    plain = text.encode(errors="replace").decode()  # "\ud800" is a str too
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


class FieldError(ValueError):
    """Raised inside a Struct's own validation; msgspec carries its text as `code|field|reason`."""

    def __init__(self, code: Code, field: str, reason: str) -> None:
        super().__init__(f"{code}|{field}|{reason}")


def encode(value: msgspec.Struct) -> bytes:
    """Return `value` as JSON (UTF-8)."""
    return _ENCODER.encode(value)


class Decoder:
    """Strict decoder of one payload type (a Struct or a tagged union of Structs)."""

    def __init__(self, payload_type: Any) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(payload_type)

    def decode(self, payload: bytes) -> Any:
        """Return the typed value of `payload`.

        Raises:
            Invalid: with the code, the JSON path and the reason.
        """
        text = _checked_text(payload)
        try:
            value = self._decoder.decode(text)
        except msgspec.ValidationError as error:
            raise _explain_validation(str(error)) from None
        except msgspec.DecodeError as error:
            raise _explain_syntax(text, str(error)) from None
        _refuse_duplicate_keys(text)
        return value


_ENCODER = msgspec.json.Encoder()


def _checked_text(payload: bytes) -> str:
    if not payload:
        raise Invalid(Code.EMPTY_PAYLOAD, "$", "The payload is empty.")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Invalid(
            Code.PAYLOAD_TOO_LARGE,
            "$",
            f"The payload has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed.",
        )
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(
            Code.INVALID_UTF8, "$", f"Byte {error.start} is not valid UTF-8: {error.reason}."
        ) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Invalid(
            Code.NESTING_TOO_DEEP, "$", f"Objects and arrays nest deeper than {MAX_DEPTH} levels."
        )
    return text


# Possessive, and a string may lack its end: to look for it from each quote again took 1.7 s.
_BRACKETS_AND_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKETS_AND_STRINGS.finditer(text):
        mark = match.group()
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKeyError(
            next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        )
    return fields


# Integers as floats: Python reads none of more than 4,300 digits, not even in an unknown field.
_LOADS = json.JSONDecoder(object_pairs_hook=_unique, parse_int=float).decode


# A string and, if it is a key, the colon after it; in valid JSON without a backslash.
_STRINGS = re.compile(r'"([^"]*+)"\s*+(:?)')


def _refuse_duplicate_keys(text: str) -> None:
    if "\\" not in text:
        strings = text.split('"')[1::2]
        if len(set(strings)) == len(strings):
            return  # nor any value: a tenth of the time of another parser
        keys = [string for string, colon in _STRINGS.findall(text) if colon]
        if len(set(keys)) == len(keys):
            return  # not even in different objects: a third of it
    try:
        _LOADS(text)
    except _DuplicateKeyError as error:
        raise Invalid(
            Code.DUPLICATE_KEY, f"$.{error}", f"The key '{error}' stands twice in one object."
        ) from None


_CODES = frozenset(Code)
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)  # the sender's own words decide no code
_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_CODES_BY_TEXT = (
    (re.compile(r"missing required field `(?P<field>[^`]+)`"), Code.MISSING_FIELD),
    (re.compile(r"Invalid UUID|Expected `uuid`"), Code.BAD_ID),
    (re.compile(r"Invalid RFC3339|Expected `datetime`|timezone"), Code.BAD_TIME),
    (re.compile(r"length <="), Code.TEXT_TOO_LONG),
    (re.compile(r"Number out of range|`(?:float|int)` [<>]=?|Invalid enum value|Invalid value"
                r"|matching regex|length >="), Code.OUT_OF_RANGE),
)  # fmt: skip


def _explain_validation(message: str) -> Invalid:
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "$") if match else (message, "$")
    if what.count("|") >= 2 and what.partition("|")[0] in _CODES:  # a FieldError of ours
        code, name, reason = what.split("|", 2)
        return Invalid(Code(code), f"{path}.{name}" if name else path, reason)
    for pattern, kind in _CODES_BY_TEXT:
        if found := pattern.search(_QUOTED.sub("''", what)):
            missing = found.groupdict().get("field")
            return Invalid(kind, f"{path}.{missing}" if missing else path, f"{what}.")
    return Invalid(Code.WRONG_TYPE, path, f"{what}.")


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_RAW_CONTROL = re.compile("[\x00-\x1f]")
_NOT_FINITE = object()


def refuse_controls(field: str, text: str) -> None:
    """Refuse control characters other than tab and newline in the text of `field`.

    So are the overrides that reorder what a dispatcher reads (Unicode TR #36, 3.1).

    Raises:
        FieldError: naming the character and its position.
    """
    if found := _CONTROLS.search(text):
        raise FieldError(
            Code.CONTROL_CHARACTERS,
            field,
            f"The text has the control character U+{ord(found.group()):04X} "
            f"at position {found.start()}.",
        )


def _explain_syntax(text: str, message: str) -> Invalid:
    """Tell NaN, Infinity and raw control characters, which lax writers make, from other bad JSON."""
    try:
        value = json.JSONDecoder(
            strict=False, parse_int=float, parse_constant=lambda _: _NOT_FINITE
        ).decode(text)
    except ValueError:
        return Invalid(Code.NOT_JSON, "$", f"{message}.")
    if path := _path_of(value, "$", lambda item: item is _NOT_FINITE):
        return Invalid(Code.NOT_FINITE, path, "NaN and Infinity are not numbers in JSON.")
    unescaped = any(map(_RAW_CONTROL.search, _BRACKETS_AND_STRINGS.findall(text)))
    if unescaped and (
        path := _path_of(value, "$", lambda item: isinstance(item, str) and not item.isprintable())
    ):
        return Invalid(
            Code.CONTROL_CHARACTERS, path, "A control character stands unescaped in a string."
        )
    return Invalid(Code.NOT_JSON, "$", f"{message}.")


def _path_of(value: object, path: str, matches: Callable[[object], bool]) -> str | None:
    if matches(value):
        return path
    children: list[tuple[str, object]] = []
    if isinstance(value, dict):
        children = [(f"{path}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return next(filter(None, (_path_of(item, where, matches) for where, item in children)), None)
