"""Strict decoding: whatever comes in, it is a typed value or an Invalid that says what is wrong."""

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import messages, topics
from schemas.cleaning import MAX_NOTE, MAX_NOTES
from schemas.codec import MAX_DEPTH, MAX_PAYLOAD_BYTES, Code, Invalid, encode, encode_within_limit
from schemas.examples import AT, EXAMPLES, V5, V7
from schemas.messages import Outcome, Receipt, Subject
from schemas.validation_errors import MAX_FIELD, MAX_REASON

INCOMING = [topic for topic in topics.TOPICS if topic.sender in ("participant", "operations")]
REPORT = msgspec.json.decode(encode(EXAMPLES["report"]))
PRESENCE = b'{"at":"2026-03-01T12:00:00Z","location":{"lat":51.0,"lon":3.7}%s}'


def refusal(topic: topics.Topic[Any], payload: bytes) -> Invalid:
    with pytest.raises(Invalid) as refused:
        topic.decode(payload)
    assert_explains(refused.value)
    return refused.value


def assert_explains(refused: Invalid) -> None:
    """Any sender can be told, whatever its software: the receipt encodes, and is short."""
    assert isinstance(refused.code, Code)
    assert refused.field.startswith("$")
    assert refused.reason[-1] in ".…"
    assert len(refused.reason) > 10
    receipt = Receipt(
        subject=Subject.REPORT,
        outcome=Outcome.REJECTED,
        at=AT,
        code=refused.code,
        field=refused.field,
        reason=refused.reason,
    )
    assert len(encode(receipt)) < MAX_PAYLOAD_BYTES


def report(**changed: Any) -> bytes:
    return json.dumps(REPORT | changed).encode()


# -- fuzz ----------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(
        [
            "a|b|c",
            "bad_id|x|y",
            "x - at `$.y`",
            "length <=",
            "\ud800",
            "Invalid UUID",
            "missing required field `z`",
            "2026-03-01T12:00:00",
            str(V7),
            str(V5),
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


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
        assert topic.read(encode(value)) == (value, ())  # what was mended is well formed


# -- every code ----------------------------------------------------------------------------------


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


# -- depth, duplicates, size ---------------------------------------------------------------------


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_depth_counts_the_whole_message_and_ends_at_the_limit() -> None:
    topics.PRESENCE.decode(PRESENCE % (b',"x":' + nested(MAX_DEPTH - 1)))

    refused = refusal(topics.PRESENCE, PRESENCE % (b',"x":' + nested(MAX_DEPTH)))
    assert refused.code is Code.NESTING_TOO_DEEP


@pytest.mark.parametrize("text", [b"[" * 99, b'\\"' + b"{" * 99, b"\\\\", b"]" * 99 + b"[" * 99])
def test_brackets_within_strings_are_no_depth(text: bytes) -> None:
    topics.PRESENCE.decode(PRESENCE % (b',"x":"' + text + b'","y":' + nested(MAX_DEPTH - 1)))

    deep = PRESENCE % (b',"x":"' + text + b'","y":' + nested(MAX_DEPTH))
    assert refusal(topics.PRESENCE, deep).code is Code.NESTING_TOO_DEEP


def test_brackets_within_a_key_are_no_depth() -> None:
    topics.PRESENCE.decode(PRESENCE % (b',"' + b"[" * 99 + b'":1'))


@given(value=values)
def test_depth_is_that_of_the_value(value: object) -> None:
    payload = PRESENCE % (
        b',"x":' + json.dumps(value, allow_nan=False, default=str).encode()
        if _is_plain(value)
        else b""
    )
    if 1 + _depth_of(value) > MAX_DEPTH:
        assert refusal(topics.PRESENCE, payload).code is Code.NESTING_TOO_DEEP
    else:
        topics.PRESENCE.decode(payload)


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def _depth_of(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth_of, value), default=0) if isinstance(value, list) else 0


@given(
    keys=st.lists(
        st.sampled_from(
            ['"a"', '"a\\":"', '":"', '""', '"\\\\"', '"\\n"', '"é"', '"at"', '"\\u0061t"']
        ),
        max_size=4,
        unique=True,
    ),
    texts=st.lists(st.sampled_from(["", ":", '"', '":', '","at":"', "\\"]), min_size=4, max_size=4),
    gap=st.sampled_from(["", " ", "\n\t "]),
)
def test_a_key_that_stands_twice_is_seen_however_it_is_written(
    keys: list[str], texts: list[str], gap: str
) -> None:
    fields = (
        f"{gap},{key}{gap}:{gap}{json.dumps(text)}" for key, text in zip(keys, texts, strict=False)
    )
    payload = PRESENCE % "".join(fields).encode()

    if any(json.loads(key) == "at" for key in keys):
        assert refusal(topics.PRESENCE, payload).code is Code.DUPLICATE_KEY
    else:
        topics.PRESENCE.decode(payload)


def test_equal_keys_in_different_objects_are_no_duplicates() -> None:
    topics.PRESENCE.decode(PRESENCE % b',"at2":{"at":1,"in":{"at":2}},"l":[{"at":1},{"at":2}]')


def test_number_too_long_for_python_in_an_unknown_field_is_not_ours_to_judge() -> None:
    topics.PRESENCE.decode(PRESENCE % (b',"x":' + b"9" * 5_000))


def test_largest_payload_is_taken() -> None:
    empty = PRESENCE % b',"x":""'
    filled = PRESENCE % (b',"x":"' + b"a" * (MAX_PAYLOAD_BYTES - len(empty)) + b'"')

    assert len(filled) == MAX_PAYLOAD_BYTES
    topics.PRESENCE.decode(filled)
    assert refusal(topics.PRESENCE, filled + b" ").code is Code.PAYLOAD_TOO_LARGE


def test_device_does_not_send_what_the_services_refuse() -> None:
    said = messages.GroupMessage(id=V7, incident=V5, text="x" * MAX_PAYLOAD_BYTES)
    with pytest.raises(Invalid, match="at most 16384"):
        encode_within_limit(said)
    assert encode_within_limit(EXAMPLES["report"]) == encode(EXAMPLES["report"])


def test_newer_device_may_send_fields_that_we_do_not_know() -> None:
    assert topics.REPORT.decode(report(smell="smoke")) == EXAMPLES["report"]


def test_the_field_of_a_refusal_names_nothing_of_the_senders() -> None:
    secret = {"id": [{"ann@example.org": float("nan")}], "ann": {"x": float("nan")}}
    assert refusal(topics.REPORT, report(**secret)).field == "$.id"
    twice = report(location="?").replace(b'"?"', b'{"lat": 1, "ann": 1, "ann": 2}')
    assert refusal(topics.REPORT, twice).field == "$.location.lon"


def test_refusal_repeats_no_more_of_the_message_than_a_receipt_holds() -> None:
    long = "x" * 16_000
    names = ", ".join(f'"{number}{"é" * 20}": 1' for number in range(300))
    for payload in (
        report(id=long),
        report(**{long: 1}, location=5),
        report(id={long: float("nan")}),
        PRESENCE[:-1] % b"" + f",{names},{PRESENCE[1:].decode()}".encode() % b"",
    ):
        refused = refusal(topics.REPORT, payload)
        assert len(refused.field) <= MAX_FIELD
        assert len(refused.reason) <= MAX_REASON
        assert len(refused.notes) <= MAX_NOTES
        assert all(len(note) <= MAX_NOTE for note in refused.notes)


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 17 + b'"' + b'\\"' * 8_000,
        b"[" * 17 + b'"' * 16_000,
        b"[" * 17 + b'"' + b"\\\\" * 8_000,
        b"[" * 16_000,
        b"[]" * 8_000,
        PRESENCE % (b',"x":"' + b"\\u0061" * 2_500 + b'","y":[' + b"[]," * 99 + b"[]]"),
    ],
    ids=repr,
)
def test_no_payload_takes_longer_than_its_length_allows(payload: bytes) -> None:
    started = time.process_time()
    for _ in range(5):
        try:
            topics.PRESENCE.decode(payload)
        except Invalid as refused:
            assert_explains(refused)
    # Five take 10 ms; a pattern that tried again from each quote took 1.7 s for one.
    assert time.process_time() - started < 1.0


def test_decoding_a_presence_takes_some_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    payload, rounds = encode(EXAMPLES["presence"]), 5_000
    started = time.perf_counter()
    for _ in range(rounds):
        topics.PRESENCE.decode(payload)
    spent_us = (time.perf_counter() - started) / rounds * 1e6

    with capsys.disabled():
        print(f"\n[decode of a Presence: {spent_us:.1f} µs]")  # noqa: T201
