"""The police zone and the municipality of a place: polygons turned into H3 covers."""

import codecs
import contextlib
import enum
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import h3.api.basic_int as h3
import msgspec
from msgspec import Meta, Struct

from broker.core.grid import PLACE_RESOLUTION, place_of
from broker.errors import ConfigError

UNASSIGNED = "unassigned"

# About 7 million cells. Larger than any police zone; a polygon in the wrong order or unit is not.
MAX_AREA_KM2 = 100_000.0

_LEVEL = re.compile(r"[a-z0-9-]{1,40}")
_KM_PER_DEGREE = 111.2


class ZoneKind(enum.StrEnum):
    """The kind of a zone: the police serve one, a city's desk the other."""

    POLICE = "police"
    MUNICIPALITY = "municipality"


_LEVELS = {"politiezone": ZoneKind.POLICE, "gemeente": ZoneKind.MUNICIPALITY}


@dataclass(frozen=True)
class Zone:
    """An area that a desk serves.

    `id` is a topic level, `cells` the compacted H3 cells (integers), none finer than resolution 10.
    """

    id: str
    name: str
    kind: ZoneKind
    cells: tuple[int, ...]


class ZoneIndex:
    """Zones of one kind, by cell: a lookup is a few dictionary lookups."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._zone_by_cell: dict[int, str] = {}
        for zone in sorted(zones, key=lambda zone: zone.id, reverse=True):
            self._zone_by_cell.update(dict.fromkeys(zone.cells, zone.id))
        found = {h3.get_resolution(cell) for cell in self._zone_by_cell}
        self._resolutions = sorted(found, reverse=True)

    def zone_at(self, lat: float, lon: float) -> str:
        """Return the id of the zone that has this place (degrees), or `unassigned`.

        The centre of the place's cell of resolution 10 counts. Of several zones the one whose id
        sorts first is taken.
        """
        return self.zone_of(place_of(lat, lon))

    def zone_of(self, cell: int) -> str:
        """Return the same for a cell of resolution 10."""
        found: str | None = None
        for resolution in self._resolutions:
            zone = self._zone_by_cell.get(h3.cell_to_parent(cell, resolution))
            if zone is not None and (found is None or zone < found):
                found = zone
        return UNASSIGNED if found is None else found


# -- GeoJSON (RFC 7946) --------------------------------------------------------------------------

Coordinate = Annotated[tuple[float, ...], Meta(min_length=2, max_length=4)]
_OpenRing = tuple[Coordinate, ...]
Rings = tuple[tuple[Coordinate, ...], ...]
_DEEPEST = 5  # nested GeometryCollections


class Polygon(Struct, frozen=True, tag_field="type", tag="Polygon"):
    """An outer ring and its holes; a coordinate is longitude, latitude in degrees (WGS 84)."""

    coordinates: Rings


class MultiPolygon(Struct, frozen=True, tag_field="type", tag="MultiPolygon"):
    """Several polygons that are one area."""

    coordinates: tuple[Rings, ...]


@dataclass(frozen=True)
class Area:
    """A checked feature of a file, not yet turned into cells; `given_id` is its id in the file."""

    id: str
    name: str
    kind: ZoneKind
    geometry: Polygon | MultiPolygon
    given_id: str = ""

    def zone(self) -> Zone:
        """Return the zone that covers this area. Slow: about 5 s for a million cells.

        Raises:
            ConfigError: the area holds no cell's centre.
        """
        cells = cover(self.geometry)
        if not cells:
            raise ConfigError([f"zone {self.id} ({self.name}): smaller than a cell of 0.015 km²"])
        return Zone(self.id, self.name, self.kind, cells)


class SkippedFeature(Struct, frozen=True):
    """A feature that was skipped, and why."""

    feature: str
    reason: str


@dataclass(frozen=True)
class GeoFile:
    """The content of a GeoJSON file: areas, and skipped features."""

    areas: tuple[Area, ...]
    skipped: tuple[SkippedFeature, ...] = ()


class _Skip(Exception):  # noqa: N818 - no error: the feature is no zone
    """The feature is skipped for this reason."""


class _Feature(Struct, frozen=True):
    geometry: msgspec.Raw = msgspec.Raw(b"null")
    properties: dict[str, Any] | None = None
    id: str | int | float | None = None


class _Collection(Struct, frozen=True, tag_field="type", tag="FeatureCollection"):
    features: list[msgspec.Raw]
    crs: Any = None


def cover(geometry: Polygon | MultiPolygon) -> tuple[int, ...]:
    """Return the cells of resolution 10 whose centre is inside and in no hole, compacted."""
    polygons = (
        geometry.coordinates if isinstance(geometry, MultiPolygon) else [geometry.coordinates]
    )
    cells: set[int] = set()
    for rings in polygons:
        outer, *holes = ([(point[1], point[0]) for point in ring] for ring in rings)
        cells.update(h3.h3shape_to_cells(h3.LatLngPoly(outer, *holes), PLACE_RESOLUTION))
    return tuple(sorted(h3.compact_cells(cells)))


def parse_geojson(
    text: str | bytes, kind: ZoneKind | None = None, id_property: str = "id"
) -> GeoFile:
    """Return the areas in a GeoJSON FeatureCollection.

    Each feature needs an id: its property `id_property`, or else the feature's own `id`. Its kind
    is `kind`; else its property `kind` (police, municipality) or `level` (politiezone, gemeente;
    other levels are skipped); else municipality if it has a `politiezone`, police if not. Features
    without an area are skipped too. Open rings are closed.

    Raises:
        ConfigError: with every problem, each naming its feature and property.
    """
    try:
        plain = text.encode() if isinstance(text, str) else text
        collection = msgspec.json.decode(plain.removeprefix(codecs.BOM_UTF8), type=_Collection)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError([f"not a GeoJSON FeatureCollection: {error}"]) from None
    problems = list(_bad_crs(collection.crs))
    areas: list[Area] = []
    skipped: list[SkippedFeature] = []
    for index, raw in enumerate(collection.features):
        try:
            areas.append(_area_of(raw, index, kind, id_property))
        except _Skip as skip:
            skipped.append(SkippedFeature(f"features[{index}]{_named(raw)}", str(skip)))
        except ConfigError as error:
            problems.extend(error.problems)
    problems.extend(_repeated(areas))
    if not collection.features:
        problems.append("features: there is none")
    elif not areas and not problems:
        reasons = Counter(each.reason for each in skipped).most_common()
        told = "; ".join(f"{count} times {reason}" for reason, count in reasons)
        problems.append(
            f"features: none is a police zone or a municipality ({told}); set --kind if they are"
        )
    if problems:
        raise ConfigError(problems)
    return GeoFile(tuple(areas), tuple(skipped))


def _bad_crs(crs: Any) -> Iterator[str]:
    """Refuse coordinates that are not degrees: GeoJSON before RFC 7946 may say so in `crs`."""
    name = crs_name(crs)
    if name and not is_wgs84(name):
        yield (
            f"crs: the coordinates are in {name}; GeoJSON has longitude and latitude (WGS 84). "
            "Convert it: ogr2ogr -t_srs EPSG:4326 zones.geojson FILE"
        )


def crs_name(crs: Any) -> str:
    """Return the name in a `crs` member, or an empty text."""
    properties = crs.get("properties") if isinstance(crs, dict) else None
    return str(properties.get("name") or "") if isinstance(properties, dict) else ""


def is_wgs84(name: str) -> bool:
    """Whether a coordinate system's name means degrees as in GeoJSON (also ETRS89)."""
    return re.search(r"(?:CRS84|:4326|:4258)$", name, re.IGNORECASE) is not None


def _area_of(raw: msgspec.Raw, index: int, kind: ZoneKind | None, id_property: str) -> Area:
    try:
        feature = msgspec.json.decode(raw, type=_Feature)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError([f"features[{index}]: {error}"]) from None
    properties = feature.properties or {}
    where = f"features[{index}]{_named(raw)}"
    kind = kind or _kind_of(properties, where)
    polygons = _polygons(feature.geometry, where)
    given = properties.get(id_property, feature.id if id_property == "id" else None)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    level = _slug(str(given)) if isinstance(given, (str, int)) else ""
    problems = []
    if given is None:
        problems.append(
            f"{where}: has no property {id_property!r}; --id-property names another: it has "
            f"{', '.join(map(repr, properties)) or 'none'}"
        )
    elif not _LEVEL.fullmatch(level) or level == UNASSIGNED:
        problems.append(
            f"{where}: the id {given!r} must be of 1 to 40 letters and digits, "
            f"and not {UNASSIGNED!r}: it is a level of topics"
        )
    problems.extend(f"{where}: {problem}" for problem in _bad_geometry(polygons))
    if problems:
        raise ConfigError(problems)
    geometry = Polygon(polygons[0]) if len(polygons) == 1 else MultiPolygon(tuple(polygons))
    return Area(level, str(properties.get("name") or level), kind, geometry, str(given))


def _named(raw: msgspec.Raw) -> str:
    """Return the feature's name in brackets, for messages."""
    feature = msgspec.json.decode(raw, type=_Feature)
    properties = feature.properties or {}
    name = properties.get("name") or properties.get("id") or feature.id
    return f" ({str(name)[:60]!r})" if name else " (no name)"


def _kind_of(properties: dict[str, Any], where: str) -> ZoneKind:
    if (kind := properties.get("kind")) is not None:
        try:
            return ZoneKind(kind)
        except ValueError:
            kinds = " or ".join(ZoneKind)
            raise ConfigError([f"{where}: properties.kind {kind!r} must be {kinds}"]) from None
    if (level := properties.get("level")) is not None:
        if str(level) not in _LEVELS:
            raise _Skip(f"the level {str(level)[:40]!r} is none of zones")
        return _LEVELS[str(level)]
    return ZoneKind.POLICE if properties.get("politiezone") is None else ZoneKind.MUNICIPALITY


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _repeated(areas: Sequence[Area]) -> Iterator[str]:
    seen: set[tuple[ZoneKind, str]] = set()
    for area in areas:
        if (area.kind, area.id) in seen:
            yield f"properties.id: two features of kind {area.kind} become {area.id!r}"
        seen.add((area.kind, area.id))


class _Geometry(Struct, frozen=True):
    type: str
    coordinates: msgspec.Raw = msgspec.Raw(b"[]")
    geometries: tuple[msgspec.Raw, ...] = ()


def _polygons(raw: msgspec.Raw, where: str, depth: int = 0) -> list[Rings]:
    """Return the polygons of any geometry, their rings closed.

    Raises:
        _Skip: it has none.
        ConfigError: the coordinates are invalid.
    """
    if bytes(raw).strip() == b"null":
        raise _Skip("has no geometry")
    try:
        geometry = msgspec.json.decode(raw, type=_Geometry)
        match geometry.type:
            case "Polygon":
                found = [msgspec.json.decode(geometry.coordinates, type=tuple[_OpenRing, ...])]
            case "MultiPolygon":
                found = msgspec.json.decode(geometry.coordinates, type=list[tuple[_OpenRing, ...]])
            case "GeometryCollection" if depth < _DEEPEST:
                return _collected(geometry.geometries, where, depth)
            case other:
                raise _Skip(f"a {other[:40]} is no area")
    except msgspec.DecodeError as error:
        raise ConfigError([f"{where}: geometry: {error}"]) from None
    polygons = [tuple(_closed(ring) for ring in rings) for rings in found if rings and rings[0]]
    if not polygons:
        raise _Skip("its geometry is empty")
    return polygons


def _collected(geometries: tuple[msgspec.Raw, ...], where: str, depth: int) -> list[Rings]:
    polygons: list[Rings] = []
    for each in geometries:
        with contextlib.suppress(_Skip):  # a point beside the area, such as a label
            polygons += _polygons(each, where, depth + 1)
    if not polygons:
        raise _Skip("a GeometryCollection without a polygon is no area")
    return polygons


def _closed(ring: "tuple[Coordinate, ...]") -> "tuple[Coordinate, ...]":
    return ring if not ring or ring[0][:2] == ring[-1][:2] else (*ring, ring[0])


def _bad_geometry(polygons: Sequence[Rings]) -> Iterator[str]:
    for rings in polygons:
        for ring in rings:
            if len(ring) < 4:
                yield "geometry: a ring needs three corners"
                return
            if problem := _bad_place(ring):
                yield problem
                return
        if (area_km2 := _area_km2(rings[0])) > MAX_AREA_KM2:
            yield f"geometry: {area_km2:,.0f} km² is more than a zone may have"


def _bad_place(ring: "tuple[Coordinate, ...]") -> str | None:
    for lon, lat, *_ in ring:
        if abs(lon) <= 180.0 and abs(lat) <= 90.0:
            continue
        hint = "the coordinates look like metres" if max(abs(lon), abs(lat)) > 400.0 else ""
        if abs(lat) <= 180.0 and abs(lon) <= 90.0:
            hint = "latitude and longitude look swapped"
        return (
            f"geometry: coordinates must be longitude, latitude in degrees (WGS 84), not "
            f"{lon:g}, {lat:g}{': ' if hint else ''}{hint}"
        )
    return None


def _area_km2(ring: Sequence[Sequence[float]]) -> float:
    """The shoelace formula on a plane: exact enough to refuse absurd areas."""
    width = math.cos(math.radians(sum(point[1] for point in ring) / len(ring)))
    pairs = itertools.pairwise(ring)
    doubled = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)
    return abs(doubled) / 2 * width * _KM_PER_DEGREE**2
