"""Which zone of a GeoJSON file a place is in, by casting a ray through every polygon.

Written for the oracle from `docs/protocol.md`: slow and plain, where the broker has H3 covers.
"""

import enum
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import h3.api.basic_int as h3

RESOLUTION = 10
UNASSIGNED = "unassigned"

Ring = tuple[tuple[float, float], ...]


class Kind(enum.StrEnum):
    """Who a zone belongs to."""

    POLICE = "police"
    MUNICIPALITY = "municipality"


KINDS_BY_LEVEL = {"politiezone": Kind.POLICE, "gemeente": Kind.MUNICIPALITY}


def cell_at(lat: float, lon: float) -> int:
    """Return the H3 cell of resolution 10 that the place falls in."""
    return int(h3.latlng_to_cell(lat, lon, RESOLUTION))


@cache
def centre_of(cell: int) -> tuple[float, float]:
    """Return the centre of `cell` (lat, lon)."""
    lat, lon = h3.cell_to_latlng(cell)
    return lat, lon


@dataclass(frozen=True, slots=True)
class FencePolygon:
    """An outline and its holes, each a ring of (lon, lat), with its bounding box."""

    rings: tuple[Ring, ...]
    west: float
    south: float
    east: float
    north: float

    @classmethod
    def from_coordinates(cls, coordinates: Sequence[Any]) -> "FencePolygon":
        """Read the `coordinates` of a GeoJSON Polygon (RFC 7946, 3.1.6)."""
        rings = tuple(
            tuple((float(point[0]), float(point[1])) for point in ring) for ring in coordinates
        )
        lons, lats = zip(*rings[0], strict=True)
        return cls(rings, min(lons), min(lats), max(lons), max(lats))

    def contains(self, lat: float, lon: float) -> bool:
        """Whether the place is inside the outline and in no hole.

        An eastward ray crosses the outline and the holes together an odd number of times from
        within, an even number from outside or from a hole.
        """
        if not (self.west <= lon <= self.east and self.south <= lat <= self.north):
            return False
        return sum(_crossings(ring, lat, lon) for ring in self.rings) % 2 == 1


def _crossings(ring: Ring, lat: float, lon: float) -> int:
    count = 0
    before_lon, before_lat = ring[-1]
    for here_lon, here_lat in ring:
        if (here_lat > lat) != (before_lat > lat):
            share = (lat - here_lat) / (before_lat - here_lat)
            if lon < here_lon + share * (before_lon - here_lon):
                count += 1
        before_lon, before_lat = here_lon, here_lat
    return count


class Geofence:
    """Zones by id, asked for the zone of a place."""

    def __init__(self, zones: dict[str, tuple[FencePolygon, ...]]) -> None:
        self._zones = sorted(zones.items())
        self._known: dict[int, str] = {}

    @classmethod
    def from_collections(
        cls, collections: Iterable[Sequence[Any]], kind: Kind, id_property: str = "id"
    ) -> "Geofence":
        """Take the zones of one kind from the features of GeoJSON files.

        Each feature has an id, as the property `id_property` or (if that is `id`) its own, and its
        kind as `nabij zones import` reads it: in `kind`, or `level` (`politiezone`, `gemeente`;
        others are skipped), else a municipality if it has a property `politiezone`, else a police
        zone. What has no polygon is none.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: a feature is none of that.
        """
        zones: dict[str, tuple[FencePolygon, ...]] = {}
        for feature in itertools.chain.from_iterable(collections):
            properties = feature.get("properties") or {}
            polygons = _polygons(feature.get("geometry"))
            if polygons and _kind_of(properties) == kind:
                given = _id_of(feature, properties, id_property)
                zone = _level_of(str(int(given) if isinstance(given, float) else given))
                zones[zone] = zones.get(zone, ()) + polygons
        return cls(zones)

    def zone_of(self, lat: float, lon: float) -> str:
        """Return the zone of a report at this place: that of its cell's centre.

        Of several the one whose id sorts first; `unassigned` where there is none.
        """
        cell = cell_at(lat, lon)
        if cell not in self._known:
            self._known[cell] = self._containing(*centre_of(cell))
        return self._known[cell]

    def _containing(self, lat: float, lon: float) -> str:
        for zone, polygons in self._zones:
            if any(polygon.contains(lat, lon) for polygon in polygons):
                return zone
        return UNASSIGNED


def _kind_of(properties: dict[str, Any]) -> str | None:
    if kind := properties.get("kind"):
        return str(kind)
    if level := properties.get("level"):
        return KINDS_BY_LEVEL.get(level)
    return Kind.POLICE if properties.get("politiezone") is None else Kind.MUNICIPALITY


def _id_of(feature: dict[str, Any], properties: dict[str, Any], id_property: str) -> Any:
    is_own = id_property == "id" and "id" not in properties
    return feature["id"] if is_own else properties[id_property]


def _level_of(identifier: str) -> str:
    """Return a zone's id as a topic level: lower case, without accents, `-` for all else."""
    plain = unicodedata.normalize("NFKD", identifier).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _polygons(geometry: dict[str, Any] | None) -> tuple[FencePolygon, ...]:
    """Return the polygons of any geometry; of points and lines there are none."""
    if geometry is None:
        return ()
    found: tuple[FencePolygon, ...] = ()
    for each in geometry.get("geometries") or ():
        found += _polygons(each)
    coordinates = geometry.get("coordinates") or ()
    if geometry["type"] == "Polygon":
        coordinates = (coordinates,)
    if geometry["type"] in ("Polygon", "MultiPolygon"):
        found += tuple(
            FencePolygon.from_coordinates(each) for each in coordinates if each and each[0]
        )
    return found
