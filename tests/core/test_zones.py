"""Polygons turned into covers: compared with a brute-force answer, and what is wrong with files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import h3.api.basic_int as h3
import pytest

from broker.core.grid import PLACE_RESOLUTION
from broker.core.zones import (
    UNASSIGNED,
    MultiPolygon,
    Polygon,
    Zone,
    ZoneIndex,
    ZoneKind,
    cover,
    parse_geojson,
)
from broker.errors import ConfigError

Ring = Sequence[tuple[float, float]]
SQUARE: Ring = [(3.70, 51.04), (3.74, 51.04), (3.74, 51.07), (3.70, 51.07), (3.70, 51.04)]
HOLE: Ring = [(3.71, 51.05), (3.73, 51.05), (3.73, 51.06), (3.71, 51.06), (3.71, 51.05)]
FAR: Ring = [(5.75, 51.08), (5.80, 51.08), (5.80, 51.11), (5.75, 51.08)]


def tupled(*rings: Ring) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(ring) for ring in rings)


def feature(identifier: object, *rings: Ring, **properties: object) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": {"id": identifier, "name": f"Zone {identifier}", **properties},
        "geometry": {"type": "Polygon", "coordinates": rings or (SQUARE,)},
    }


def collection(*features: dict[str, Any]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features})


def zone(identifier: str, *cells: int) -> Zone:
    return Zone(identifier, identifier, ZoneKind.POLICE, cells)


def inside(ring: Sequence[Sequence[float]], lat: float, lon: float) -> bool:
    """The oracle: cast a ray."""
    odd = False
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (y1 > lat) != (y2 > lat) and lon < x1 + (lat - y1) / (y2 - y1) * (x2 - x1):
            odd = not odd
    return odd


def problems_of(text: str | bytes, kind: ZoneKind | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse_geojson(text, kind)
    return raised.value.problems


def test_cover_has_exactly_the_cells_whose_centre_is_inside_and_in_no_hole() -> None:
    cells = set(h3.uncompact_cells(cover(Polygon(tupled(SQUARE, HOLE))), PLACE_RESOLUTION))
    random = Random(7)
    for _ in range(5_000):
        lat, lon = random.uniform(51.03, 51.08), random.uniform(3.69, 3.75)
        cell = h3.latlng_to_cell(lat, lon, PLACE_RESOLUTION)
        centre = h3.cell_to_latlng(cell)
        assert (cell in cells) == (inside(SQUARE, *centre) and not inside(HOLE, *centre))


def test_cover_is_compacted_and_of_all_polygons() -> None:
    both = cover(MultiPolygon((tupled(SQUARE), tupled(FAR))))
    apart = (*cover(Polygon(tupled(SQUARE))), *cover(Polygon(tupled(FAR))))
    assert sorted(both) == sorted(apart)
    assert len(both) < len(h3.uncompact_cells(both, PLACE_RESOLUTION)) / 3
    overlapping = cover(MultiPolygon((tupled(SQUARE), tupled(HOLE))))
    assert overlapping == cover(Polygon(tupled(SQUARE)))


def test_place_outside_every_zone_is_unassigned() -> None:
    index = ZoneIndex([zone("gent", *cover(Polygon(tupled(SQUARE))))])
    assert index.zone_at(51.055, 3.72) == "gent"
    assert index.zone_at(50.85, 4.35) == UNASSIGNED
    assert ZoneIndex([]).zone_at(51.055, 3.72) == UNASSIGNED


def test_of_several_zones_the_id_that_sorts_first_is_taken_whatever_their_cells() -> None:
    cell = h3.latlng_to_cell(51.055, 3.72, PLACE_RESOLUTION)
    coarse = h3.cell_to_parent(cell, 6)
    for zones in ([zone("b", cell), zone("a", coarse)], [zone("a", cell), zone("b", coarse)]):
        assert ZoneIndex(zones).zone_at(51.055, 3.72) == "a"
        assert ZoneIndex(zones[::-1]).zone_at(51.055, 3.72) == "a"
    assert ZoneIndex([zone("b", cell), zone("a", cell)]).zone_at(51.055, 3.72) == "a"


def test_kind_is_found_in_the_properties_unless_given() -> None:
    text = collection(
        feature("a"),
        feature("b", politiezone="ipz1"),
        feature("c", level="politiezone"),
        feature("d", level="gemeente", politiezone="ipz1"),
        feature("e", kind="municipality"),
        feature("f", level="wijk"),
    )
    found = parse_geojson(text)
    police, municipality = ZoneKind.POLICE, ZoneKind.MUNICIPALITY
    assert [(area.id, area.kind) for area in found.areas] == [
        ("a", police),
        ("b", municipality),
        ("c", police),
        ("d", municipality),
        ("e", municipality),
    ]
    assert [(each.feature, each.reason) for each in found.skipped] == [
        ("features[5] ('Zone f')", "the level 'wijk' is none of zones")
    ]
    forced = parse_geojson(text, municipality)
    assert {area.kind for area in forced.areas} == {municipality}
    assert len(forced.areas) == 6


def test_ids_become_topic_levels_and_names_are_kept() -> None:
    found = parse_geojson(collection(feature("PZ Vlaamse Ardennen é"), feature(34022)))
    assert [area.id for area in found.areas] == ["pz-vlaamse-ardennen-e", "34022"]
    assert found.areas[0].name == "Zone PZ Vlaamse Ardennen é"


def test_everything_wrong_with_a_file_is_said_at_once() -> None:
    lambert = [(104_000.0, 193_000.0), (105_000.0, 193_000.0), (105_000.0, 194_000.0)]
    problems = problems_of(
        collection(
            feature("corner", SQUARE[:2]),
            feature("lambert", [*lambert, lambert[0]]),
            feature("", kind="police"),
            feature("x" * 41),
            feature("unassigned"),
            feature("odd", kind="village"),
            feature("world", [(-60, -60), (60, -60), (60, 60), (-60, 60), (-60, -60)]),
            feature("twice"),
            feature("Twice"),
            feature("turned", [(51.0, 103.7), (51.1, 103.7), (51.1, 103.8), (51.0, 103.7)]),
        )
    )
    said = "\n".join(problems)
    for part in (
        "features[0] ('Zone corner'): geometry: a ring needs three corners",
        "features[1] ('Zone lambert'): geometry: coordinates must be longitude, latitude in degrees",
        "104000, 193000: the coordinates look like metres",
        "features[2] ('Zone '): the id '' must be of 1 to 40 letters and digits",
        "features[3]",
        "features[4] ('Zone unassigned'): the id 'unassigned'",
        "features[5] ('Zone odd'): properties.kind 'village' must be police or municipality",
        "km² is more than a zone may have",
        "two features of kind police become 'twice'",
        "51, 103.7: latitude and longitude look swapped",
    ):
        assert part in said
    assert len(problems) == 9


def test_a_file_is_read_as_other_programs_write_it() -> None:
    closed, open_, label, empty, line = (feature(name) for name in ("a", "b", "c", "d", "e"))
    open_["geometry"]["coordinates"] = [SQUARE[:-1], HOLE[:-1]]
    label["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [
            {"type": "Point", "coordinates": [3.7, 51.0]},
            closed["geometry"],
            {"type": "MultiPolygon", "coordinates": [[FAR], []]},
        ],
    }
    empty["geometry"] = {"type": "Polygon", "coordinates": []}
    line["geometry"] = {"type": "LineString", "coordinates": SQUARE}
    nowhere = {**feature("f"), "geometry": None}
    own_id = {"type": "Feature", "id": 5411.0, "properties": None, "geometry": closed["geometry"]}
    bare = {"type": "Feature", "id": "PZ 2", "geometry": closed["geometry"]}
    text = collection(closed, open_, label, empty, line, nowhere, own_id, bare)
    found = parse_geojson(b"\xef\xbb\xbf" + text.encode())
    assert [area.id for area in found.areas] == ["a", "b", "c", "5411", "pz-2"]
    assert found.areas[-1].given_id == "PZ 2"
    assert set(cover(found.areas[1].geometry)) == set(cover(Polygon(tupled(SQUARE, HOLE))))
    both = MultiPolygon((tupled(SQUARE), tupled(FAR)))
    assert set(cover(found.areas[2].geometry)) == set(cover(both))
    assert [(each.feature, each.reason) for each in found.skipped] == [
        ("features[3] ('Zone d')", "its geometry is empty"),
        ("features[4] ('Zone e')", "a LineString is no area"),
        ("features[5] ('Zone f')", "has no geometry"),
    ]


def test_the_id_may_stand_in_another_property() -> None:
    text = collection(feature("a", nis_code=44021), feature("b", nis_code="34022 "))
    found = parse_geojson(text, id_property="nis_code")
    assert [area.id for area in found.areas] == ["44021", "34022"]
    with pytest.raises(ConfigError, match="has no property 'code'; --id-property names another"):
        parse_geojson(text, id_property="code")


def test_coordinates_that_are_no_degrees_are_refused_by_their_crs() -> None:
    def with_crs(name: str) -> str:
        crs = {"type": "name", "properties": {"name": name}}
        return json.dumps({**json.loads(collection(feature("a"))), "crs": crs})

    for name in ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4258"):
        assert len(parse_geojson(with_crs(name)).areas) == 1
    (problem,) = problems_of(with_crs("urn:ogc:def:crs:EPSG::31370"))
    assert problem.startswith("crs: the coordinates are in urn:ogc:def:crs:EPSG::31370")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"type": "Feature"}', b"\xff\xfe"])
def test_what_is_no_feature_collection_is_refused(text: str | bytes) -> None:
    assert problems_of(text)[0].startswith("not a GeoJSON FeatureCollection")


def test_file_without_zones_is_refused() -> None:
    assert problems_of(collection()) == ["features: there is none"]
    assert "set --kind" in problems_of(collection(feature("a", level="wijk")))[0]


def test_area_that_holds_no_cells_centre_is_refused() -> None:
    tiny: Ring = [(3.7, 51.0), (3.70001, 51.0), (3.70001, 51.00001), (3.7, 51.0)]
    (area,) = parse_geojson(collection(feature("tiny", tiny))).areas
    with pytest.raises(ConfigError, match="smaller than a cell"):
        area.zone()


def test_real_police_zones_agree_with_ray_casting(shared_data: Callable[[str], Path]) -> None:
    text = shared_data("geo/politiezones.geojson").read_bytes()
    areas = {area.id: area for area in parse_geojson(text).areas}
    assert len(areas) == 107
    near_ghent = ("ipz93", "ipz91", "ipz92", "ipz90")
    index = ZoneIndex(areas[name].zone() for name in near_ghent)
    random = Random(11)
    for _ in range(2_000):
        lat, lon = random.uniform(50.95, 51.20), random.uniform(3.55, 3.90)
        centre = h3.cell_to_latlng(h3.latlng_to_cell(lat, lon, PLACE_RESOLUTION))
        expected = [name for name in sorted(near_ghent) if within(areas[name].geometry, *centre)]
        assert index.zone_at(lat, lon) == (expected[0] if expected else UNASSIGNED)


def within(geometry: Polygon | MultiPolygon, lat: float, lon: float) -> bool:
    polygons = (
        geometry.coordinates if isinstance(geometry, MultiPolygon) else (geometry.coordinates,)
    )
    return any(
        inside(outer, lat, lon) and not any(inside(hole, lat, lon) for hole in holes)
        for outer, *holes in polygons
    )
