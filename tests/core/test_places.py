"""Distances, cells, zones and coordinate systems, with values that were worked out by hand."""

import json
import math
from typing import Any

import h3.api.basic_int as h3
import pytest

from broker.core import grid
from broker.core.zones import Zone, ZoneIndex, ZoneKind, crs_name, is_wgs84, parse_geojson
from broker.errors import ConfigError
from tests.core.shapes import PLACE, feature, ring


def test_distances_round_the_earth_are_right() -> None:
    half = math.pi * grid.EARTH_RADIUS_M
    for one, other, metres in (
        ((0, 0), (0, 180), half),
        ((90, 0), (-90, 0), half),
        ((0, 0), (0, 90), half / 2),
        ((51, 3), (51, 3), 0),
        ((51, 3), (-51, -177), half),
        ((60, 0), (60, 180), half / 3),
    ):
        assert grid.distance_m(*one, *other) == pytest.approx(metres, abs=1e-3)
        assert grid.distance_m(*other, *one) == pytest.approx(metres, abs=1e-3)


def test_a_place_comes_back_from_where_it_is_filed_and_neighbours_share_a_region() -> None:
    place = grid.place_of(*PLACE)
    cell, child = grid.filed(place)

    assert grid.removed(cell, child) == place
    assert sorted(grid.filed(each)[1] for each in h3.cell_to_children(cell, 10)) == [*range(7)]
    region = h3.cell_to_parent(place, 5)
    assert {grid.region_of(each) for each in h3.cell_to_children(region, 8)} == {
        grid.region_of(place)
    }
    assert 0 <= grid.region_of(place) <= 0xFFFF
    around = {grid.region_of(each) for each in h3.grid_disk(region, 3)}
    assert len(around) > 30  # of 37: regions spread


def test_zones_answer_for_the_cells_that_they_have_at_any_resolution() -> None:
    cell = grid.place_of(*PLACE)
    coarse = Zone("b", "B", ZoneKind.POLICE, (h3.cell_to_parent(cell, 7),))
    fine = Zone("c", "C", ZoneKind.POLICE, (cell,))
    first = Zone("a", "A", ZoneKind.POLICE, (cell,))

    assert ZoneIndex([coarse, fine]).zone_at(*PLACE) == "b"
    assert ZoneIndex([fine]).zone_at(*PLACE) == "c"
    assert ZoneIndex([coarse, fine, first]).zone_at(*PLACE) == "a"
    assert ZoneIndex([fine, first]).zone_at(*PLACE) == "a"
    assert ZoneIndex([coarse]).zone_at(50.0, 5.0) == "unassigned"
    assert ZoneIndex([]).zone_at(*PLACE) == "unassigned"


def test_a_zone_covers_its_area_and_one_that_is_too_small_is_named() -> None:
    (area,) = parse_geojson(
        json.dumps({"type": "FeatureCollection", "features": [feature(id="a", name="A")]})
    ).areas
    zone = area.zone()
    assert (zone.id, zone.name, zone.kind) == ("a", "A", ZoneKind.POLICE)
    cells = set(h3.uncompact_cells(zone.cells, 10))
    assert all(3.69 < h3.cell_to_latlng(each)[1] < 3.75 for each in cells)
    assert zone.cells == tuple(sorted(zone.cells))
    tiny = ring([3.7, 51.0], [3.70001, 51.0], [3.70001, 51.00001])
    (small,) = parse_geojson(
        json.dumps({"type": "FeatureCollection", "features": [feature(tiny, id="s", name="S")]})
    ).areas
    with pytest.raises(ConfigError) as refused:
        small.zone()
    assert refused.value.problems == ["zone s (S): smaller than a cell of 0.015 km²"]


@pytest.mark.parametrize(
    ("crs", "name"),
    [
        (None, ""),
        (5, ""),
        ({}, ""),
        ({"properties": 5}, ""),
        ({"properties": {}}, ""),
        ({"properties": {"name": None}}, ""),
        ({"properties": {"name": "EPSG:1"}}, "EPSG:1"),
    ],
)
def test_the_name_of_a_crs_is_read_where_there_is_one(crs: Any, name: str) -> None:
    assert crs_name(crs) == name


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("urn:ogc:def:crs:OGC:1.3:CRS84", True),
        ("epsg:4326", True),
        ("EPSG:4258", True),
        ("EPSG:43260", False),
        ("EPSG:14326", False),
        ("EPSG:31370", False),
        ("crs84h", False),
    ],
)
def test_only_degrees_are_degrees(name: str, *, degrees: bool) -> None:
    assert is_wgs84(name) is degrees
