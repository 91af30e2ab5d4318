from pathlib import Path

import h3.api.basic_int as h3
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.core.zones import ZoneIndex
from broker.errors import ConfigError
from nabij.local.zone_files import read_areas
from verify.oracle.geofence import FencePolygon, Geofence, Kind, cell_at, centre_of
from verify.replay.zone_files import GeofenceError, read_geofence

LAT, LON = 51.05, 3.72
OUTLINE = [(LON, LAT), (LON + 0.1, LAT), (LON + 0.1, LAT + 0.1), (LON, LAT + 0.1), (LON, LAT)]
HOLE = [
    (LON + 0.04, LAT + 0.04),
    (LON + 0.06, LAT + 0.04),
    (LON + 0.06, LAT + 0.06),
    (LON + 0.04, LAT + 0.06),
]
around_ghent = st.tuples(st.floats(3.6, 3.9), st.floats(50.95, 51.2))


def test_a_hole_is_outside() -> None:
    polygon = FencePolygon.from_coordinates([OUTLINE, HOLE])
    assert polygon.contains(LAT + 0.01, LON + 0.01)
    assert not polygon.contains(LAT + 0.05, LON + 0.05)
    assert not polygon.contains(LAT - 0.01, LON + 0.01)


@given(st.lists(around_ghent, min_size=3, max_size=3, unique=True), around_ghent)
def test_ray_casting_agrees_with_h3(
    corners: list[tuple[float, float]], place: tuple[float, float]
) -> None:
    (ax, ay), (bx, by), (cx, cy) = corners
    assume(abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) > 1e-4)
    lat, lon = centre_of(cell_at(place[1], place[0]))
    shape = h3.LatLngPoly([(y, x) for x, y in corners])
    within = cell_at(lat, lon) in h3.h3shape_to_cells(shape, 10)
    assert FencePolygon.from_coordinates([corners]).contains(lat, lon) == within


def test_of_two_zones_the_one_whose_id_sorts_first() -> None:
    polygon = FencePolygon.from_coordinates([OUTLINE])
    zones = Geofence({"zulte": (polygon,), "aalst": (polygon,)})
    assert zones.zone_of(LAT + 0.05, LON + 0.05) == "aalst"
    assert zones.zone_of(LAT - 1.0, LON) == "unassigned"


def test_zones_are_read_by_kind(tmp_path: Path) -> None:
    def feature(**properties: str) -> dict[str, object]:
        geometry = {"type": "MultiPolygon", "coordinates": [[OUTLINE], [HOLE]]}
        return {"type": "Feature", "properties": properties, "geometry": geometry}

    path = tmp_path / "zones.geojson"
    features = [
        feature(id="PZ Één"),
        feature(id="44021", politiezone="x"),
        feature(id="w", level="wijk"),
    ]
    path.write_bytes(orjson.dumps({"type": "FeatureCollection", "features": features}))
    place = LAT + 0.01, LON + 0.01
    assert read_geofence([path], Kind.POLICE).zone_of(*place) == "pz-een"
    assert read_geofence([path], Kind.MUNICIPALITY).zone_of(*place) == "44021"


def test_the_id_may_be_any_property_which_every_zone_then_has(tmp_path: Path) -> None:
    path = tmp_path / "zones.geojson"
    geometry = {"type": "Polygon", "coordinates": [OUTLINE]}
    zone = {"type": "Feature", "id": "1", "properties": {"nis": 44021.0}, "geometry": geometry}
    path.write_bytes(orjson.dumps({"type": "FeatureCollection", "features": [zone]}))
    place = LAT + 0.01, LON + 0.01
    assert read_geofence([path], Kind.POLICE, "nis").zone_of(*place) == "44021"
    assert read_geofence([path], Kind.POLICE).zone_of(*place) == "1"
    assert [area.id for area in read_areas(path, id_property="nis").areas] == ["44021"]
    with pytest.raises(GeofenceError, match="name"):
        read_geofence([path], Kind.POLICE, "name")


def test_a_file_without_zones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zones.geojson"
    path.write_text('{"features": {"properties": {}}}')
    with pytest.raises(GeofenceError, match=r"zones\.geojson"):
        read_geofence([path], Kind.POLICE)


def test_a_file_in_lambert_72_is_read_alike_by_the_oracle_and_the_broker(tmp_path: Path) -> None:
    korenmarkt = 104_632.42, 193_991.11  # in Lambert 72, by pyproj
    west, south, east, north = (
        korenmarkt[0] - 500,
        korenmarkt[1] - 500,
        korenmarkt[0] + 500,
        korenmarkt[1] + 500,
    )
    ring = [(west, south), (east, south), (east, north), (west, north)]  # and not closed
    geometry = {
        "type": "GeometryCollection",
        "geometries": [
            {"type": "Point", "coordinates": korenmarkt},
            {"type": "Polygon", "coordinates": [ring]},
        ],
    }
    path = tmp_path / "zones.geojson"
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::31370"}}
    features = [
        {"type": "Feature", "id": "PZ Gent", "properties": None, "geometry": geometry},
        {"type": "Feature", "id": "none", "properties": {}, "geometry": None},
    ]
    values = {"type": "FeatureCollection", "crs": crs, "features": features}
    path.write_bytes(b"\xef\xbb\xbf" + orjson.dumps(values))
    geofence = read_geofence([path], Kind.POLICE)
    found = read_areas(path)
    assert [each.reason for each in found.skipped] == ["has no geometry"]
    index = ZoneIndex(area.zone() for area in found.areas)
    for lat, lon in ((51.0543, 3.7217), (51.0575, 3.7217), (51.0590, 3.7217), (51.0543, 3.7300)):
        assert index.zone_at(lat, lon) == geofence.zone_of(lat, lon)
    assert index.zone_at(51.0543, 3.7217) == "pz-gent"
    assert index.zone_at(51.0600, 3.7217) == "unassigned"


def test_zones_with_latitude_first_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "zones.geojson"
    ring = [(51.0, 3.7), (51.1, 3.7), (51.1, 3.8), (51.0, 3.7)]
    feature = {
        "type": "Feature",
        "id": "a",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path.write_bytes(orjson.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(ConfigError, match="GeoJSON has the longitude first"):
        read_areas(path)
