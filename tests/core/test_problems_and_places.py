"""What is said of each wrong policy and zone, word by word, and how large what covers a place is.

After a change that is meant: `python -m tests.core.test_problems_and_places` writes the golden
file.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import h3.api.basic_int as h3
import msgspec
import pytest

from broker.core import grid
from broker.core.policy import Policy, effective_audience
from broker.core.zones import (
    Area,
    Polygon,
    Zone,
    ZoneIndex,
    ZoneKind,
    crs_name,
    is_wgs84,
    parse_geojson,
)
from broker.errors import ConfigError
from schemas.taxonomy import Audience, Language, default_policy_text

GOLDEN = Path(__file__).parent / "golden" / "problems_and_places.json"
SQUARE = [[3.70, 51.04], [3.74, 51.04], [3.74, 51.07], [3.70, 51.07], [3.70, 51.04]]
HEAD = default_policy_text().partition("\n[categories")[0]
PLACE = (51.0543, 3.7217)

CHANGES: dict[str, tuple[str, str]] = {
    "no TOML": ("max_overdue", "= max_overdue"),
    "no advice": ("[advice]", "[advise]"),
    "an empty text": ('nl = "', 'nl = ""\nxx = "'),
    "a duty zone": ("max_overdue", 'duty_zone = "Gent!"\nmax_overdue'),
    "a late acceptance": ("accept_s = ", "accept_s = 99"),
    "a late desk": ("acknowledge_s = ", "acknowledge_s = 99"),
    "a factor": ("factor = ", "factor = 9"),
    "waves": ("max_waves = ", "max_waves = 9"),
    "a quoted key": ("max_overdue", '"max overdue" = 1\nmax_overdue'),
    "no timers": ("[timers]", "timers = 1\n[timer]"),
    "an accuracy": ("max_presence_m = ", "max_presence_m = 0 #"),
    "another accuracy": ("max_report_m = ", "max_report = "),
}
CATEGORIES: dict[str, dict[str, Any]] = {
    "routine": {"urgency": "routine"},
    "of the city": {"desk": "city"},
    "wide": {"radius_m": 4_000},
    "without radius": {"radius_m": 0},
    "a distant merge": {"merge_m": 1_001},
    "the farthest merge": {"merge_m": 1_000, "radius_m": 1_000},
    "a merge beyond the radius": {"merge_m": 301},
    "a merge at the radius": {"merge_m": 300},
    "for the police": {"audience": "police", "text_to": "police_and_nearby"},
    "quietly for the police": {"audience": "police", "radius_m": 0},
    "unknown audience": {"audience": "all"},
    "unknown desk": {"desk": 5},
    "old": {"alert_if_seen_within_s": 0},
    "long": {"merge_s": 30 * 86_400 + 1},
    "far too wide": {"radius_m": 20_001},
    "a text": {"radius_m": "300"},
    "a near key": {"radius": 3},
    "a strange key": {"colour": "red"},
    "names": {"names": {"nl": "x", "fr": ""}},
}
CODES = ["ab", "a", "-ab", "a" * 40, "a" * 41, "Ab", "a_b", "9a", "a b"]


def _policy(text: str) -> list[str]:
    try:
        Policy.parse(text)
    except ConfigError as error:
        return [each.partition(" TOML: ")[0] for each in error.problems]
    return ["fine"]


def _category(code: str = "theft", **changed: Any) -> str:
    fields: dict[str, Any] = {
        "names": {"nl": "Diefstal", "fr": "Vol", "en": "Theft"},
        "urgency": "urgent",
        "desk": "police",
        "radius_m": 300,
        "merge_m": 100,
        "merge_s": 900,
        "audience": "police_and_nearby",
    } | changed
    lines = [f"[categories.{json.dumps(code)}]"]
    for name, value in fields.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
            lines.append(f"{name} = {{ {inner} }}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def policies() -> dict[str, list[str]]:
    fine = HEAD + "\n" + _category()
    return {
        "as shipped": _policy(default_policy_text()),
        "with one category": _policy(fine),
        "without categories": _policy(HEAD),
        "categories as a number": _policy("categories = 5\n" + HEAD),
        "one category as a number": _policy("categories = {theft = 5}\n" + HEAD),
        "everything missing": _policy(""),
        **{name: _policy(fine.replace(old, new, 1)) for name, (old, new) in CHANGES.items()},
        **{
            f"a category {name}": _policy(HEAD + "\n" + _category(**each))
            for name, each in CATEGORIES.items()
        },
        **{f"the code {code}": _policy(HEAD + "\n" + _category(code)) for code in CODES},
    }


def _feature(geometry: Any = None, **properties: Any) -> dict[str, Any]:
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    return {"type": "Feature", "properties": properties, "geometry": geometry or polygon}


def _ring(*corners: list[float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def _box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return _ring([west, south], [east, south], [east, north], [west, north])


def _nested(depth: int) -> dict[str, Any]:
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [SQUARE]}
    for _ in range(depth):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    return geometry


FEATURES: dict[str, dict[str, Any]] = {
    "police": _feature(id="Gent", name="Zone Gent"),
    "a municipality": _feature(id="a", politiezone="x"),
    "by kind": _feature(id="a", kind="municipality"),
    "by level": _feature(id="a", level="gemeente"),
    "by the other level": _feature(id="a", level="politiezone"),
    "another level": _feature(id="a", level="wijk"),
    "an unknown kind": _feature(id="a", kind="village"),
    "no id": _feature(name="x", nis=5),
    "no property": _feature(),
    "no properties": {**_feature(), "properties": None},
    "own id": {**_feature(), "id": 12.0},
    "half an id": {**_feature(), "id": 1.5},
    "accents": _feature(id="Sint-Niklaas/Élan"),
    "no letters": _feature(id="!!"),
    "unassigned": _feature(id="Unassigned"),
    "a long id": _feature(id="x" * 41),
    "the longest id": _feature(id="x" * 40),
    "an id in an array": _feature(id=[5]),
    "a long name": _feature(id="a", name="n" * 70, kind="odd"),
    "no geometry": {**_feature(id="a"), "geometry": None},
    "a point": _feature({"type": "Point", "coordinates": [3, 51]}, id="a"),
    "empty": _feature({"type": "Polygon", "coordinates": []}, id="a"),
    "an empty ring": _feature({"type": "Polygon", "coordinates": [[]]}, id="a"),
    "words": _feature({"type": "Polygon", "coordinates": [[["x", 1]]]}, id="a"),
    "a point in a collection": _feature(
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [3, 51]}]},
        id="a",
    ),
    "a deep collection": _feature(_nested(5), id="a"),
    "a collection too deep": _feature(_nested(6), id="a"),
    "a ring of two": _feature(_ring([3, 51], [4, 51]), id="a"),
    "a ring of three": _feature(_ring([3, 51], [4, 51], [4, 52]), id="a"),
    "height": _feature(_ring([3, 51, 7], [4, 51, 8], [4, 52, 9]), id="a"),
    "an open ring": _feature({"type": "Polygon", "coordinates": [SQUARE[:-1]]}, id="a"),
    "many": _feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}, id="a"),
    "one of many": _feature({"type": "MultiPolygon", "coordinates": [[SQUARE], []]}, id="a"),
    "at the edges": _feature(_ring([180, 90], [180, 89.9], [179.9, 89.9]), id="a"),
    "at the other edges": _feature(_ring([-180, -90], [-180, -89.9], [-179.9, -89.9]), id="a"),
    "beyond east": _feature(_ring([180.1, 51], [3, 51], [3, 52]), id="a"),
    "swapped": _feature(_ring([51, 103.7], [51.1, 103.7], [51.1, 103.8]), id="a"),
    "swapped and far": _feature(_ring([90, 180], [90, 179], [89, 179]), id="a"),
    "metres": _feature(_ring([104000, 193000], [105000, 193000], [105000, 194000]), id="a"),
    "neither": _feature(_ring([200, 200], [201, 200], [201, 201]), id="a"),
    "no metres yet": _feature(_ring([400, 300], [201, 200], [201, 201]), id="a"),
    "just metres": _feature(_ring([401, 300], [201, 200], [201, 201]), id="a"),
    "large": _feature(_box(3, 50, 7.4, 52.8), id="a"),
    "too large": _feature(_box(3, 50, 7.6, 52.8), id="a"),
    "far too large": _feature(_box(-60, -60, 60, 60), id="a"),
    "a geometry that is none": {**_feature(id="a"), "geometry": 5},
    "a feature that is none": {"type": "Feature", "properties": 5},
}


def _zones(*features: Any, **more: Any) -> Any:
    text = json.dumps({"type": "FeatureCollection", "features": [*features], **more})
    return _parsed(partial(parse_geojson, text))


def _parsed(parse: Any) -> Any:
    try:
        found = parse()
    except ConfigError as error:
        return error.problems
    areas = [_shown(each) for each in found.areas]
    return {"areas": areas, "skipped": [[each.feature, each.reason] for each in found.skipped]}


def _shown(area: Area) -> list[Any]:
    polygons = 1 if isinstance(area.geometry, Polygon) else len(area.geometry.coordinates)
    return [area.id, area.name, area.kind, area.given_id, f"{polygons} polygons"]


def zones() -> dict[str, Any]:
    crs = {"type": "name", "properties": {"name": "EPSG:31370"}}
    text = json.dumps({"type": "FeatureCollection", "features": [_feature(id="a", code="7")]})
    return {
        **{name: _zones(each) for name, each in FEATURES.items()},
        "twice": _zones(_feature(id="a"), _feature(id="A"), _feature(id="a", kind="municipality")),
        "good and bad": _zones(_feature(id="a"), FEATURES["a point"], FEATURES["another level"]),
        "nothing but what is skipped": _zones(
            *[FEATURES["a point"]] * 2, FEATURES["another level"]
        ),
        "none": _zones(),
        "another crs": _zones(_feature(id="a"), crs=crs),
        "no JSON": _parsed(lambda: parse_geojson("{")),
        "of a kind": _parsed(lambda: parse_geojson(text, ZoneKind.MUNICIPALITY)),
        "another property": _parsed(lambda: parse_geojson(text, id_property="code")),
        "a missing property": _parsed(lambda: parse_geojson(text, id_property="cod")),
    }


def places() -> dict[str, Any]:
    """Return how many cells cover a circle: fewer lose people, more cost time."""
    place = grid.place_of(*PLACE)
    radii = (0, 1, 60, 120, 200, 201, 300, 400, 402, 500, 1_000, 3_000, 20_000)
    return {
        "the place": place,
        "its region": grid.region_of(place),
        "filed": list(grid.filed(place)),
        "cells of a cover": {
            f"{radius_m} m, resolution {each}": len(grid.cover(*PLACE, radius_m, each))
            for radius_m in radii
            for each in (8, 9, 10)
            if radius_m < 4_000 or each == 8
        },
        "cells touched": {
            f"{radius_m} m, resolution {each}": len(grid.touched(place, float(radius_m), each))
            for radius_m in radii
            for each in (8, 9)
            if radius_m < 4_000
        },
    }


def found() -> dict[str, Any]:
    return {"policies": policies(), "zones": zones(), "places": places()}


def as_text() -> str:
    return msgspec.json.format(msgspec.json.encode(found())).decode() + "\n"


@pytest.mark.parametrize("part", ["policies", "zones", "places"])
def test_what_is_said_is_as_in_the_golden_file(part: str) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))[part]
    made = json.loads(json.dumps({"policies": policies, "zones": zones, "places": places}[part]()))

    assert {name: made[name] for name in made if made[name] != golden.get(name)} == {}
    assert made.keys() == golden.keys()


# -- what a policy answers -----------------------------------------------------------------------


def test_a_policy_answers_with_what_its_file_says() -> None:
    text = default_policy_text()
    policy = Policy.parse(text)
    fire = policy.file.categories["fire"]

    assert policy.codes == tuple(policy.file.categories)
    assert (policy.advice, policy.timers) == (policy.file.advice, policy.file.timers)
    assert (policy.widening, policy.max_overdue) == (policy.file.widening, policy.file.max_overdue)
    assert policy.max_presence_accuracy_m == policy.file.accuracy.max_presence_m
    assert policy.category("fire") is fire
    assert policy.category("nonsense") is None
    assert policy.duty_zone is None
    assert Policy.parse('duty_zone = "gent"\n' + text).duty_zone == "gent"
    timers_s = policy.timers.alert_if_seen_within_s
    assert policy.alert_if_seen_within_s(fire) == timers_s
    other = msgspec.structs.replace(fire, alert_if_seen_within_s=7)
    assert policy.alert_if_seen_within_s(other) == 7


def test_a_wave_follows_while_the_radius_grows_and_the_last_is_not_reached() -> None:
    policy = Policy.parse(default_policy_text())
    widening = policy.widening
    last, most_m = widening.max_waves, float(widening.max_radius_m)

    assert policy.next_radius_m(1, 100.0) == 100.0 * widening.factor
    assert policy.next_radius_m(last - 1, 100.0) == 100.0 * widening.factor
    assert policy.next_radius_m(last, 100.0) is None
    assert policy.next_radius_m(1, most_m - 1) == most_m
    assert policy.next_radius_m(1, most_m) is None


def test_the_narrower_audience_counts_whichever_says_it() -> None:
    fire = Policy.parse(default_policy_text()).file.categories["fire"]
    for ours in Audience:
        for theirs in Audience:
            both = {ours, theirs}
            expected = Audience.POLICE if Audience.POLICE in both else Audience.POLICE_AND_NEARBY
            rule = msgspec.structs.replace(fire, audience=ours)
            assert effective_audience(rule, theirs) is expected


def test_names_are_told_in_the_language_that_is_asked_for() -> None:
    fire = Policy.parse(default_policy_text()).file.categories["fire"]
    assert [fire.names.in_language(each) for each in Language] == [
        fire.names.nl,
        fire.names.fr,
        fire.names.en,
    ]


# -- places --------------------------------------------------------------------------------------


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
        json.dumps({"type": "FeatureCollection", "features": [_feature(id="a", name="A")]})
    ).areas
    zone = area.zone()
    assert (zone.id, zone.name, zone.kind) == ("a", "A", ZoneKind.POLICE)
    cells = set(h3.uncompact_cells(zone.cells, 10))
    assert all(3.69 < h3.cell_to_latlng(each)[1] < 3.75 for each in cells)
    assert zone.cells == tuple(sorted(zone.cells))
    tiny = _ring([3.7, 51.0], [3.70001, 51.0], [3.70001, 51.00001])
    (small,) = parse_geojson(
        json.dumps({"type": "FeatureCollection", "features": [_feature(tiny, id="s", name="S")]})
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


if __name__ == "__main__":
    GOLDEN.write_text(as_text(), "utf-8")
