"""Unknown names and contradictions are told; whatever else it has, a report with what it needs is read."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import topics
from schemas.codec import Code, Invalid, encode
from schemas.examples import AT, EXAMPLES, V7
from schemas.messages import EmergencyCall, Report
from schemas.taxonomy import Audience
from tests.schemas.odd_messages import BASE, PLACE, TOPICS, read, read_raw


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


@pytest.mark.parametrize("name", ["message", "answer"])
@pytest.mark.parametrize("text", [None, "", "\u200e\r"[:1], 5])
def test_a_message_that_says_nothing_is_refused(name: str, text: object) -> None:
    with pytest.raises(Invalid) as refused:
        read(name, text=text)
    assert refused.value.field == "$.text"
    assert refused.value.code in (Code.WRONG_TYPE, Code.OUT_OF_RANGE)
