"""A place in Ghent, and GeoJSON around it."""

from typing import Any

SQUARE = [[3.70, 51.04], [3.74, 51.04], [3.74, 51.07], [3.70, 51.07], [3.70, 51.04]]

PLACE = (51.0543, 3.7217)


def feature(geometry: Any = None, **properties: Any) -> dict[str, Any]:
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    return {"type": "Feature", "properties": properties, "geometry": geometry or polygon}


def ring(*corners: list[float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
