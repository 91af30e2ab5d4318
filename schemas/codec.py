"""JSON on the wire: encoding, and decoding that says what is wrong and where.

Well-formed messages are decoded strictly and fast. In others `schemas/cleaning.py` repairs or
leaves out what is not required, also unknown keys, so that a newer device can speak to an older
broker. No message may nest deeper than `MAX_DEPTH` or be longer than `MAX_PAYLOAD_BYTES`.
"""

import json
import re
from collections import defaultdict
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from schemas.cleaning import Cleaning, has_lenient
from schemas.lenient import Ambiguous, NotFinite, Repair, code, language_tag
from schemas.taxonomy import Language
from schemas.text import is_odd
from schemas.validation_errors import Code, FieldError, Invalid

__all__ = [
    "MAX_DEPTH",
    "MAX_PAYLOAD_BYTES",
    "Code",
    "Decoder",
    "FieldError",
    "Glance",
    "Invalid",
    "encode",
    "encode_within_limit",
    "glance",
]

MAX_PAYLOAD_BYTES = 16 * 1024
MAX_DEPTH = 16

Notes = tuple[str, ...]

_T = TypeVar("_T")


def encode(value: msgspec.Struct) -> bytes:
    """Return `value` as JSON (UTF-8)."""
    return _ENCODER.encode(value)


def encode_within_limit(value: msgspec.Struct) -> bytes:
    """Return `value` as JSON, for the services.

    Raises:
        Invalid: it is too large. An MQTT broker closes the connection over a still larger one, and
        a device that sends it again would never send anything else.
    """
    payload = encode(value)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _too_large(payload)
    return payload


class Decoder:
    """Decoder of one payload type (a Struct or a tagged union of Structs)."""

    def __init__(self, payload_type: Any) -> None:
        self._type = payload_type
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(payload_type)
        self._mends = has_lenient(payload_type)

    def decode(self, payload: bytes) -> Any:
        """Return the typed value of `payload`, as `read` without notes."""
        return self.read(payload)[0]

    def read(self, payload: bytes) -> tuple[Any, Notes]:
        """Return the typed value of `payload`, and notes of what was repaired, left out or unknown.

        Raises:
            Invalid: with the code, the JSON path, the reason, and `notes`.
        """
        text, fault = _checked_text(payload)
        if fault is None and not (self._mends and is_odd(text)) and not _may_repeat_a_key(text):
            try:
                return self._decoder.decode(text), ()
            except msgspec.MsgspecError:
                pass  # repair what can be repaired, and explain the rest
        cleaning = Cleaning()
        try:
            raw = _loaded(text, fault, cleaning)
            return cleaning.read(self._type, raw), cleaning.notes
        except Invalid as error:
            error.notes = cleaning.notes
            raise


class Glance(NamedTuple):
    """What can be read of a refused message, so that it can be answered."""

    id: UUID | None = None
    language: Language | None = None
    category: str | None = None


def glance(payload: bytes) -> Glance:
    """Return what can be read of `payload`, however broken, even if it is cut off."""
    try:
        text, fault = _checked_text(payload)
        raw = _loaded(text, fault, Cleaning())
        found = raw if isinstance(raw, dict) else {}
    except Invalid:
        text = payload[:MAX_PAYLOAD_BYTES].decode("utf-8", "replace")
        found = {match["name"]: match["value"] for match in reversed([*_GLANCED.finditer(text)])}
    return Glance(
        _repaired(UUID, found.get("id"), None),
        _repaired(Language, found.get("language"), language_tag(Language)),
        _repaired(str, found.get("category"), code),
    )


_GLANCED = re.compile(r'"(?P<name>id|language|category)"\s*+:\s*+"(?P<value>[^"\\]{1,60}+)"')


def _repaired(kind: type[_T], value: Any, repair: Repair | None) -> _T | None:
    meant = repair(value) if repair else None
    try:
        return msgspec.convert(meant.value if meant else value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError):  # a lone surrogate
        return None


_ENCODER = msgspec.json.Encoder()


def _checked_text(payload: bytes) -> tuple[str, Invalid | None]:
    """Return the text of a payload with invalid UTF-8 replaced by U+FFFD, and a note of that."""
    if not payload:
        raise Invalid(Code.EMPTY_PAYLOAD, "$", "The payload is empty.")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise _too_large(payload)
    fault = None
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        text = payload.decode("utf-8", "replace")
        why = f"Byte {error.start} is not valid UTF-8: {error.reason}."
        fault = Invalid(Code.INVALID_UTF8, "$", why)
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise Invalid(
            Code.NESTING_TOO_DEEP, "$", f"Objects and arrays nest deeper than {MAX_DEPTH} levels."
        )
    return text, fault


def _too_large(payload: bytes) -> Invalid:
    return Invalid(
        Code.PAYLOAD_TOO_LARGE,
        "$",
        f"The payload has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed.",
    )


# Possessive, and a string may lack its end: searching for it from each quote again took 1.7 s.
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        values = defaultdict(list)
        for key, value in pairs:
            values[key].append(value)
        fields |= {key: Ambiguous(tuple(some)) for key, some in values.items() if len(some) > 1}
    return fields


# Accepts what lax writers produce; reads large integers as floats, since Python reads none of more
# than 4,300 digits, not even in an unknown field.
_LOADS = json.JSONDecoder(
    strict=False,
    object_pairs_hook=_object,
    parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits),
    parse_constant=NotFinite,
).decode


def _loaded(text: str, fault: Invalid | None, cleaning: Cleaning) -> Any:
    try:
        raw = _LOADS(text.removeprefix("\ufeff").rstrip("\0"))
    except ValueError as error:
        if fault is not None:
            raise fault from None
        why = str(error).partition(":")[0]
        where = getattr(error, "pos", 0)
        raise Invalid(Code.NOT_JSON, "$", f"Not JSON: {why}, at character {where}.") from None
    if fault is not None:
        cleaning.note(f"{fault.reason} What is not was replaced.")
    return raw


# A string and, if it is a key, the colon after it; in valid JSON without a backslash.
_STRINGS = re.compile(r'"([^"]*+)"\s*+(:?)')


def _may_repeat_a_key(text: str) -> bool:
    if text.count("\\") != text.count("\\n") + text.count("\\t"):
        return True  # a quote that ends no string, or a key that is spelled in two ways
    strings = text.split('"')[1::2]
    if len(set(strings)) == len(strings):
        return False  # no value either: a tenth of the time of another parser
    keys = [string for string, colon in _STRINGS.findall(text) if colon]
    return len(set(keys)) != len(keys)  # not even in different objects: a third of it
