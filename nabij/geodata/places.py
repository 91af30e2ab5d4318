"""The place of a row: degrees in two columns, a projected place, or a point in one column."""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from nabij.geodata.geodata_errors import BadRowError, StreamError, shown

WGS84 = 4326
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"

_NUMBER = re.compile(NUMBER)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[.\u00a0\u202f '\u2019]\d{3})+(?:,\d*)?")
_WKT = re.compile(
    rf"(?:SRID=\d+;)?\s*POINT\s*Z?M?\s*\(\s*({NUMBER})\s+({NUMBER})(?:\s+{NUMBER})*\s*\)",
    re.IGNORECASE,
)
_PAIR = re.compile(rf"\(?({NUMBER})\s?[,;\s]\s?({NUMBER})\s?\)?$")
POINT_MOST = 400  # characters: an address and a point; a longer text is no point


class Place(Protocol):
    """How the place of a row is read."""

    @property
    def columns(self) -> set[str]:
        """Its columns."""

    def read(self, values: Mapping[str, str]) -> tuple[float, float]:
        """Return latitude and longitude (degrees, WGS 84).

        Raises:
            BadRowError: there is none.
        """


class Projection(Protocol):
    """Turns coordinates of a file (east, north) into latitude and longitude."""

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Return latitude and longitude.

        Raises:
            BadRowError: the place is outside the area that the projection is for.
        """


@dataclass(frozen=True, slots=True)
class Columns:
    """A place in two columns: projected east and north, or longitude and latitude."""

    x: str
    y: str
    decimal: str = "."
    project: Projection | None = None

    @property
    def columns(self) -> set[str]:
        """Both."""
        return {self.x, self.y}

    def read(self, values: Mapping[str, str]) -> tuple[float, float]:
        """Return latitude and longitude."""
        if self.project:
            x = _number("x", values[self.x], self.decimal)
            return _real(*self.project(x, _number("y", values[self.y], self.decimal)))
        lat = _number("latitude", values[self.y], self.decimal)
        return _degrees(lat, _number("longitude", values[self.x], self.decimal))


@dataclass(frozen=True, slots=True)
class Point:
    """A place in one column: WKT, GeoJSON, or two numbers, latitude first unless said otherwise."""

    column: str
    lat_first: bool = True
    project: Projection | None = None

    @property
    def columns(self) -> set[str]:
        """The one."""
        return {self.column}

    def read(self, values: Mapping[str, str]) -> tuple[float, float]:
        """Return latitude and longitude."""
        value = values[self.column].strip()
        if not value:
            raise BadRowError("there is no point", "the column is empty")
        if len(value) > POINT_MOST:
            raise BadRowError("the point is too long", shown(value))
        x, y = self._pair(value)
        return _real(*self.project(x, y)) if self.project else _degrees(y, x)

    def _pair(self, value: str) -> tuple[float, float]:
        if found := _WKT.fullmatch(value):
            return float(found[1]), float(found[2])
        if value.startswith("{"):
            return _geojson(value)
        if found := _PAIR.search(value):
            first, second = float(found[1]), float(found[2])
            return (second, first) if self.lat_first and not self.project else (first, second)
        raise BadRowError(
            "the point is no WKT POINT (…), no GeoJSON Point and no pair of numbers", shown(value)
        )


def _geojson(value: str) -> tuple[float, float]:
    try:
        point = orjson.loads(value)
        kind, (x, y, *_) = point["type"], map(float, point["coordinates"])
    except (ValueError, TypeError, KeyError, OverflowError):
        kind, x, y = "", 0.0, 0.0
    if kind != "Point":
        raise BadRowError("the point is no GeoJSON Point", shown(value))
    return x, y


def _number(name: str, value: str, decimal: str) -> float:
    text = value.strip().removesuffix("°")
    if not text:
        raise BadRowError(f"there is no {name}", "the column is empty")
    if decimal == ",":
        if _GROUPED.fullmatch(text):
            text = re.sub(r"[^\d,+-]", "", text)
        text = text.replace(",", ".") if text.count(",") == 1 else text
    if not _NUMBER.fullmatch(text):
        hint = ""
        if decimal == "." and _NUMBER.fullmatch(text.replace(",", ".", 1)):
            hint = ' (decimal = "," in the mapping reads it)'
        raise BadRowError(f"the {name} is no number{hint}", shown(value))
    return float(text)


def _degrees(lat: float, lon: float) -> tuple[float, float]:
    if not -90.0 <= lat <= 90.0 or not -180.0 <= lon <= 180.0:  # NaN fails here too
        name, value, limit = (
            ("latitude", lat, 90) if not -90.0 <= lat <= 90.0 else ("longitude", lon, 180)
        )
        hint = ""
        if abs(lon) <= 90.0 < abs(lat) <= 180.0:
            hint = " (are latitude and longitude swapped?)"
        elif max(abs(lat), abs(lon)) > 1_000.0:
            hint = " (are these metres? then say crs, x and y in the mapping)"
        raise BadRowError(f"the {name} is not between -{limit} and {limit}{hint}", f"{value:g}")
    return _real(lat, lon)


def _real(lat: float, lon: float) -> tuple[float, float]:
    if lat == 0.0 and lon == 0.0:
        raise BadRowError("the position is (0, 0), which means none", "0, 0")
    return lat, lon


@dataclass(frozen=True)
class EpsgProjection:
    """Projected coordinates by an EPSG code, by pyproj."""

    code: int
    area: tuple[float, float, float, float] | None  # west, south, east, north
    _transform: Callable[[float, float], tuple[float, float]] = field(compare=False)

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Return latitude and longitude of a place east and north."""
        lat, lon = self._at(x, y)
        if not self._covers(lat, lon):
            swapped = " (are x and y swapped?)" if self._covers(*self._at(y, x)) else ""
            raise BadRowError(
                f"the place is outside the area of EPSG:{self.code}{swapped}", f"{x:g}, {y:g}"
            )
        return lat, lon

    def _at(self, x: float, y: float) -> tuple[float, float]:
        lon, lat = self._transform(x, y)
        return lat, lon

    def _covers(self, lat: float, lon: float) -> bool:
        if not (math.isfinite(lat) and math.isfinite(lon)):
            return False
        west, south, east, north = self.area or (-180.0, -90.0, 180.0, 90.0)
        return south <= lat <= north and (
            west <= lon <= east if west <= east else lon >= west or lon <= east
        )


def projection(code: int) -> EpsgProjection | None:
    """Return the projection of an EPSG code; None for WGS 84 itself, which needs none.

    Raises:
        StreamError: there is no such code, or pyproj is not installed.
    """
    if code == WGS84:
        return None
    try:
        import pyproj  # noqa: PLC0415 - an extra
    except ImportError:
        raise StreamError(
            f"crs EPSG:{code} needs pyproj, which is not installed: "
            f"{sys.executable} -m pip install 'nabij[replay]'"
        ) from None
    try:
        crs = pyproj.CRS.from_epsg(code)
        transformer: Any = pyproj.Transformer.from_crs(crs, WGS84, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise StreamError(f"crs EPSG:{code} is none that pyproj knows ({error})") from None
    use = crs.area_of_use
    margin = 0.1  # of a degree: what lies just outside still has a good place
    area = (
        (use.west - margin, use.south - margin, use.east + margin, use.north + margin)
        if use
        else None
    )
    return EpsgProjection(code, area, transformer.transform)
