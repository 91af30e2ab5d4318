"""Places on the H3 grid: which cells a circle covers, and how far things are apart.

A participant's place is a cell of resolution 10 (edge about 66 m); the store files it under its
parent of resolution 9 (edge about 201 m). Incidents are filed under the cells of resolution 8 (edge
about 531 m) that their alerts reach. Cells are integers here, as in h3.api.basic_int.
"""

import math
import zlib
from functools import lru_cache

from h3.api import basic_int as h3

PLACE_RESOLUTION = 10
INDEX_RESOLUTION = 9
DISTRICT_RESOLUTION = 8
REGION_RESOLUTION = 5  # some 250 km²

EARTH_RADIUS_M = 6_371_007.180918475  # authalic, as H3 itself uses
_EDGE_M = {
    resolution: h3.average_hexagon_edge_length(resolution, unit="m")
    for resolution in (DISTRICT_RESOLUTION, INDEX_RESOLUTION, PLACE_RESOLUTION)
}
_RINGS = (0.95, 0.6)  # rings of cells for each average edge of the radius, plus a constant
_REACH = 1.2  # average edges from a cell's centre to its farthest place: 1.14 near a pentagon


def distance_m(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Return the great-circle distance in metres between two points in degrees (haversine)."""
    phi, other_phi = math.radians(lat), math.radians(other_lat)
    half_chord = (
        math.sin((other_phi - phi) / 2) ** 2
        + math.cos(phi) * math.cos(other_phi) * math.sin(math.radians(other_lon - lon) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half_chord)))


@lru_cache(maxsize=256)  # the index entries of a report ask for the same place again
def place_of(lat: float, lon: float) -> int:
    """Return the cell of resolution 10 that holds the point."""
    cell: int = h3.latlng_to_cell(lat, lon, PLACE_RESOLUTION)
    return cell


@lru_cache(maxsize=200_000)
def centre_of(cell: int) -> tuple[float, float]:
    """Return the centre of a cell, in degrees (lat, lon)."""
    lat, lon = h3.cell_to_latlng(cell)
    return lat, lon


@lru_cache(maxsize=200_000)
def filed(place: int) -> tuple[int, int]:
    """Return (index cell, which of its children, 0 to 6) of a place."""
    return h3.cell_to_parent(place, INDEX_RESOLUTION), h3.cell_to_child_pos(place, INDEX_RESOLUTION)


@lru_cache(maxsize=200_000)
def removed(index_cell: int, child: int) -> int:
    """Return the place that is filed as `child` under `index_cell`."""
    place: int = h3.child_pos_to_cell(index_cell, PLACE_RESOLUTION, child)
    return place


@lru_cache(maxsize=200_000)
def region_of(cell: int) -> int:
    """Return the region of a cell of resolution 8 to 10: 16 bits, the same for its neighbours.

    A digest of the cell of resolution 5 that holds it, so that regions spread over partitions.
    """
    return zlib.crc32(h3.cell_to_parent(cell, REGION_RESOLUTION).to_bytes(8, "big")) & 0xFFFF


@lru_cache(maxsize=50_000)
def _disk(cell: int, k: int) -> tuple[int, ...]:
    return tuple(h3.grid_disk(cell, k))


def cover(
    lat: float, lon: float, radius_m: float, resolution: int = INDEX_RESOLUTION
) -> tuple[int, ...]:
    """Return cells of `resolution` (8 to 10) that hold every point within `radius_m` of the point.

    From a corner of the middle cell to a corner of the nearest cell outside, k rings reach 1.5·k -
    0.5 edges, less 0.13 at each end where children bulge out of their parent, and 0.18 where
    theirs do too; and edges shrink to 0.77 of the average: solved for k, 0.87 rings an edge, and
    0.95 near a pentagon. (`ceil(radius / edge)` lost people around 200 and 400 m, in Belgium too,
    and `ceil(r / (√3·edge))` 12 to 22 %: design, section 5.)
    """
    return _disk(*_middle(place_of(lat, lon), radius_m, resolution))


@lru_cache(maxsize=20_000)
def touched(place: int, radius_m: float, resolution: int) -> tuple[int, ...]:
    """Return cells of `resolution` (8 or 9) that hold every point within `radius_m` of a place.

    As `cover`, but without cells that are too far from every point of the place. Measuring them
    takes 20 µs in all, writing to one takes 10 µs: use it for what is filed under cells, not for
    what is read.
    """
    within_m = radius_m + _REACH * (_EDGE_M[resolution] + _EDGE_M[PLACE_RESOLUTION])
    lat, lon = centre_of(place)
    return tuple(
        cell
        for cell in _disk(*_middle(place, radius_m, resolution))
        if distance_m(lat, lon, *centre_of(cell)) <= within_m
    )


def _middle(place: int, radius_m: float, resolution: int) -> tuple[int, int]:
    """Return the cell of `resolution` around a place, and how many rings to take around it."""
    middle = place if resolution == PLACE_RESOLUTION else h3.cell_to_parent(place, resolution)
    per_edge, margin = _RINGS
    return middle, math.ceil(per_edge * radius_m / _EDGE_M[resolution] + margin)
