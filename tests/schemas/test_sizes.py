"""The largest that a device or desk may be sent, in bytes, as docs/protocol.md has it."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.alerts import brief_of
from broker.core.policy import Policy
from schemas import messages as m
from schemas.cleaning import MAX_NOTE, MAX_NOTES
from schemas.codec import MAX_PAYLOAD_BYTES, Code, encode
from schemas.taxonomy import (
    CATEGORY_PATTERN,
    Audience,
    Language,
    Priority,
    Urgency,
    default_policy_text,
)
from schemas.validation_errors import MAX_FIELD, MAX_REASON, Invalid, sayable

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
POLICY = Policy.parse(default_policy_text())

AT = datetime(2026, 12, 31, 23, 59, 59, 123_456, tzinfo=UTC)
ID = UUID(int=2**128 - 1)
PLACE = m.Position(-89.12345678901234, -179.1234567890123, 9_999.123456789012)
NUMBER = 9_999_999  # of people, reports, commits: more than any city has
TEXT = "\U0001f692" * 2_000  # four bytes each
NAME = "reporter-9999999"


def longest(values: object) -> str:
    return max(map(str, values), key=lambda text: len(text.encode()))  # type: ignore[call-overload, no-any-return]


CODE = longest(POLICY.codes)
NAMES = max(
    (category.names for category in POLICY.file.categories.values()), key=lambda n: len(encode(n))
)
ADVICE = longest([POLICY.advice.nl, POLICY.advice.fr, POLICY.advice.en])
NOTES = ("x" * MAX_NOTE,) * MAX_NOTES
LEVEL = "x" * 40

ACCEPTED = m.Receipt(
    subject=m.Subject.REPORT,
    outcome=m.Outcome.ACCEPTED,
    at=AT,
    id=ID,
    incident=ID,
    merge=m.Merge.OPENED,
    sequence=NUMBER,
    advice=ADVICE,
)
LARGEST: dict[str, msgspec.Struct] = {
    "receipt, accepted": ACCEPTED,
    "receipt, accepted with notes": msgspec.structs.replace(ACCEPTED, notes=NOTES),
    "receipt, rejected": m.Receipt(
        subject=m.Subject.REPORT,
        outcome=m.Outcome.REJECTED,
        at=AT,
        id=ID,
        advice=ADVICE,
        code=Code(longest(Code)),
        field="x" * MAX_FIELD,
        reason="x" * MAX_REASON,
        notes=NOTES,
    ),
    "brief": m.Brief(
        id=ID,
        incident=ID,
        category=LEVEL,
        lat=-89.12345,
        lon=-179.12345,
        expires_at=AT.replace(microsecond=0),
        call="112",
        mode=m.Mode.DRILL,
    ),
    "alert": m.Alert(
        id=ID,
        incident=ID,
        wave=10,
        reason=m.AlertReason.WALKED_IN,
        category=CODE,
        names=NAMES,
        urgency=Urgency.ROUTINE,
        location=PLACE,
        radius_m=20_000.0,
        opened_at=AT,
        seen_at=AT,
        expires_at=AT,
        advice=POLICY.advice,
        text=TEXT,
        mode=m.Mode.DRILL,
    ),
    "group": m.GroupEvent(
        id=ID,
        incident=ID,
        sequence=NUMBER,
        kind=m.GroupEventKind.JOINED,
        at=AT,
        member=NAME,
        role=m.GroupRole(longest(m.GroupRole)),
        members=NUMBER,
        eta_s=86_400,
        on_scene=NUMBER,
        text=TEXT,
        you=NAME,
    ),
    "question": m.Question(id=ID, incident=ID, report=ID, text=TEXT, asked_at=AT),
    "escalation": m.Escalation(
        id=ID,
        kind=m.EscalationKind.OVERDUE,
        incident=ID,
        version=NUMBER,
        zone=LEVEL,
        priority=Priority.P3,
        category=CODE,
        location=PLACE,
        committed_at=AT,
        report=ID,
        seen_at=AT,
        text=TEXT,
        emergency_call=m.EmergencyCall.NOT_CALLED,
        audience=Audience.POLICE,
        language=Language.FR,
        reporter_location=PLACE,
        reports=NUMBER,
        attempt=20,
        question=ID,
        mode=m.Mode.DRILL,
    ),
    "case": m.Case(
        id=ID,
        incident=ID,
        report=ID,
        version=NUMBER,
        municipality=LEVEL,
        category=CODE,
        location=PLACE,
        seen_at=AT,
        committed_at=AT,
        text=TEXT,
        language=Language.FR,
        reports=NUMBER,
        message=ID,
        mode=m.Mode.DRILL,
    ),
}


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_payload_is_as_documented(name: str) -> None:
    size = len(encode(LARGEST[name]))

    assert f"| {name} | {size:,} |" in PROTOCOL.read_text(encoding="utf-8")
    assert size <= MAX_PAYLOAD_BYTES


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_payload_has_every_field_that_its_kind_may_have(name: str) -> None:
    kind = name.partition(",")[0]
    told = set().union(
        *(
            msgspec.json.decode(encode(one))
            for other, one in LARGEST.items()
            if other.partition(",")[0] == kind
        )
    )
    assert {field.encode_name for field in msgspec.structs.fields(type(LARGEST[name]))} <= told


@given(
    category=st.from_regex(re.compile(CATEGORY_PATTERN, re.ASCII), fullmatch=True),
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180).filter(bool),
    expires_at=st.datetimes(timezones=st.just(UTC)),
    mode=st.sampled_from(m.Mode),
)
def test_a_brief_has_less_than_256_bytes_whatever_the_policy(
    category: str, lat: float, lon: float, *, expires_at: datetime, mode: m.Mode
) -> None:
    alert = LARGEST["alert"]
    assert isinstance(alert, m.Alert)
    brief = brief_of(
        msgspec.structs.replace(
            alert,
            category=category,
            location=m.Position(lat, lon),
            expires_at=expires_at,
            mode=mode,
        )
    )

    assert len(encode(brief)) < 256
    assert (brief.id, brief.call) == (alert.id, "112")
    assert abs(brief.lat - lat) <= 6e-6


@given(text=st.text(), limit=st.integers(3, 60))
def test_what_a_receipt_repeats_is_bounded_in_bytes(text: str, limit: int) -> None:
    said = sayable(text, limit)

    assert len(msgspec.json.encode(said)) - 2 <= limit
    assert Invalid(Code.NOT_JSON, "$", "x" * 5_000).reason.endswith("…")
