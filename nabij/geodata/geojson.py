"""GeoJSON with projected coordinates, named in its `crs` member, read as degrees."""

import re
from pathlib import Path
from typing import Any

import orjson

from nabij.geodata.geodata_errors import BadRowError, StreamError
from nabij.geodata.places import Projection, projection

_WGS84 = re.compile(r"(?:CRS84|:4326|:4258)$", re.IGNORECASE)  # ETRS89 is within a metre of it
_CODE = re.compile(r":(\d{4,6})$")
DECIMALS = 7  # of a degree: 1 cm


def read_collection(path: Path) -> dict[str, Any]:
    """Read a FeatureCollection, with coordinates turned into degrees if `crs` names others.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a FeatureCollection.
        StreamError: pyproj is needed and missing, or does not know the system, or a place is
            outside its area.
    """
    text = path.read_bytes()
    values = orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    if not isinstance(values, dict) or not isinstance(values.get("features"), list):
        raise ValueError("it is no GeoJSON FeatureCollection")  # noqa: TRY004 - of the text
    name = _name_of(values.get("crs"))
    if not name or _WGS84.search(name):
        return values
    code = _CODE.search(name)
    project = projection(int(code[1])) if code else None
    if project is None:
        raise StreamError(f"{path}: crs {name!r} is none that is understood: convert it to WGS 84")
    try:
        for feature in values["features"]:
            _convert(feature.get("geometry") if isinstance(feature, dict) else None, project)
    except BadRowError as error:
        raise StreamError(f"{path}: crs {name}: {error}") from None
    del values["crs"]
    return values


def _name_of(crs: Any) -> str:
    properties = crs.get("properties") if isinstance(crs, dict) else None
    return str(properties.get("name") or "") if isinstance(properties, dict) else ""


def _convert(geometry: Any, project: Projection) -> None:
    if not isinstance(geometry, dict):
        return
    if "coordinates" in geometry:
        geometry["coordinates"] = _converted(geometry["coordinates"], project)
    for each in geometry.get("geometries") or ():
        _convert(each, project)


def _converted(value: Any, project: Projection) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) >= 2 and all(isinstance(each, (int, float)) for each in value):
        lat, lon = project(value[0], value[1])
        return [round(lon, DECIMALS), round(lat, DECIMALS)]
    return [_converted(each, project) for each in value]
