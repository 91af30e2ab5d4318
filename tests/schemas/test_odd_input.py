"""What is made of each odd value in each field, whole: the value and the notes, or why not.

After a change that is meant: `python -m tests.schemas.test_odd_input` writes the golden file; read
its diff as a device maker would.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from schemas import topics
from schemas.cleaning import MAX_NOTE, MAX_NOTES
from schemas.codec import MAX_DEPTH, MAX_PAYLOAD_BYTES, Invalid, encode, glance
from schemas.examples import EXAMPLES, V5, V7
from schemas.text import is_odd, with_plain_line_breaks, without_controls
from schemas.validation_errors import Code, sayable

GOLDEN = Path(__file__).with_name("odd_input.txt")
ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "2e9": 2e9,
    "1e400": 10**400,
    "NaN": float("nan"),
    "empty": "",
    "long": "x" * 2_345,
    "words": "On-Duty",
    "space": " fire ",
    "array": ["a"],
    "object": {"a": 1},
    "time": "2026-03-01 12:00:00+01:00",
    "naive": "2026-03-01T12:00:00",
    "leap": "2026-03-01T23:59:60.5Z",
    "unix": 1_772_366_400,
    "controls": "a\r\nb\u202ec\x07",
    "surrogate": "\ud800",
    "v5": str(V5),
    "ids": [str(V7), "x", 7],
    "one of ours": "police",
    "upper": "NL_be",
    "groups": {str(V5): [1, "a", 2], "x": [3]},
}
KINDS = {
    kind: topic
    for topic in topics.TOPICS
    if topic.is_received
    for kind in get_args(topic.payload) or (topic.payload,)
}


def outcome(topic: topics.Topic[Any], payload: bytes) -> str:
    """Return what was made of a payload: as one line."""
    try:
        value, notes = topic.read(payload)
    except Invalid as refused:
        told = [refused.code, refused.field, refused.reason, *refused.notes]
        return "REFUSED " + json.dumps(told, ensure_ascii=True)
    return json.dumps([msgspec.to_builtins(value, str_keys=True), *notes], ensure_ascii=True)


@cache
def rows() -> dict[str, str]:
    """Return a line for each odd value in each field of what Nabij receives, and for odd names."""
    found, seen = {}, set()
    for kind, topic in KINDS.items():
        example = next(each for each in EXAMPLES.values() if type(each) is kind)
        message = json.loads(encode(example))
        for field in msgspec.structs.fields(kind):
            name = field.encode_name
            if (name, str(field.type)) in seen:  # as an id is the same everywhere
                continue
            seen.add((name, str(field.type)))
            odd = Odd(topic, message)
            without = {key: value for key, value in message.items() if key != name}
            found[f"{kind.__name__} without {name}"] = odd.told(without)
            other = name.replace("_", "").title() if "_" in name else f"{name[:-1]}z"
            found[f"{kind.__name__} misspelt {name}"] = odd.told(
                without | {other: message.get(name)}
            )
            for label, value in ODD.items():
                found[f"{kind.__name__} {name} {label}"] = odd.told(message | {name: value})
    return found | _places() | _texts()


class Odd:
    """A message, of which something is changed."""

    def __init__(self, topic: topics.Topic[Any], message: dict[str, Any]) -> None:
        self._topic = topic
        self._before = json.loads(outcome(topic, json.dumps(message).encode()))[0]

    def told(self, changed: dict[str, Any]) -> str:
        """Return the outcome; of a value only what is not as before."""
        told = outcome(self._topic, json.dumps(changed).encode())
        if told.startswith("REFUSED"):
            return told
        value, *notes = json.loads(told)
        names = self._before | value
        differs = {
            name: value.get(name) for name in names if self._before.get(name) != value.get(name)
        }
        shown = {
            name: f"{len(each)} characters" if isinstance(each, str) and len(each) > 100 else each
            for name, each in differs.items()
        }
        return json.dumps([shown, *notes], ensure_ascii=True)


def _places() -> dict[str, str]:
    message = json.loads(encode(EXAMPLES["report"]))
    places: dict[str, Any] = {
        "at the edges": {"lat": 90, "lon": 180},
        "at the other edges": {"lat": -90, "lon": -180},
        "beyond north": {"lat": 90.01, "lon": 3},
        "beyond south": {"lat": -90.01, "lon": 3},
        "beyond east": {"lat": 51, "lon": 180.01},
        "beyond west": {"lat": 51, "lon": -180.01},
        "null island": {"lat": 0, "lon": 0},
        "on the equator": {"lat": 0, "lon": 3},
        "on the meridian": {"lat": 51, "lon": 0},
        "with a name": {"lat": 51, "lon": 3, "name": "x"},
        "with a misspelt accuracy": {"lat": 51, "lon": 3, "accuracy": 5},
    }
    accuracies = [0, 0.5, 10_000, 10_001, -0.5, None, "5", True, float("inf"), [5]]
    places |= {f"accuracy {each}": {"lat": 51, "lon": 3, "accuracy_m": each} for each in accuracies}
    return {
        f"place {name}, as {field}": Odd(topics.REPORT, message).told(message | {field: place})
        for name, place in places.items()
        for field in ("location", "reporter_location")
    }


def _texts() -> dict[str, str]:
    report = encode(EXAMPLES["report"])
    names = [f"unknown{number}" for number in range(9)]
    payloads = {
        "empty": b"",
        "a number": b"5",
        "cut off": report[:-9],
        "two": report + report,
        "zeros after it": report + b"\0\0",
        "a byte order mark": b"\xef\xbb\xbf" + report,
        "bad UTF-8 in a text": report.replace(b"Rook", b"Ro\xffk"),
        "bad UTF-8": b"\xff\xfe{",
        "a key twice, alike": report[:-1] + b',"mode":"drill"}',
        "a key twice, unlike": report[:-1] + b',"mode":"real"}',
        "a text twice": report[:-1] + b',"text":"more"}',
        "a text thrice, not always one": report[:-1] + b',"text":5,"text":"more"}',
        "an audience twice": report[:-1] + b',"audience":"police_and_nearby"}',
        "a required key twice": report[:-1] + b',"category":"theft"}',
        "the same name in two styles": report[:-1] + b',"seenAt":"2026-03-01T12:00:00Z"}',
        "unknown names": report[:-1]
        + b","
        + b",".join(b'"%s":1' % each.encode() for each in names)
        + b"}",
        "one unknown name": report[:-1] + b',"zzz":1}',
        "many unknown names": report[:-1]
        + b"".join(b',"zq%d":1' % number for number in range(40))
        + b',"modes":1}',
        "a long unknown name": report[:-1] + b',"' + b"reporter_location" * 3 + b'":1}',
        "a near name": report[:-1] + b',"laguage":"en"}',
        "a large number in vain": report[:-1] + b',"zzz":' + b"9" * 5_000 + b"}",
        "deep": b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        "too deep": b"[" * (MAX_DEPTH + 1),
        "as large as may be": report.ljust(MAX_PAYLOAD_BYTES),
        "too large": report.ljust(MAX_PAYLOAD_BYTES + 1),
        "not JSON": b"{nope",
        "an escape": report.replace(b"Rook", b"\\u0052ook"),
    }
    found = {f"text {name}": outcome(topics.REPORT, payload) for name, payload in payloads.items()}
    commands = {
        "of no name": {"command": None},
        "in upper case": {"command": "Close"},
        "unknown": {"command": "x"},
        "as an array": {"command": ["close"]},
    }
    message = json.loads(encode(EXAMPLES["command-close"]))
    for name, changed in commands.items():
        payload = json.dumps(message | changed).encode()
        found[f"command {name}"] = outcome(topics.COMMAND, payload)
    del message["command"]
    found["command missing"] = outcome(topics.COMMAND, json.dumps(message).encode())
    return found | {
        f"glance at {name}": repr(glance(payload)) for name, payload in payloads.items()
    }


def as_text(found: dict[str, str]) -> str:
    return "".join(f"{name}: {told}\n" for name, told in found.items())


def test_what_is_made_of_odd_input_is_as_in_the_golden_file() -> None:
    golden = dict(line.split(": ", 1) for line in GOLDEN.read_text("utf-8").splitlines())
    found = rows()

    assert {name: found[name] for name in found if found[name] != golden.get(name)} == {}
    assert found.keys() == golden.keys()


def test_no_note_or_reason_of_odd_input_is_longer_than_promised() -> None:
    for told in rows().values():
        if told.startswith(("[", "REFUSED")):
            _, *notes = json.loads(told.removeprefix("REFUSED "))
            notes = notes[2:] if told.startswith("REFUSED") else notes
            assert len(notes) <= MAX_NOTES
            assert all(
                len(json.dumps(note, ensure_ascii=False).encode()) - 2 <= MAX_NOTE for note in notes
            )


# -- characters ----------------------------------------------------------------------------------

# Unicode: C0 but tab and newline, DEL and C1, marks of direction, annotation, BOM, surrogates.
REMOVED = {
    *range(9),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
}
BREAKS = {0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029}


def test_exactly_the_characters_that_cannot_be_shown_are_removed() -> None:
    every = "".join(map(chr, range(0x11000)))

    assert set(map(ord, every)) - set(map(ord, without_controls(every))) == REMOVED


def test_every_kind_of_line_break_becomes_a_line_feed_and_nothing_else_does() -> None:
    changed = {code for code in range(0x11000) if with_plain_line_breaks(chr(code)) != chr(code)}

    assert changed == BREAKS
    assert {with_plain_line_breaks(chr(code)) for code in BREAKS} == {"\n"}
    assert with_plain_line_breaks("a\r\nb\n\rc\r\r") == "a\nb\n\nc\n\n"


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_whatever_cleaning_would_change_is_seen_in_the_json_and_hardly_anything_else(
    *, escaped: bool, upper: bool
) -> None:
    odd = set()
    for code in range(0x10000):
        digits = f"{code:04X}" if upper else f"{code:04x}"
        if is_odd(f'{{"text":"\\u{digits}"}}' if escaped else f'{{"text":"{chr(code)}"}}'):
            odd.add(code)
    if escaped:
        assert odd == REMOVED | BREAKS
    else:  # what is below is no JSON, and is cleaned for that
        assert odd == {code for code in (*REMOVED, 0x2028, 0x2029) if code >= 0x7F}


def test_short_escapes_of_line_breaks_and_controls_are_seen_and_others_are_not() -> None:
    assert [letter for letter in 'bfnrt"\\/' if is_odd(f'"\\{letter}"')] == ["b", "f", "r"]
    assert not is_odd("plain")


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [10, 11, 12])
def test_what_is_said_is_cut_at_the_limit_and_marked_so(limit: int) -> None:
    assert sayable("x" * limit, limit) == "x" * limit
    assert sayable("x" * (limit + 1), limit) == "x" * (limit - 3) + "…"
    assert sayable("\x00" * 99 + "y", limit) == "y"
    quoted = sayable('"' * 20, limit)
    assert len(msgspec.json.encode(quoted)) - 2 in (limit, limit - 1)


def test_a_refusal_keeps_code_field_and_reason_apart() -> None:
    refused = Invalid(Code.BAD_ID, "$.id", "The id is no UUID.")
    assert (refused.code, refused.field, refused.reason) == (
        Code.BAD_ID,
        "$.id",
        "The id is no UUID.",
    )
    assert (str(refused), refused.notes) == ("$.id: The id is no UUID.", ())


if __name__ == "__main__":
    GOLDEN.write_text(as_text(rows()), "utf-8")
