"""The zones of the demonstration, and `nabij zones`: import, list, at."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from broker.core.zones import Area, GeoFile, Polygon, Zone, ZoneIndex, ZoneKind, parse_geojson
from broker.errors import ConfigError
from broker.runtime.config import Settings
from broker.store import Opening
from nabij.geodata.geodata_errors import StreamError
from nabij.geodata.geojson import read_collection
from nabij.geodata.timezones import is_nearer_when_turned
from nabij.local.opened_store import opened_store
from nabij.output import Progress

DEMO_ZONES = Path(__file__).with_name("demo_zones.geojson")


def built_in_zones(kind: ZoneKind) -> list[Zone]:
    """Return the three simple zones around Ghent, Kortrijk and Maaseik."""
    areas = parse_geojson(DEMO_ZONES.read_text(encoding="utf-8")).areas
    return [area.zone() for area in areas if area.kind is kind]


def read_areas(path: Path, kind: ZoneKind | None = None, id_property: str = "id") -> GeoFile:
    """Return the content of a GeoJSON file, with projected coordinates turned into degrees.

    Raises:
        ConfigError: with every problem in it, and the file's name.
    """
    try:
        found = parse_geojson(orjson.dumps(read_collection(path)), kind, id_property)
        _refuse_swapped(found.areas)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except StreamError as error:
        raise ConfigError([str(error)]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not a GeoJSON FeatureCollection: {error}"]) from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
    return found


def _refuse_swapped(areas: Sequence[Area]) -> None:
    """Refuse zones that are far from any city, but near one with coordinates swapped."""
    for area in areas[:1]:
        geometry = area.geometry
        rings = geometry.coordinates if isinstance(geometry, Polygon) else geometry.coordinates[0]
        lon, lat, *_ = rings[0][0]
        if is_nearer_when_turned(lat, lon):
            problem = (
                f"{area.id}: {lon:g}, {lat:g} is far from any city, and {lat:g}, {lon:g} is not: "
                "GeoJSON has the longitude first; turn the coordinates round"
            )
            raise ConfigError([problem])


def covered(areas: Sequence[Area], progress: Progress) -> list[Zone]:
    """Return the zones of `areas`; slow, so progress is shown."""
    zones = []
    for number, area in enumerate(areas, start=1):
        zones.append(area.zone())
        progress.at(number, len(areas))
    return zones


async def import_zones(settings: Settings, zones: Sequence[Zone]) -> None:
    """Replace the zones of the kinds that `zones` have."""
    async with opened_store(settings, Opening.USE) as partitions:
        for kind in ZoneKind:
            if of_kind := [zone for zone in zones if zone.kind is kind]:
                await partitions.first.zones.save(kind, of_kind)


async def list_zones(settings: Settings) -> list[Zone]:
    """Return the zones in the store."""
    async with opened_store(settings) as partitions:
        return await partitions.first.zones.load()


async def zones_at(settings: Settings, lat: float, lon: float) -> dict[ZoneKind, str]:
    """Return, for each kind, the id of the zone at a place (degrees)."""
    zones = await list_zones(settings)
    return {
        kind: ZoneIndex(zone for zone in zones if zone.kind is kind).zone_at(lat, lon)
        for kind in ZoneKind
    }
