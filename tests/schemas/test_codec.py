"""Strict decoding: whatever comes in, it is a typed value or an Invalid that says what is wrong."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.codec import MAX_PAYLOAD_BYTES, Code, Invalid, encode
from schemas.examples import EXAMPLES, V5
from tests.schemas.refused_messages import assert_explains, refusal, report, values

INCOMING = [topic for topic in topics.TOPICS if topic.sender in ("participant", "operations")]


@given(topic=st.sampled_from(INCOMING), payload=st.binary(max_size=300))
def test_random_bytes_are_refused_with_code_field_and_reason(
    topic: topics.Topic[Any], payload: bytes
) -> None:
    refusal(topic, payload)


@settings(max_examples=400)
@given(topic=st.sampled_from(INCOMING), data=st.data())
def test_mutated_messages_are_typed_values_or_refused(topic: topics.Topic[Any], data: Any) -> None:
    names = sorted(name for name in EXAMPLES if name.split("-")[0] == topic.name)
    message = msgspec.json.decode(encode(EXAMPLES[data.draw(st.sampled_from(names))]))
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*message, "location.lat", "unknown"]) | st.text())
        inner, _, leaf = key.rpartition(".")
        place = message.get(inner, message) if inner else message
        if isinstance(place, dict):
            place[leaf or key] = data.draw(values)

    decoded_or_refused(topic, json.dumps(message).encode())


@settings(max_examples=400)
@given(name=st.sampled_from(["report", "presence", "command-ask"]), data=st.data())
def test_messages_with_some_bytes_changed_are_typed_values_or_refused(name: str, data: Any) -> None:
    payload = bytearray(encode(EXAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 4))] = data.draw(
            st.binary(max_size=4)
            | st.sampled_from([b'"', b"\\", b"NaN", b"[[", b"}", b"\0", b"9" * 5_000])
        )

    topic = next(topic for topic in INCOMING if topic.name == name.partition("-")[0])
    decoded_or_refused(topic, bytes(payload))


def decoded_or_refused(topic: topics.Topic[Any], payload: bytes) -> None:
    try:
        value = topic.decode(payload)
    except Invalid as refused:
        assert_explains(refused)
    else:
        assert topic.read(encode(value)) == (value, ())  # what was repaired is well formed


@pytest.mark.parametrize(
    ("payload", "code", "field"),
    [
        (b"", Code.EMPTY_PAYLOAD, "$"),
        (b" " * (MAX_PAYLOAD_BYTES + 1), Code.PAYLOAD_TOO_LARGE, "$"),
        (b"f\xffire!", Code.INVALID_UTF8, "$"),
        (report().decode().encode("utf-16"), Code.INVALID_UTF8, "$"),
        (b"fire!", Code.NOT_JSON, "$"),
        (report() + b"{}", Code.NOT_JSON, "$"),
        (b"{'a':1}", Code.NOT_JSON, "$"),
        (b'{"a":1,}', Code.NOT_JSON, "$"),
        (b"[" * 17, Code.NESTING_TOO_DEEP, "$"),
        (b"[]", Code.WRONG_TYPE, "$"),
        (b'"text"', Code.WRONG_TYPE, "$"),
        (b"null", Code.WRONG_TYPE, "$"),
        (b"{}", Code.MISSING_FIELD, "$.id"),
        (report(location={"lat": 51.0}), Code.MISSING_FIELD, "$.location.lon"),
        (report(location=None), Code.WRONG_TYPE, "$.location"),
        (report(location={"lat": "51", "lon": 3}), Code.WRONG_TYPE, "$.location.lat"),
        (report(location={"lat": True, "lon": 3}), Code.WRONG_TYPE, "$.location.lat"),
        (report(location={"lat": 90.1, "lon": 3}), Code.OUT_OF_RANGE, "$.location.lat"),
        (report(location={"lat": 1, "lon": -180.1}), Code.OUT_OF_RANGE, "$.location.lon"),
        (report(location={"lat": 10**400, "lon": 3}), Code.OUT_OF_RANGE, "$.location.lat"),
        (report(location={"lat": float("nan"), "lon": 3}), Code.NOT_FINITE, "$.location.lat"),
        (report(location={"lat": 51, "lon": float("inf")}), Code.NOT_FINITE, "$.location.lon"),
        (report(location={"lat": 0, "lon": 0}), Code.NULL_ISLAND, "$.location"),
        (report(category="a\x07|b|c", id=[float("nan")]), Code.NOT_FINITE, "$.id"),
        (report(category="x" * 41), Code.TEXT_TOO_LONG, "$.category"),
        (report(id="not-an-id"), Code.BAD_ID, "$.id"),
        (report(id=7), Code.BAD_ID, "$.id"),
        (report(id=str(V5)), Code.BAD_ID, "$.id"),
        (b'{"x":1,"x":2}', Code.MISSING_FIELD, "$.id"),
        (report()[:-1] + b',"category":"theft"}', Code.DUPLICATE_KEY, "$.category"),
        (report()[:-1] + b',"\\u0063ategory":"theft"}', Code.DUPLICATE_KEY, "$.category"),
        (
            report(location={"lat": 1, "lon": 2}).replace(b'"lat": 1', b'"lat": 1, "lat": 2'),
            Code.DUPLICATE_KEY,
            "$.location.lat",
        ),
    ],
    ids=lambda value: repr(value)[-40:] if isinstance(value, bytes) else None,
)
def test_bad_input_is_refused_by_the_code_of_its_fault(
    payload: bytes, code: Code, field: str
) -> None:
    refused = refusal(topics.REPORT, payload)

    assert (refused.code, refused.field) == (code, field)


@pytest.mark.parametrize(
    ("topic", "changed", "reason"),
    [
        (
            "reply",
            {"kind": "perhaps"},
            "Expected one of seen, accepted, declined, on_scene, left, got 'perhaps'.",
        ),
        (
            "reply",
            {"kind": "null_island||forged"},
            "Expected one of seen, accepted, declined, on_scene, left, got 'null_island||forged'.",
        ),
        (
            "reply",
            {"kind": "length <= 'x' - at `$.y`"},
            "Expected one of seen, accepted, declined, on_scene, left, got \"length <= 'x' - at `$.y`\".",
        ),
        ("reply", {"kind": 5}, "Expected one of seen, accepted, declined, on_scene, left."),
        (
            "command-status",
            {"status": "lost"},
            "Expected one of open, acknowledged, assigned, on_scene, closed, got 'lost'.",
        ),
        (
            "command-status",
            {"command": "arrest"},
            "Expected one of acknowledge, assign, status, ask, inform, close, got 'arrest'.",
        ),
        ("report", {"location": {"lat": "51", "lon": 3}}, "Expected a number, got a string."),
        ("report", {"location": {"lat": None, "lon": 3}}, "Expected a number, got null."),
        ("report", {"location": [51, 3]}, "Expected an object, got an array."),
        ("report", {"location": {"lat": 91, "lon": 3}}, "Expected a number of at most 90."),
        ("report", {"id": "x"}, "The id is no UUID."),
        ("report", {"id": True}, "Expected an id (a UUID as a string), got true or false."),
        (
            "sync",
            {"since": "2026-03-01T12:00:00"},
            "The time has no offset: expected one as 2026-03-01T12:00:00Z.",
        ),
        ("message", {"text": ""}, "Expected a string of at least 1 character."),
    ],
    ids=str,
)
def test_reason_speaks_json_and_names_what_is_allowed(
    topic: str, changed: dict[str, Any], reason: str
) -> None:
    message = msgspec.json.decode(encode(EXAMPLES[topic])) | changed
    on = next(one for one in INCOMING if one.name == topic.partition("-")[0])

    assert refusal(on, json.dumps(message).encode()).reason == reason


def test_command_without_a_known_name_is_refused() -> None:
    for payload, code in (
        (b"{}", Code.MISSING_FIELD),
        (b'{"command":"arrest"}', Code.OUT_OF_RANGE),
        (b'{"command":"a|b|c"}', Code.OUT_OF_RANGE),
        (b'{"command":null}', Code.WRONG_TYPE),
    ):
        refused = refusal(topics.COMMAND, payload)
        assert (refused.code, refused.field) == (code, "$.command")
