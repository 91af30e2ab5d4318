"""Places of time zones: to guess one from a place, and to detect swapped coordinates.

From the table of the time zone database (`zone.tab`), which has one city per zone. Without that
table nothing is guessed.
"""

import re
import zoneinfo
from functools import cache
from pathlib import Path

import h3.api.basic_int as h3

FAR_M = 3_000_000.0  # from a zone's city to the far end of its area: America/Chicago's is 2,200 km
_COORDINATES = re.compile(r"([+-])(\d\d)(\d\d)(\d\d)?([+-])(\d{3})(\d\d)(\d\d)?")


def nearest_zone(lat: float, lon: float) -> str | None:
    """Return the name of the zone with the nearest city: a guess, wrong near borders."""
    cities = _cities()
    return min(cities, key=lambda zone: distance_m(*cities[zone], lat, lon), default=None)


def looks_swapped(zone: str, lat: float, lon: float) -> bool:
    """Whether the place is far from the zone's area, and near with coordinates swapped."""
    city = _cities().get(zone)
    if city is None or abs(lon) > 90.0:
        return False
    return distance_m(*city, lat, lon) > FAR_M > distance_m(*city, lon, lat)


def is_nearer_when_turned(lat: float, lon: float) -> bool:
    """Whether no zone's city is near the place, but one is with coordinates swapped."""
    if not _cities() or abs(lon) > 90.0:
        return False
    here, turned = (
        min(distance_m(*city, *place) for city in _cities().values())
        for place in ((lat, lon), (lon, lat))
    )
    return here > 500_000.0 and turned < 300_000.0


def distance_m(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Return the distance of two places over the ground."""
    return float(h3.great_circle_distance((lat, lon), (other_lat, other_lon), unit="m"))


@cache
def _cities() -> dict[str, tuple[float, float]]:
    cities = {}
    for directory in zoneinfo.TZPATH:
        try:
            lines = (Path(directory) / "zone.tab").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            columns = line.split("\t")
            found = _COORDINATES.fullmatch(columns[1]) if len(columns) > 2 else None
            if found:
                cities[columns[2]] = (_degrees(found, 1), _degrees(found, 5))
        break
    return cities


def _degrees(found: "re.Match[str]", first: int) -> float:
    sign, degrees, minutes, seconds = found.group(first, first + 1, first + 2, first + 3)
    value = int(degrees) + int(minutes) / 60 + int(seconds or 0) / 3600
    return -value if sign == "-" else value
