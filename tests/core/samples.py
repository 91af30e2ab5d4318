"""Incidents and reports for the tests of decisions; times are minutes after `START`."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.core.grid import place_of, region_of
from broker.core.incidents import Incident, opened_by
from broker.core.placed_report import PlacedReport
from broker.core.policy import Policy
from schemas.ids import new_id
from schemas.messages import Mode, Position, Report
from schemas.taxonomy import Audience, Category, default_policy_text

POLICY = Policy.parse(default_policy_text())
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
KORENMARKT = Position(51.0543, 3.7217)
METRES_NORTH = 1 / 111_194.93  # degrees of latitude


def category(code: str = "fire") -> Category:
    found = POLICY.category(code)
    assert found is not None
    return found


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def north(metres: float, east: float = 0.0) -> Position:
    """The place so far from the Korenmarkt."""
    return Position(KORENMARKT.lat + metres * METRES_NORTH, KORENMARKT.lon + east * 1.6e-5)


def report(
    place: Position = KORENMARKT,
    minutes: float = 0,
    *,
    code: str = "fire",
    mode: Mode = Mode.REAL,
    identifier: UUID | None = None,
    **fields: Any,
) -> Report:
    return Report(
        id=identifier or new_id(),
        category=code,
        location=place,
        seen_at=at(minutes),
        mode=mode,
        **fields,
    )


def incident(
    place: Position = KORENMARKT,
    minutes: float = 0,
    *,
    code: str = "fire",
    mode: Mode = Mode.REAL,
    audience: Audience = Audience.POLICE_AND_NEARBY,
) -> Incident:
    return opened_by(placed(report(place, minutes, code=code, mode=mode), audience), at(minutes))


def placed(
    one: Report,
    audience: Audience = Audience.POLICE_AND_NEARBY,
    rule: Category | None = None,
    **others: Any,
) -> PlacedReport:
    """The report in zone and municipality «gent», with an audience in effect as given."""
    cell = place_of(one.location.lat, one.location.lon)
    usual: dict[str, Any] = {"cell": cell, "region": region_of(cell)}
    usual |= {"zone": "gent", "municipality": "gent"} | others
    return PlacedReport(
        report=one, category=rule or category(one.category), audience=audience, **usual
    )
