"""What is said of each wrong policy and zone, word by word, and how large what covers a place is.

After a change that is meant: `python -m tests.core.test_problems_and_places` writes the golden
file.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.core import grid
from broker.core.policy import Policy
from broker.core.zones import Area, Polygon, ZoneKind, parse_geojson
from broker.errors import ConfigError
from schemas.taxonomy import default_policy_text
from tests.core.shapes import PLACE, SQUARE, feature, ring

GOLDEN = Path(__file__).parent / "golden" / "problems_and_places.json"

HEAD = default_policy_text().partition("\n[categories")[0]

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


def _box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return ring([west, south], [east, south], [east, north], [west, north])


def _nested(depth: int) -> dict[str, Any]:
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [SQUARE]}
    for _ in range(depth):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    return geometry


FEATURES: dict[str, dict[str, Any]] = {
    "police": feature(id="Gent", name="Zone Gent"),
    "a municipality": feature(id="a", politiezone="x"),
    "by kind": feature(id="a", kind="municipality"),
    "by level": feature(id="a", level="gemeente"),
    "by the other level": feature(id="a", level="politiezone"),
    "another level": feature(id="a", level="wijk"),
    "an unknown kind": feature(id="a", kind="village"),
    "no id": feature(name="x", nis=5),
    "no property": feature(),
    "no properties": {**feature(), "properties": None},
    "own id": {**feature(), "id": 12.0},
    "half an id": {**feature(), "id": 1.5},
    "accents": feature(id="Sint-Niklaas/Élan"),
    "no letters": feature(id="!!"),
    "unassigned": feature(id="Unassigned"),
    "a long id": feature(id="x" * 41),
    "the longest id": feature(id="x" * 40),
    "an id in an array": feature(id=[5]),
    "a long name": feature(id="a", name="n" * 70, kind="odd"),
    "no geometry": {**feature(id="a"), "geometry": None},
    "a point": feature({"type": "Point", "coordinates": [3, 51]}, id="a"),
    "empty": feature({"type": "Polygon", "coordinates": []}, id="a"),
    "an empty ring": feature({"type": "Polygon", "coordinates": [[]]}, id="a"),
    "words": feature({"type": "Polygon", "coordinates": [[["x", 1]]]}, id="a"),
    "a point in a collection": feature(
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [3, 51]}]},
        id="a",
    ),
    "a deep collection": feature(_nested(5), id="a"),
    "a collection too deep": feature(_nested(6), id="a"),
    "a ring of two": feature(ring([3, 51], [4, 51]), id="a"),
    "a ring of three": feature(ring([3, 51], [4, 51], [4, 52]), id="a"),
    "height": feature(ring([3, 51, 7], [4, 51, 8], [4, 52, 9]), id="a"),
    "an open ring": feature({"type": "Polygon", "coordinates": [SQUARE[:-1]]}, id="a"),
    "many": feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}, id="a"),
    "one of many": feature({"type": "MultiPolygon", "coordinates": [[SQUARE], []]}, id="a"),
    "at the edges": feature(ring([180, 90], [180, 89.9], [179.9, 89.9]), id="a"),
    "at the other edges": feature(ring([-180, -90], [-180, -89.9], [-179.9, -89.9]), id="a"),
    "beyond east": feature(ring([180.1, 51], [3, 51], [3, 52]), id="a"),
    "swapped": feature(ring([51, 103.7], [51.1, 103.7], [51.1, 103.8]), id="a"),
    "swapped and far": feature(ring([90, 180], [90, 179], [89, 179]), id="a"),
    "metres": feature(ring([104000, 193000], [105000, 193000], [105000, 194000]), id="a"),
    "neither": feature(ring([200, 200], [201, 200], [201, 201]), id="a"),
    "no metres yet": feature(ring([400, 300], [201, 200], [201, 201]), id="a"),
    "just metres": feature(ring([401, 300], [201, 200], [201, 201]), id="a"),
    "large": feature(_box(3, 50, 7.4, 52.8), id="a"),
    "too large": feature(_box(3, 50, 7.6, 52.8), id="a"),
    "far too large": feature(_box(-60, -60, 60, 60), id="a"),
    "a geometry that is none": {**feature(id="a"), "geometry": 5},
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
    text = json.dumps({"type": "FeatureCollection", "features": [feature(id="a", code="7")]})
    return {
        **{name: _zones(each) for name, each in FEATURES.items()},
        "twice": _zones(feature(id="a"), feature(id="A"), feature(id="a", kind="municipality")),
        "good and bad": _zones(feature(id="a"), FEATURES["a point"], FEATURES["another level"]),
        "nothing but what is skipped": _zones(
            *[FEATURES["a point"]] * 2, FEATURES["another level"]
        ),
        "none": _zones(),
        "another crs": _zones(feature(id="a"), crs=crs),
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


if __name__ == "__main__":
    GOLDEN.write_text(as_text(), "utf-8")
