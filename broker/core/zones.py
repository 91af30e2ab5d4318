"""Which police zone and which municipality a place is in: polygons turned into H3 covers."""

import enum
import itertools
import math
import re
import unicodedata
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
    """What a zone is for: the police answer for one kind, a city's desk for the other."""

    POLICE = "police"
    MUNICIPALITY = "municipality"


_LEVELS = {"politiezone": ZoneKind.POLICE, "gemeente": ZoneKind.MUNICIPALITY}


@dataclass(frozen=True)
class Zone:
    """An area with somebody who answers for it.

    `id` is a topic level, `cells` the compacted H3 cells (integers), none finer than resolution 10.
    """

    id: str
    name: str
    kind: ZoneKind
    cells: tuple[int, ...]


class ZoneIndex:
    """Zones of one kind, by cell: a few dictionary look-ups per question."""

    def __init__(self, zones: Iterable[Zone]) -> None:
        self._zone_by_cell: dict[int, str] = {}
        for zone in sorted(zones, key=lambda zone: zone.id, reverse=True):
            self._zone_by_cell.update(dict.fromkeys(zone.cells, zone.id))
        found = {h3.get_resolution(cell) for cell in self._zone_by_cell}
        self._resolutions = sorted(found, reverse=True)

    def zone_at(self, lat: float, lon: float) -> str:
        """Return the id of the zone with this place (degrees), `unassigned` if none has it.

        The place counts as the centre of its cell of resolution 10. Of several zones it is the
        one whose id sorts first.
        """
        cell = place_of(lat, lon)
        found: str | None = None
        for resolution in self._resolutions:
            zone = self._zone_by_cell.get(h3.cell_to_parent(cell, resolution))
            if zone is not None and (found is None or zone < found):
                found = zone
        return UNASSIGNED if found is None else found


# -- GeoJSON (RFC 7946) --------------------------------------------------------------------------

Coordinate = Annotated[tuple[float, ...], Meta(min_length=2, max_length=4)]
Ring = Annotated[tuple[Coordinate, ...], Meta(min_length=4)]
Rings = Annotated[tuple[Ring, ...], Meta(min_length=1)]


class Polygon(Struct, frozen=True, tag_field="type", tag="Polygon"):
    """An outer ring and its holes; a coordinate is longitude, latitude in degrees (WGS 84)."""

    coordinates: Rings


class MultiPolygon(Struct, frozen=True, tag_field="type", tag="MultiPolygon"):
    """Several polygons that are one area."""

    coordinates: Annotated[tuple[Rings, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class Area:
    """A feature of a file, checked and not yet covered."""

    id: str
    name: str
    kind: ZoneKind
    geometry: Polygon | MultiPolygon

    def zone(self) -> Zone:
        """Return the zone that covers this area. Slow: about 5 s for a million cells.

        Raises:
            ConfigError: the area holds no cell's centre.
        """
        cells = cover(self.geometry)
        if not cells:
            raise ConfigError([f"zone {self.id} ({self.name}): smaller than a cell of 0.015 km²"])
        return Zone(self.id, self.name, self.kind, cells)


@dataclass(frozen=True)
class GeoFile:
    """What a GeoJSON file holds: areas, and how many features at levels that are no zones."""

    areas: tuple[Area, ...]
    skipped: int


class _Properties(Struct, frozen=True):
    id: str | int | None = None
    name: str | None = None
    kind: str | None = None
    level: str | None = None
    politiezone: Any = None


class _Feature(Struct, frozen=True):
    properties: _Properties
    geometry: Polygon | MultiPolygon


class _Collection(Struct, frozen=True, tag_field="type", tag="FeatureCollection"):
    features: list[msgspec.Raw]


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


def parse_geojson(text: str | bytes, kind: ZoneKind | None = None) -> GeoFile:
    """Return the areas in a GeoJSON FeatureCollection.

    Each feature needs the properties `id` and `name`. Its kind is `kind`, or else its property
    `kind` (police, municipality) or `level` (politiezone, gemeente; other levels are skipped), or
    else municipality if it has a `politiezone`, and police if not.

    Raises:
        ConfigError: with every problem, each naming its feature and property.
    """
    try:
        features = msgspec.json.decode(text, type=_Collection).features
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"not a GeoJSON FeatureCollection: {error}"]) from None
    problems: list[str] = []
    areas: list[Area] = []
    for index, raw in enumerate(features):
        try:
            areas.extend(_areas_in(raw, index, kind))
        except ConfigError as error:
            problems.extend(error.problems)
    problems.extend(_repeated(areas))
    if not features:
        problems.append("features: there is none")
    elif not areas and not problems:
        problems.append("features: none is a police zone or a municipality; set --kind if they are")
    if problems:
        raise ConfigError(problems)
    return GeoFile(tuple(areas), skipped=len(features) - len(areas))


def _areas_in(raw: msgspec.Raw, index: int, kind: ZoneKind | None) -> Iterator[Area]:
    """Zero or one: a feature of another level is skipped."""
    try:
        feature = msgspec.json.decode(raw, type=_Feature)
    except msgspec.DecodeError as error:
        raise ConfigError([f"features[{index}]: {error}"]) from None
    properties = feature.properties
    where = f"features[{index}] ({properties.name or properties.id or 'no name'})"
    if kind is None:
        kind = _kind_of(properties, where)
    if kind is None:
        return
    level = _slug(str(properties.id or ""))
    problems = []
    if not _LEVEL.fullmatch(level) or level == UNASSIGNED:
        problems.append(
            f"{where}: properties.id {properties.id!r} must be of 1 to 40 letters and digits, "
            f"and not {UNASSIGNED!r}"
        )
    problems.extend(f"{where}: {problem}" for problem in _bad_geometry(feature.geometry))
    if problems:
        raise ConfigError(problems)
    yield Area(level, properties.name or level, kind, feature.geometry)


def _kind_of(properties: _Properties, where: str) -> ZoneKind | None:
    if properties.kind is not None:
        try:
            return ZoneKind(properties.kind)
        except ValueError:
            kinds = " or ".join(ZoneKind)
            raise ConfigError(
                [f"{where}: properties.kind {properties.kind!r} must be {kinds}"]
            ) from None
    if properties.level is not None:
        return _LEVELS.get(properties.level)
    return ZoneKind.POLICE if properties.politiezone is None else ZoneKind.MUNICIPALITY


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _repeated(areas: Sequence[Area]) -> Iterator[str]:
    seen: set[tuple[ZoneKind, str]] = set()
    for area in areas:
        if (area.kind, area.id) in seen:
            yield f"properties.id: two features of kind {area.kind} become {area.id!r}"
        seen.add((area.kind, area.id))


def _bad_geometry(geometry: Polygon | MultiPolygon) -> Iterator[str]:
    polygons = (
        geometry.coordinates if isinstance(geometry, MultiPolygon) else [geometry.coordinates]
    )
    for rings in polygons:
        for ring in rings:
            points = [(point[0], point[1]) for point in ring]
            if any(abs(lon) > 180.0 or abs(lat) > 90.0 for lon, lat in points):
                yield "geometry: coordinates must be longitude, latitude in degrees (WGS 84)"
                return
            if points[0] != points[-1]:
                yield "geometry: a ring must end where it began"
                return
        if (area_km2 := _area_km2(rings[0])) > MAX_AREA_KM2:
            yield f"geometry: {area_km2:,.0f} km² is more than a zone may have"


def _area_km2(ring: Sequence[Sequence[float]]) -> float:
    """The shoelace formula on a plane: near enough to refuse what is absurd."""
    width = math.cos(math.radians(sum(point[1] for point in ring) / len(ring)))
    pairs = itertools.pairwise(ring)
    doubled = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)
    return abs(doubled) / 2 * width * _KM_PER_DEGREE**2
