"""What may restrict (audience, availability, accuracy) is read towards the private side, under any name."""

import difflib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import TAKES_ALERTS, Availability
from schemas.taxonomy import Audience
from tests.schemas.odd_messages import BASE, PLACE, read, read_raw


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
    {"mutd": True},
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
    {"availability": "on_duty", "Availability": True},
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


@pytest.mark.parametrize(
    ("name", "unknown_before", "audience"),
    [
        ("audiance", 99, Audience.POLICE),
        ("audiance", 100, Audience.POLICE_AND_NEARBY),
        ("targetaudience", 900, Audience.POLICE),
        ("AUDIENCE", 900, Audience.POLICE),
    ],
)
def test_a_message_of_very_many_names_is_read_quickly_and_one_that_says_audience_still_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, unknown_before: int, audience: Audience
) -> None:
    similar, compared = difflib.get_close_matches, []

    def counted(word: str, *arguments: Any, **named: Any) -> list[str]:
        compared.append(word)
        return similar(word, *arguments, **named)

    monkeypatch.setattr(difflib, "get_close_matches", counted)

    report, _ = read(
        "report", **{f"x{number}": 1 for number in range(unknown_before)}, **{name: "police"}
    )

    assert report.audience is audience
    assert len(compared) <= 250  # of two fields that restrict for each of 100, and for typos


def test_a_long_array_is_one_name_so_that_a_misspelt_name_after_it_still_counts() -> None:
    report, _ = read("report", marks=[1] * 500, location=PLACE | {"accuacy_m": "5000"})
    assert report.location.accuracy_m == 5_000
    presence, _ = read("presence", tags=[[0] * 50] * 10, avaliable=False)
    assert presence.availability not in TAKES_ALERTS


def test_a_misspelt_availability_is_read_and_an_audience_that_is_there_is_not_overruled() -> None:
    assert read("presence", availabilty="muted")[0].availability is Availability.MUTED
    report, notes = read("report", audience="police", audiance="police_and_nearby")
    assert report.audience is Audience.POLICE
    assert notes[0].startswith("unknown field 'audiance': did you mean 'audience'?")


def test_values_that_contradict_each_other_restrict() -> None:
    wire = json.dumps(BASE["report"])[:-1] + ',"audience":"police_and_nearby","audience":"police"}'

    assert read_raw("report", wire.encode())[0].audience is Audience.POLICE


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
