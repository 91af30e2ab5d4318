"""Files of zones, read for the oracle, which reads none itself."""

from collections.abc import Sequence
from pathlib import Path

from nabij.geodata.geodata_errors import StreamError
from nabij.geodata.geojson import read_collection
from verify.oracle.geofence import Geofence, Kind


class GeofenceError(ValueError):
    """A GeoJSON file that has no zones; the message says why."""


def read_geofence(paths: Sequence[Path], kind: Kind, id_property: str = "id") -> Geofence:
    """Read the zones of one kind from GeoJSON files of Polygons and MultiPolygons.

    Raises:
        GeofenceError: a file cannot be read, or is none of that.
    """
    collections = []
    for path in paths:
        try:
            features = read_collection(path)["features"]
            Geofence.from_collections([features], kind, id_property)
        except StreamError as error:
            raise GeofenceError(str(error)) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise GeofenceError(f"{path}: no GeoJSON with zones: {error!r}") from error
        collections.append(features)
    return Geofence.from_collections(collections, kind, id_property)
