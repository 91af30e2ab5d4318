"""A detail never costs a message: it is mended or left out, and its sender is told."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.cleaning import choices_of
from schemas.codec import Code, Invalid, encode, glance
from schemas.examples import AT, EXAMPLES, V5, V7
from schemas.ids import new_id
from schemas.messages import TAKES_ALERTS, Availability, EmergencyCall, Mode, Report
from schemas.taxonomy import Audience, Language

PLACE = {"lat": 51.05, "lon": 3.72}
BASE: dict[str, dict[str, Any]] = {
    "report": {"id": str(V7), "category": "fire", "location": PLACE, "seen_at": AT.isoformat()},
    "presence": {"at": AT.isoformat(), "location": PLACE},
    "reply": {"id": str(V7), "incident": str(V5), "kind": "accepted"},
    "message": {"id": str(V7), "incident": str(V5), "text": "hello"},
    "answer": {"id": str(V7), "question": str(V5), "text": "no"},
    "sync": {"since": AT.isoformat()},
    "command": {"id": str(V7), "incident": str(V5), "command": "inform", "by": "desk", "text": "x"},
}
TOPICS = {name: next(one for one in topics.TOPICS if one.name == name) for name in BASE}


def read(name: str, **changed: Any) -> tuple[Any, tuple[str, ...]]:
    return read_raw(name, json.dumps(BASE[name] | changed).encode())


def read_raw(name: str, payload: bytes) -> tuple[Any, tuple[str, ...]]:
    value, notes = TOPICS[name].read(payload)
    assert TOPICS[name].read(encode(value)) == (value, ())  # what comes out is well formed
    return value, notes


# -- what is said of each detail ------------------------------------------------------------------

CHOICES = "Expected one of"
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
    ("accuracy_m", "kept"),
    [
        ("-1", 0),
        ("null", 0),
        ("NaN", 0),
        ('"20"', 20),
        ('" 5000 m"', 5_000),
        ('"-1"', 0),
        ('"99999"', 10_000),
        ('"5 km"', 10_000),
        ('"5,000"', 10_000),
        ("true", 10_000),
        ("[5]", 10_000),
        ("65000", 10_000),
        ("Infinity", 10_000),
        ("-Infinity", 0),
        ("1e999", 10_000),
        ("9" * 5_000, 10_000),
    ],
    ids=lambda value: str(value)[:10],
)
def test_an_accuracy_that_is_none_costs_no_report(accuracy_m: str, kept: float) -> None:
    place = f'{{"lat": 51.05, "lon": 3.72, "accuracy_m": {accuracy_m}}}'
    wire = json.dumps(BASE["report"] | {"location": "?"}).replace('"?"', place)

    report, notes = read_raw("report", wire.encode())

    assert (report.location.lat, report.location.accuracy_m) == (51.05, kept)
    assert len(notes) == 1
    assert notes[0].startswith("location.accuracy_m: ")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ('"accuracyM": 5000', 5_000),
        ('"accuracy": "5000"', 5_000),  # as the browsers' Geolocation API has it
        ('"acuracy_m": 5000', 5_000),
        ('"accuracy_m": 5, "accuracy": 5000', 5_000),
        ('"accuracy_m": 5000, "accuracy_m": 5', 5_000),
        ('"accuracy_m": 5, "accuracy": "wide"', 10_000),
        ('"accuracy_m": 5, "altitudeAccuracy": null', 5),  # as browsers send it
        ('"accuracy_m": 5, "accuracy": null', 5),
        ('"accuracy_m": 5, "verticalAccuracy": -1', 5),  # as iOS does: of the height
        ('"horizontalAccuracy": 5000', 5_000),
        ('"horizontalAccuracy": -1', 10_000),  # iOS: the place is not valid
        ('"horizontalAccuracy": NaN', 10_000),
        ('"accuracyMeters": 5000', 5_000),
        ('"gps_accuracy": 5000', 5_000),
        ('"GPS-Accuracies": 5000', 5_000),
        ('"accuracyKm": 5', 5_000),
        ('"accuracyAuthorization": "reduced"', 10_000),
        ('"nauwkeurigheid": 5000', 5_000),
        ('"pr\u00e9cision": 5000', 5_000),
        ('"coords": {"accuracy": 5000}', 5_000),
        ('"accuracy": 5, "coords": [{"accuracy": 5000}]', 5_000),
        ('"gps_accuracy": 5000, "gps_accuracy": 5', 5_000),
    ],
)
def test_no_slip_makes_a_place_exact(said: str, kept: float) -> None:
    place = f'{{"lat": 51.05, "lon": 3.72, {said}}}'
    wire = json.dumps(BASE["report"] | {"location": "?"}).replace('"?"', place)
    report, notes = read_raw("report", wire.encode())
    assert report.location.accuracy_m == kept
    assert notes


@pytest.mark.parametrize("said", ["accuracy", "horizontalAccuracy", "gps_accuracies"])
def test_an_accuracy_beside_the_place_is_that_of_the_place(said: str) -> None:
    assert read("presence", **{said: 5_000})[0].location.accuracy_m == 5_000
    assert read("report", **{said: 5_000})[0].location.accuracy_m == 5_000


def test_an_accuracy_of_the_reporters_place_is_not_that_of_the_place() -> None:
    report, _ = read("report", reporter_location=PLACE | {"gpsAccuracy": 5_000})
    assert (report.location.accuracy_m, report.reporter_location.accuracy_m) == (0, 5_000)


WITHDRAWN: list[dict[str, Any]] = [
    {"availability_status": "muted"},
    {"available": False},
    {"status": "muted"},
    {"muted": True},
    {"isMuted": True},
    {"away": True},
    {"state": " Away "},
    {"alerts": "OFF"},
    {"AVAILABILITIES": ["muted"]},
    {"flags": ["muted"]},
    {"muted": "yes"},
    {"mutedUntil": "2026-03-01T12:00:00Z"},
    {"unavailable": True},
    {"avaliable": False},
    {"location": PLACE | {"availability": "muted"}},
    {"location": PLACE | {"muted": True}},
    {"location": PLACE | {"status": "away"}},
    {"user": {"settings": [{"available": False}]}},
    {"availability": "available", "muted": True},
    {"availability": "on_duty", "availabilityStatus": "away"},
    {"availability": None, "muted": True},
    {"location": None, "muted": True},
    {"at": "now", "muted": True},
    {"at": "now", "location": PLACE | {"muted": True}},
]


@pytest.mark.parametrize("said", WITHDRAWN, ids=str)
def test_a_withdrawal_counts_under_whatever_name(said: dict[str, Any]) -> None:
    presence, notes = read("presence", **said)

    assert presence.availability not in TAKES_ALERTS
    assert notes[0].startswith("unknown field '")
    assert "'availability'? It was read so." in notes[0]


@pytest.mark.parametrize(
    "said",
    [
        {"available": True},
        {"muted": False},
        {"unavailable": False},
        {"muted": None},
        {"away": False},
        {"availabilityStatus": "Available"},
        {"commute": "bike"},
        {"status": "walking"},
    ],
    ids=str,
)
def test_what_does_not_withdraw_leaves_a_presence_as_it_is_and_is_told(said: Any) -> None:
    for availability in ("available", None):
        presence, notes = read("presence", availability=availability, **said)
        assert presence.availability is Availability.AVAILABLE
        assert notes


def test_a_report_of_one_who_is_muted_is_a_report() -> None:
    assert read("report", status="muted", muted=True)[0] == read("report")[0]


def test_a_report_without_a_readable_time_was_seen_when_its_id_was_made() -> None:
    before = datetime.now(UTC)
    fields = BASE["report"] | {"id": str(new_id())}
    for seen_at in ("yesterday", "2026-02-30T12:00:00Z", None):
        report, notes = read("report", **fields | {"seen_at": seen_at})
        assert abs(report.seen_at - before).total_seconds() < 10
        assert notes[0].startswith("seen_at: ")
    del fields["seen_at"]
    report, notes = read_raw("report", json.dumps(fields).encode())
    assert abs(report.seen_at - before).total_seconds() < 10
    assert notes[0].startswith("seen_at: missing. Read as ")


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


# -- names ---------------------------------------------------------------------------------------


def test_unknown_fields_are_told_and_the_likely_slip_first() -> None:
    report, notes = read("report", smell="smoke", reporter_loc=PLACE, languag="fr")

    assert report == TOPICS["report"].decode(json.dumps(BASE["report"]).encode())
    assert notes == (
        "unknown field 'reporter_loc': did you mean 'reporter_location'?",
        "unknown field 'languag': did you mean 'language'?",
        "unknown field 'smell': ignored",
    )


def test_unknown_field_inside_a_position_is_told_with_its_path() -> None:
    assert read("report", location=PLACE | {"acuracy_m": 5, "speed": 3})[1] == (
        "unknown field 'location.acuracy_m': did you mean 'accuracy_m'? It was read so.",
        "unknown field 'location.speed': ignored",
    )


@pytest.mark.parametrize(
    ("name", "value", "audience"),
    [
        ("audiance", "police", Audience.POLICE),
        ("Audience", "police", Audience.POLICE),
        ("targetAudience", "police", Audience.POLICE),
        ("target_audience", "residents", Audience.POLICE),
        ("audience-type", 3, Audience.POLICE),
        ("intendedAudience", ["Restricted"], Audience.POLICE),
        ("TargetAudience", "Police and nearby", Audience.POLICE_AND_NEARBY),
        ("audiense", "me", Audience.POLICE),
        ("audienc", "police_and_nearby", Audience.POLICE_AND_NEARBY),
        ("targetaudience", "police", Audience.POLICE),
        ("intendedAudiences", "police", Audience.POLICE),
        ("audiences", ["police"], Audience.POLICE),
        ("TARGET_AUDIENCES", {"kind": "police"}, Audience.POLICE),
    ],
)
def test_a_misspelt_audience_never_alerts_more_people_than_was_meant(
    name: str, value: str, audience: Audience
) -> None:
    report, notes = read("report", **{name: value})

    assert report.audience is audience
    assert notes[0] == f"unknown field '{name}': did you mean 'audience'? It was read so."


def test_an_audience_elsewhere_in_the_message_counts() -> None:
    for elsewhere in (
        {"location": PLACE | {"audience": "police"}},
        {"reporter_location": PLACE | {"targetaudience": "police"}},
        {"meta": {"audience": "police"}},
        {"audience": "police_and_nearby", "meta": {"x": [{"audience": "police"}]}},
    ):
        report, notes = read("report", **elsewhere)
        assert report.audience is Audience.POLICE
        assert any("did you mean 'audience'? It was read so." in note for note in notes)


@pytest.mark.parametrize("hours", [2, 13, 40])
@pytest.mark.parametrize(
    "written",
    [
        lambda at: at.timestamp(),
        lambda at: int(at.timestamp()),
        lambda at: str(int(at.timestamp())),
        lambda at: int(at.timestamp() * 1e3),
        lambda at: int(at.timestamp() * 1e6),
        lambda at: int(at.timestamp() * 1e9),
        lambda at: at.isoformat(),
        lambda at: at.isoformat(" "),
        lambda at: at.astimezone(timezone(timedelta(hours=-11))).isoformat(" "),
        lambda at: f" {at.astimezone(timezone(timedelta(hours=13))):%Y%m%dT%H%M%S%z} ",
    ],
)
def test_a_time_that_says_its_offset_is_taken_exactly(written: Any, hours: int) -> None:
    seen = datetime.now(UTC) - timedelta(hours=hours)
    fields = BASE["report"] | {"id": str(new_id()), "seen_at": written(seen)}

    assert abs(read("report", **fields)[0].seen_at - seen) < timedelta(seconds=2)


def test_a_time_without_offset_has_the_benefit_of_14_hours() -> None:
    now = datetime.now(UTC)
    for hours in (2, 13, -2):
        written = (now - timedelta(hours=hours)).isoformat()[:19]
        fields = BASE["report"] | {"id": str(new_id()), "seen_at": written}
        assert abs(read("report", **fields)[0].seen_at - now) < timedelta(seconds=10)


@pytest.mark.parametrize("written", [lambda at: at.isoformat()[:19], lambda at: at.timestamp()])
def test_a_time_that_is_odd_and_plainly_old_does_not_become_now(written: Any) -> None:
    seen = datetime.now(UTC) - timedelta(days=5)
    fields = BASE["report"] | {"id": str(new_id()), "seen_at": written(seen)}

    report, notes = read("report", **fields)

    assert timedelta(days=4) < datetime.now(UTC) - report.seen_at < timedelta(days=7)
    assert notes[0].startswith("seen_at: ")


@pytest.mark.parametrize(
    "written",
    [
        {"audience": "police_and_nearby", "Audience": "police"},
        {"Audience": "police_and_nearby", "AUDIENCE": "police"},
        {"audiance": "police_and_nearby", "audiense": "police"},
        {"audience": "police_and_nearby", "targetAudience": "everybody"},
    ],
)
def test_an_audience_that_is_said_twice_and_differs_is_the_polices(written: dict[str, str]) -> None:
    assert read("report", **written)[0].audience is Audience.POLICE


def test_a_misspelt_availability_is_read_and_an_audience_that_is_there_is_not_overruled() -> None:
    assert read("presence", availabilty="muted")[0].availability is Availability.MUTED
    report, notes = read("report", audience="police", audiance="police_and_nearby")
    assert report.audience is Audience.POLICE
    assert notes[0].startswith("unknown field 'audiance': did you mean 'audience'?")


def test_a_name_in_another_style_is_read() -> None:
    fields = {
        "seenAt" if name == "seen_at" else name: value for name, value in BASE["report"].items()
    }
    wire = json.dumps(fields | {"emergencyCall": "called"}).encode()

    report, notes = read_raw("report", wire)

    assert (report.seen_at, report.emergency_call) == (AT, EmergencyCall.CALLED)
    assert len(notes) == 2


def test_what_a_reader_is_told_of_a_contradiction_is_a_plain_sentence() -> None:
    wire = encode(EXAMPLES["alert"])[:-1] + b',"reason":"other"}'

    alert, notes = topics.ALERT.read(wire)

    assert alert.reason == "other"
    assert notes == ("reason: what stands there was read as 'other'",)


def test_values_that_contradict_each_other_restrict() -> None:
    wire = json.dumps(BASE["report"])[:-1] + ',"audience":"police_and_nearby","audience":"police"}'

    assert read_raw("report", wire.encode())[0].audience is Audience.POLICE


# -- whatever it is ------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OPTIONAL = sorted(
    {field.name for field in msgspec.structs.fields(Report)} - {"id", "category", "location"}
)


@settings(max_examples=300)
@given(
    odd=st.dictionaries(st.sampled_from(OPTIONAL) | st.text(max_size=12), values, max_size=4),
    accuracy_m=values,
)
def test_no_detail_costs_a_report(odd: dict[str, Any], accuracy_m: Any) -> None:
    needed = BASE["report"] | {"location": PLACE | {"accuracy_m": accuracy_m}}
    needed |= {name: needed[name] for name in ("id", "category", "location")}

    report, _ = read_raw(
        "report",
        json.dumps(
            odd
            | {
                name: value
                for name, value in needed.items()
                if name not in odd or name not in OPTIONAL
            }
        ).encode(),
    )

    assert (report.id, report.category, report.location.lat) == (V7, "fire", 51.05)
    if "audience" in odd and odd["audience"] not in ("police_and_nearby", None):
        assert report.audience is Audience.POLICE


styles = st.sampled_from([str.lower, str.upper, str.title, lambda name: name.replace("_", "")])
around = st.text(alphabet="abcdefgh", max_size=4)
unreadable = st.integers() | st.text(max_size=6) | st.lists(st.none(), max_size=2)


@given(style=styles, before=around, after=around, deep=st.integers(0, 3), data=st.data())
def test_no_odd_presence_is_more_alertable_or_exact_than_its_most_private_word(
    *, style: Any, before: str, after: str, deep: int, data: st.DataObject
) -> None:
    def hidden(name: str, value: object) -> dict[str, Any]:
        found: dict[str, Any] = {style(f"{before}_{name}_{after}s"): value}
        for _ in range(deep):
            found = {"inner": found}
        return found

    inexact_m = data.draw(st.floats(0, 10_000))
    exact = PLACE | {"accuracy_m": 5} | hidden("accuracy", inexact_m)
    beside, _ = read("presence", **hidden("horizontal_accuracy", inexact_m))
    inside, _ = read("presence", location=exact)
    assert beside.location.accuracy_m == inexact_m
    assert inside.location.accuracy_m == max(5, inexact_m)

    said = data.draw(st.sampled_from(["muted", "away", "off", "MUTED"]) | unreadable)
    name = data.draw(st.sampled_from(["availability", "available_now", "mute"]))
    if said in ("available", "on_duty"):
        return
    known = {"availability": data.draw(st.sampled_from(["available", "on_duty"]))}
    for fields in (hidden(name, said), known | hidden(name, said)):
        assert read("presence", **fields)[0].availability not in TAKES_ALERTS
        assert read("presence", location=PLACE | fields)[0].availability not in TAKES_ALERTS


@pytest.mark.parametrize("name", ["message", "answer"])
@pytest.mark.parametrize("text", [None, "", "\u200e\r"[:1], 5])
def test_a_message_that_says_nothing_is_refused(name: str, text: object) -> None:
    with pytest.raises(Invalid) as refused:
        read(name, text=text)
    assert refused.value.field == "$.text"
    assert refused.value.code in (Code.WRONG_TYPE, Code.OUT_OF_RANGE)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "language"),
    [
        (b'{"language": "fr-BE"', Language.FR),
        (b'{"language":"en","id":', Language.EN),
        (b'{"language": "xx"}', None),
        (b"", None),
        (b"[" * 9_000, None),
        (b"[5]", None),
        (b'{"language": ["fr"]}', None),
        (b'{"text": "' + b"x" * 20_000 + b'"}', None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_language_of_a_refused_report_is_read_if_it_can_be(
    payload: bytes, language: Language | None
) -> None:
    assert glance(payload).language is language


@given(payload=st.binary(max_size=300))
def test_anything_can_be_glanced_at(payload: bytes) -> None:
    glance(payload)


def test_what_is_refused_is_glanced_at_by_its_own_id() -> None:
    whole = {"by": {"id": str(V5)}, "id": str(V7), "category": "Fire", "x": 1}

    assert glance(json.dumps(whole).encode()) == (V7, None, "fire")
    assert glance(encode(EXAMPLES["report"])[:-1])[:2] == (V7, Language.FR)


@pytest.mark.parametrize("availability", [None, "available", "On-Duty"])
def test_a_place_whose_time_cannot_be_read_is_refused(availability: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        read("presence", at="yesterday", availability=availability)
    assert (refused.value.code, refused.value.field) == (Code.BAD_TIME, "$.at")
