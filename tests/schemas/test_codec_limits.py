"""What a payload may hold: depth, repeated keys, size, and the time that it may take."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import messages, topics
from schemas.cleaning import MAX_NOTE, MAX_NOTES
from schemas.codec import MAX_DEPTH, MAX_PAYLOAD_BYTES, Code, Invalid, encode, encode_within_limit
from schemas.examples import EXAMPLES, V5, V7
from schemas.validation_errors import MAX_FIELD, MAX_REASON
from tests.schemas.refused_messages import assert_explains, refusal, report, values

PRESENCE = b'{"at":"2026-03-01T12:00:00Z","location":{"lat":51.0,"lon":3.7}%s}'


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
