"""A time that is odd is read as exactly as it was written; an old one never looks new."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from schemas.codec import Code, Invalid
from schemas.ids import new_id
from tests.schemas.odd_messages import BASE, read, read_raw


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


@pytest.mark.parametrize("availability", [None, "available", "On-Duty"])
def test_a_place_whose_time_cannot_be_read_is_refused(availability: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        read("presence", at="yesterday", availability=availability)
    assert (refused.value.code, refused.value.field) == (Code.BAD_TIME, "$.at")
