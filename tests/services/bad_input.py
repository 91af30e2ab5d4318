"""What senders get wrong: messages as bytes, and the code and field that their receipt must name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.ids import new_id
from schemas.topics import ANSWER, COMMAND, MESSAGE, PRESENCE, REPLY, REPORT, SYNC, Topic
from tests.services.system import KORENMARKT, a_presence, a_report, ago

KiB = 1024
Fields = dict[str, Any]
_V4 = "2f1de1b5-7b8e-4f0e-9a2b-8a4c0f6f7a11"
_SOMEWHERE = {"lat": KORENMARKT[0], "lon": KORENMARKT[1]}


@dataclass(frozen=True)
class Bad:
    """One bad message of a kind: `payload` is made each time, with fresh ids and times."""

    topic: Topic[Any]
    what: str
    payload: Callable[[], bytes]
    code: str
    field: str

    def __str__(self) -> str:
        return f"{self.topic.name}: {self.what}"


def _about(**fields: Any) -> Callable[[], Fields]:
    return lambda: {"id": str(new_id()), "incident": str(new_id()), **fields}


GOOD: dict[Topic[Any], Callable[[], Fields]] = {
    REPORT: lambda: a_report(KORENMARKT),
    PRESENCE: lambda: a_presence(KORENMARKT),
    REPLY: _about(kind="accepted"),
    MESSAGE: _about(text="hello"),
    ANSWER: lambda: {"id": str(new_id()), "question": str(new_id()), "text": "no"},
    SYNC: lambda: {"since": ago(hours=1)},
    COMMAND: _about(command="acknowledge", by="sergeant 7"),
}


def _ended(good: Fields, text: str) -> bytes:
    """The good message with something more, as it stands, before its last brace."""
    return json.dumps(good).encode()[:-1] + f", {text}}}".encode()


def _padded(good: Fields, size: int) -> bytes:
    bare = len(_ended(good, '"more": ""'))
    return _ended(good, f'"more": "{"x" * (size - bare)}"')


def with_more(topic: Topic[Any], text: str) -> bytes:
    """A good message with something that we do not know."""
    return _ended(GOOD[topic](), text)


def padded(topic: Topic[Any], size: int) -> bytes:
    """A good message of exactly `size` bytes."""
    return _padded(GOOD[topic](), size)


# What no message may be, whatever its kind: (what, from a good one, code, field).
_MALFORMED: tuple[tuple[str, Callable[[Fields], bytes], str, str], ...] = (
    ("empty payload", lambda _: b"", "empty_payload", "$"),
    ("not JSON", lambda _: b"help!", "not_json", "$"),
    ("cut off", lambda good: json.dumps(good).encode()[:-1], "not_json", "$"),
    ("two values", lambda good: json.dumps(good).encode() * 2, "not_json", "$"),
    ("an array", lambda _: b"[]", "wrong_type", "$"),
    ("null", lambda _: b"null", "wrong_type", "$"),
    ("invalid UTF-8", lambda _: b'{"x": "\xff', "invalid_utf8", "$"),
    ("UTF-16", lambda good: json.dumps(good).encode("utf-16"), "invalid_utf8", "$"),
    ("16 KiB + 1", lambda good: _padded(good, 16 * KiB + 1), "payload_too_large", "$"),
    ("60 KiB", lambda good: _padded(good, 60 * KiB), "payload_too_large", "$"),
    (
        "deep nesting",
        lambda good: _ended(good, f'"x": {"[" * 17}{"]" * 17}'),
        "nesting_too_deep",
        "$",
    ),
    ("8,000 brackets", lambda _: b"[" * 8_000, "nesting_too_deep", "$"),
    ("8,000 nested objects", lambda _: b'{"a":' * 3_000, "nesting_too_deep", "$"),
)


def _malformed() -> list[Bad]:
    def bytes_of(topic: Topic[Any], break_it: Callable[[Fields], bytes]) -> Callable[[], bytes]:
        return lambda: break_it(GOOD[topic]())

    return [
        Bad(topic, what, bytes_of(topic, break_it), code, field)
        for topic in GOOD
        for what, break_it, code, field in _MALFORMED
    ]


_ID = (
    ("id", "nonsense", "bad_id", "$.id"),
    ("id", 7, "bad_id", "$.id"),
    ("id", _V4, "bad_id", "$.id"),
)
_TEXT = (
    ("text", "", "out_of_range", "$.text"),
    ("text", "\x00\u202e", "out_of_range", "$.text"),
    ("text", 5, "wrong_type", "$.text"),
    ("text", None, "wrong_type", "$.text"),
)


def _at(lat: Any, lon: Any, **fields: Any) -> Fields:
    return {"lat": lat, "lon": lon, **fields}


_POSITIONS: tuple[tuple[Any, str, str], ...] = (
    (_at(90.001, 3.7), "out_of_range", ".lat"),
    (_at(-90.001, 3.7), "out_of_range", ".lat"),
    (_at(51.0, 180.001), "out_of_range", ".lon"),
    (_at(51.0, -1e300), "out_of_range", ".lon"),
    (_at(10**400, 3.7), "out_of_range", ".lat"),
    (_at("51.0", 3.7), "wrong_type", ".lat"),
    (_at(None, 3.7), "wrong_type", ".lat"),
    (_at([], 3.7), "wrong_type", ".lat"),
    (_at(float("nan"), 3.7), "not_finite", ".lat"),
    (_at(51.0, float("inf")), "not_finite", ".lon"),
    (_at(0, 0), "null_island", ""),
    (_at(-0.0, 0.0, accuracy_m=5), "null_island", ""),
    ({"lat": 51.0}, "missing_field", ".lon"),
    ([51.0, 3.7], "wrong_type", ""),
)


def _positions(name: str) -> list[tuple[str, Any, str, str]]:
    return [(name, value, code, f"$.{name}{end}") for value, code, end in _POSITIONS]


_MISSING = object()


def _time(name: str) -> list[tuple[str, Any, str, str]]:
    return [
        (name, "yesterday", "bad_time", f"$.{name}"),
        (name, "2026-01-01T12:00:00", "bad_time", f"$.{name}"),
        (name, 1_700_000_000, "bad_time", f"$.{name}"),
        (name, _MISSING, "missing_field", f"$.{name}"),
    ]


# (field, wrong value or what makes one, code, field of the receipt), by kind.
_WRONG: dict[Topic[Any], list[tuple[str, Any, str, str]]] = {
    REPORT: [
        *_ID,
        *_positions("location"),
        ("id", _MISSING, "missing_field", "$.id"),
        ("location", _MISSING, "missing_field", "$.location"),
        ("location", None, "wrong_type", "$.location"),
        ("category", _MISSING, "missing_field", "$.category"),
        ("category", "dragons", "unknown_category", "$.category"),
        ("category", "", "unknown_category", "$.category"),
        ("category", "x" * 41, "text_too_long", "$.category"),
        ("category", 3, "wrong_type", "$.category"),
    ],
    PRESENCE: [
        *_positions("location"),
        *_time("at"),
        ("at", lambda: ago(minutes=-6), "too_far_ahead", "$.at"),
        ("at", lambda: ago(minutes=16), "too_old", "$.at"),
        ("location", _MISSING, "missing_field", "$.location"),
    ],
    REPLY: [
        *_ID,
        ("incident", "nonsense", "bad_id", "$.incident"),
        ("incident", lambda: str(new_id()), "unknown_incident", "$.incident"),
        ("kind", "perhaps", "out_of_range", "$.kind"),
        ("kind", _MISSING, "missing_field", "$.kind"),
    ],
    MESSAGE: [
        *_ID,
        *_TEXT,
        ("incident", lambda: str(new_id()), "unknown_incident", "$.incident"),
        ("text", _MISSING, "missing_field", "$.text"),
    ],
    ANSWER: [
        *_ID,
        *_TEXT,
        ("question", lambda: str(new_id()), "unknown_question", "$.question"),
        ("question", "which?", "bad_id", "$.question"),
    ],
    SYNC: [
        *_time("since"),
        ("since", lambda: ago(minutes=-6), "too_far_ahead", "$.since"),
        ("since", "9999-12-31T23:59:59-23:59", "too_far_ahead", "$.since"),
    ],
    COMMAND: [
        *_ID,
        ("incident", lambda: str(new_id()), "unknown_incident", "$.incident"),
        ("command", "a|b|c", "out_of_range", "$.command"),
        ("command", "shoot", "out_of_range", "$.command"),
        ("command", _MISSING, "missing_field", "$.command"),
        ("by", _MISSING, "missing_field", "$.by"),
        ("by", "", "out_of_range", "$.by"),
    ],
}


def _wrong() -> list[Bad]:
    return [
        Bad(topic, _described(name, value), _with(topic, name, value), code, field)
        for topic, rows in _WRONG.items()
        for name, value, code, field in rows
    ]


def _described(name: str, value: Any) -> str:
    if value is _MISSING:
        return f"no {name}"
    shown = "made now" if callable(value) else repr(value)
    return f"{name} {shown[:40]}"


def _with(topic: Topic[Any], name: str, value: Any) -> Callable[[], bytes]:
    def payload() -> bytes:
        fields = {**GOOD[topic](), name: value() if callable(value) else value}
        if fields[name] is _MISSING:
            del fields[name]
        return json.dumps(fields).encode()

    return payload


def _extra() -> list[Bad]:
    """What `json.dumps` does not write, and commands other than acknowledge."""

    def overflowing() -> bytes:
        report = json.dumps(a_report((51.0, 3.7)))
        return report.replace("51.0", "1e999").encode()

    def two_categories() -> bytes:
        return _ended(a_report(KORENMARKT), '"category": "fire"')

    def order(**fields: Any) -> Callable[[], bytes]:
        return lambda: json.dumps({**GOOD[COMMAND](), **fields}).encode()

    return [
        Bad(REPORT, "latitude 1e999", overflowing, "out_of_range", "$.location.lat"),
        Bad(COMMAND, "close, no outcome", order(command="close"), "missing_field", "$.outcome"),
        Bad(COMMAND, "no unit", order(command="assign", unit=""), "out_of_range", "$.unit"),
        Bad(
            COMMAND,
            "status unheard of",
            order(command="status", status="lost"),
            "out_of_range",
            "$.status",
        ),
        Bad(
            COMMAND,
            "inform, control",
            order(command="inform", text="\x9b"),
            "out_of_range",
            "$.text",
        ),
        Bad(REPORT, "two categories", two_categories, "duplicate_key", "$.category"),
    ]


BAD = [*_malformed(), *_wrong(), *_extra()]
