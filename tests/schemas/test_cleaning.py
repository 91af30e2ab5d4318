"""A detail never costs a message: it is repaired or left out, and the sender is told."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from schemas import topics
from schemas.cleaning import choices_of
from schemas.codec import Code, Invalid
from schemas.examples import V5
from schemas.messages import Availability, EmergencyCall, Mode, Report
from schemas.taxonomy import Audience, Language
from tests.schemas.odd_messages import BASE, read, read_raw

CHOICES = "Expected one of"
IDS = [str(UUID(int=number)) for number in range(1, 202)]

COUNTS_AS_NOW = datetime(1970, 1, 1, tzinfo=UTC)

DETAILS: list[tuple[str, dict[str, Any], str, Any, str]] = [
    (
        "report",
        {"text": "a\r\nb\rc\u2028d"},
        "text",
        "a\nb\nc\nd",
        r"text: its line breaks were made \n",
    ),
    (
        "report",
        {"text": "\ufeff\u2067a\u2069\u200e\u200f\u202ab\u202c\ud800\x00"},
        "text",
        "ab",
        "text: 9 control characters or direction marks were left out",
    ),
    ("report", {"text": None}, "text", "", "text: null was read as not given"),
    (
        "report",
        {"text": 5},
        "text",
        "",
        "text: Expected a string, got a whole number. It was left out.",
    ),
    (
        "report",
        {"text": "x" * 2_345},
        "text",
        "x" * 2_000,
        "text: of its 2345 characters the first 2000 were kept",
    ),
    (
        "report",
        {"language": "nl-BE"},
        "language",
        Language.NL,
        "language: 'nl-BE' was read as 'nl'",
    ),
    (
        "report",
        {"language": "fr_FR.UTF-8"},
        "language",
        Language.FR,
        "language: 'fr_FR.UTF-8' was read as 'fr'",
    ),
    (
        "report",
        {"language": "de"},
        "language",
        Language.NL,
        f"language: {CHOICES} nl, fr, en, got 'de'. Read as nl.",
    ),
    ("report", {"language": None}, "language", Language.NL, "language: null was read as not given"),
    (
        "report",
        {"emergency_call": "maybe"},
        "emergency_call",
        EmergencyCall.UNKNOWN,
        f"emergency_call: {CHOICES} called, not_called, unknown, got 'maybe'. Read as unknown.",
    ),
    (
        "report",
        {"emergency_call": "Not Called"},
        "emergency_call",
        EmergencyCall.NOT_CALLED,
        "emergency_call: 'Not Called' was read as 'not_called'",
    ),
    (
        "report",
        {"audience": "everybody"},
        "audience",
        Audience.POLICE,
        f"audience: {CHOICES} police, police_and_nearby, got 'everybody'. Read as police.",
    ),
    (
        "report",
        {"audience": ["police"]},
        "audience",
        Audience.POLICE,
        f"audience: {CHOICES} police, police_and_nearby. Read as police.",
    ),
    (
        "report",
        {"audience": None},
        "audience",
        Audience.POLICE_AND_NEARBY,
        "audience: null was read as not given",
    ),
    (
        "report",
        {"mode": "exercise"},
        "mode",
        Mode.REAL,
        f"mode: {CHOICES} real, drill, got 'exercise'. Read as real.",
    ),
    ("report", {"mode": "DRILL"}, "mode", Mode.DRILL, "mode: 'DRILL' was read as 'drill'"),
    (
        "report",
        {"category": "Missing Person"},
        "category",
        "missing-person",
        "category: 'Missing Person' was read as 'missing-person'",
    ),
    (
        "report",
        {"reporter_location": {"lat": 0, "lon": 0}},
        "reporter_location",
        None,
        "reporter_location: The position is (0, 0): a device without a fix, not a place. It was left out.",
    ),
    (
        "report",
        {"reporter_location": {"lat": "51", "lon": 3}},
        "reporter_location",
        None,
        "reporter_location.lat: Expected a number, got a string. It was left out.",
    ),
    (
        "report",
        {"seen_at": "2026-03-01T23:59:60Z"},
        "seen_at",
        datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC),
        "seen_at: '2026-03-01T23:59:60Z' was read as 2026-03-01T23:59:59+00:00",
    ),
    (
        "report",
        {"seen_at": "20260301T130000+0100"},
        "seen_at",
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        "seen_at: '20260301T130000+0100' was read as 2026-03-01T13:00:00+01:00",
    ),
    ("reply", {"eta_s": 120.0}, "eta_s", 120, "eta_s: 120.0 was read as 120"),
    ("reply", {"eta_s": 119.7}, "eta_s", 120, "eta_s: 119.7 was read as 120"),
    ("reply", {"eta_s": 90_000}, "eta_s", 86_400, "eta_s: 90000 was bounded to 86400"),
    ("reply", {"eta_s": "90"}, "eta_s", 90, "eta_s: '90' was read as 90"),
    (
        "reply",
        {"eta_s": "soon"},
        "eta_s",
        None,
        "eta_s: Expected a whole number or null, got a string. It was left out.",
    ),
    (
        "reply",
        {"eta_s": -1},
        "eta_s",
        None,
        "eta_s: Expected a number of at least 0. It was left out.",
    ),
    ("reply", {"kind": "On-Scene"}, "kind", "on_scene", "kind: 'On-Scene' was read as 'on_scene'"),
    (
        "presence",
        {"availability": "dnd"},
        "availability",
        Availability.MUTED,
        f"availability: {CHOICES} on_duty, available, muted, away, got 'dnd'. Read as muted.",
    ),
    (
        "presence",
        {"availability": "Muted", "at": "yesterday"},
        "at",
        COUNTS_AS_NOW,
        "at: Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z). It counts as now.",
    ),
    (
        "presence",
        {"availability": "dnd", "at": [1]},
        "at",
        COUNTS_AS_NOW,
        "at: Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z), got an array. It counts as now.",
    ),
    (
        "presence",
        {"availability": "away", "at": None},
        "at",
        COUNTS_AS_NOW,
        "at: Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z), got null. It counts as now.",
    ),
    (
        "presence",
        {"availability": "muted", "location": {"lat": 0, "lon": 0}},
        "location",
        None,
        "location: The position is (0, 0): a device without a fix, not a place. It was left out.",
    ),
    ("message", {"text": "a\r\nb"}, "text", "a\nb", r"text: its line breaks were made \n"),
    (
        "answer",
        {"text": "\u200fja"},
        "text",
        "ja",
        "text: 1 control characters or direction marks were left out",
    ),
    ("sync", {"alerts": ["x", str(V5)]}, "alerts", {V5}, "alerts: of 2 ids 1 were read"),
    ("sync", {"alerts": None}, "alerts", set(), "alerts: null was read as not given"),
    (
        "sync",
        {"alerts": IDS},
        "alerts",
        {*map(UUID, IDS[:200])},
        "alerts: of 201 ids 200 were read",
    ),
    (
        "sync",
        {"groups": {str(V5): [1, "x"], "y": [2]}},
        "groups",
        {V5: {1}},
        "groups: what was not read of 2 groups comes again",
    ),
    (
        "command",
        {"by": "x" * 70},
        "by",
        "x" * 60,
        "by: of its 70 characters the first 60 were kept",
    ),
    (
        "command",
        {"by": "a\x1b[2J"},
        "by",
        "a[2J",
        "by: 1 control characters or direction marks were left out",
    ),
    (
        "command",
        {"text": "y" * 2_001},
        "text",
        "y" * 2_000,
        "text: of its 2001 characters the first 2000 were kept",
    ),
    (
        "command",
        {"command": "assign", "unit": "\u2066gent-21\u2069"},
        "unit",
        "gent-21",
        "unit: 2 control characters or direction marks were left out",
    ),
    (
        "command",
        {"command": "Close", "outcome": "z" * 501},
        "outcome",
        "z" * 500,
        "outcome: of its 501 characters the first 500 were kept",
    ),
]


@pytest.mark.parametrize(
    ("name", "changed", "field", "value", "note"),
    DETAILS,
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_an_odd_detail_is_mended_or_left_out_and_told(
    name: str, changed: dict[str, Any], field: str, *, value: Any, note: str
) -> None:
    cleaned, notes = read(name, **changed)

    assert getattr(cleaned, field) == value
    assert note in notes


@pytest.mark.parametrize(
    "text", ["tab\tand\nnewline", "emoji 👩‍🚒", "\u05d0\u05d1", "naïve", "می‌خواهم"]
)
@pytest.mark.parametrize("as_ascii", [True, False])
def test_text_of_every_language_is_kept_as_it_is(text: str, *, as_ascii: bool) -> None:
    wire = json.dumps(BASE["message"] | {"text": text}, ensure_ascii=as_ascii).encode()

    assert read_raw("message", wire)[0].text == text
    assert read_raw("message", wire)[1] == ()


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b'{%s,"text":"a\x07\r\nb"}', "a\nb"),
        (b'\xef\xbb\xbf{%s,"text":"a"}', "a"),
        (b'{%s,"text":"a"}\0', "a"),
        (b'{%s,"text":"caf\xe9"}', "caf\ufffd"),
        (b'{%s,"text":"a","text":"b"}', "a\nb"),
    ],
)
def test_what_lax_writers_write_is_read(wire: bytes, text: str) -> None:
    fields = json.dumps(BASE["report"])[1:-1].encode()

    assert read_raw("report", wire % fields)[0].text == text


def test_a_desks_word_counts_for_the_ids_that_can_be_read() -> None:
    delivered, notes = topics.DESK_DELIVERED.read(json.dumps({"ids": ["x", str(V5)]}).encode())
    assert (delivered.ids, notes) == ({V5}, ("ids: of 2 ids 1 were read",))
    with pytest.raises(Invalid, match="Expected an array that is not empty"):
        topics.DESK_DELIVERED.read(b'{"ids": ["x"]}')


@pytest.mark.parametrize(
    ("lat", "code"),
    [
        ("NaN", Code.NOT_FINITE),
        ("[NaN]", Code.NOT_FINITE),
        ("[51, [-Infinity]]", Code.NOT_FINITE),
        ('{"a": 1, "a": 2}', Code.DUPLICATE_KEY),
        ('[51, {"a": 1, "a": 2}]', Code.DUPLICATE_KEY),
        ("[51]", Code.WRONG_TYPE),
    ],
)
def test_what_json_does_not_have_is_named_also_within_an_array(lat: str, code: Code) -> None:
    wire = json.dumps(BASE["report"] | {"location": "?"})
    with pytest.raises(Invalid) as refused:
        read_raw("report", wire.replace('"?"', f'{{"lat": {lat}, "lon": 3.72}}').encode())
    assert (refused.value.code, refused.value.field) == (code, "$.location.lat")


def test_a_choice_that_does_not_say_how_it_is_mended_is_needed() -> None:
    class Plain(msgspec.Struct, frozen=True):
        mode: Mode

    assert {name: one.needed for name, one in choices_of(Plain).items()} == {"mode": True}
    assert not choices_of(Report)["mode"].needed
