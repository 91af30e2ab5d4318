"""What follows from a report's category and place: whom it reaches, on which grid cell, whose zone."""

import h3.api.basic_int as h3
import msgspec
import pytest

from broker.core.grid import PLACE_RESOLUTION, region_of
from broker.core.placed_report import PlacedReport, placed
from broker.core.zones import UNASSIGNED, Zone, ZoneIndex, ZoneKind
from schemas.taxonomy import Audience
from tests.core.samples import KORENMARKT, category, north, report

CELL = h3.latlng_to_cell(KORENMARKT.lat, KORENMARKT.lon, PLACE_RESOLUTION)


def _index(identifier: str, kind: ZoneKind) -> ZoneIndex:
    return ZoneIndex([Zone(identifier, identifier, kind, (h3.cell_to_parent(CELL, 8),))])


POLICE = _index("gent", ZoneKind.POLICE)
MUNICIPALITY = _index("44021", ZoneKind.MUNICIPALITY)


def test_a_report_has_the_cell_region_zone_and_municipality_of_its_place() -> None:
    one, fire = report(), category("fire")
    found = placed(one, fire, police=POLICE, municipality=MUNICIPALITY)
    assert found.report is one
    assert found.category is fire
    assert found.cell == CELL
    assert found.region == region_of(CELL)
    assert (found.zone, found.municipality) == ("gent", "44021")


def test_who_is_outside_every_zone_is_still_placed() -> None:
    found = placed(report(north(5_000)), category(), police=POLICE, municipality=MUNICIPALITY)
    assert (found.zone, found.municipality) == (UNASSIGNED, UNASSIGNED)
    assert found.cell != CELL


@pytest.mark.parametrize("asked", [*Audience])
@pytest.mark.parametrize("of_category", [*Audience])
def test_the_narrower_of_both_audiences_is_in_effect(
    asked: Audience, of_category: Audience
) -> None:
    kind = msgspec.structs.replace(category(), audience=of_category)
    one = report(audience=asked)
    found = placed(one, kind, police=POLICE, municipality=MUNICIPALITY)
    is_open = Audience.POLICE not in (asked, of_category)
    assert (found.audience == Audience.POLICE_AND_NEARBY) == is_open


def test_nothing_changes_it_and_nothing_is_given_by_place() -> None:
    found = placed(report(), category(), police=POLICE, municipality=MUNICIPALITY)
    with pytest.raises(AttributeError):
        found.cell = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        PlacedReport(*msgspec.structs.astuple(found))  # type: ignore[call-arg]
