"""The zones of the demonstration, and `nabij zones`: import, list, at."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from broker.config import Settings
from broker.core.zones import Area, GeoFile, Zone, ZoneIndex, ZoneKind, parse_geojson
from broker.embedded import EmbeddedRedis
from broker.errors import ConfigError
from broker.store import Store, partitions
from nabij.datadir import DataDir
from nabij.output import Progress


def built_in_zones(kind: ZoneKind) -> list[Zone]:
    """Return the three simple zones around Ghent, Kortrijk and Maaseik."""
    text = resources.files("nabij").joinpath("demo_zones.geojson").read_text(encoding="utf-8")
    return [area.zone() for area in parse_geojson(text).areas if area.kind is kind]


def read_areas(path: Path, kind: ZoneKind | None = None) -> GeoFile:
    """Return what a GeoJSON file holds.

    Raises:
        ConfigError: with every problem in it, and the file's name.
    """
    try:
        return parse_geojson(path.read_bytes(), kind)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def covered(areas: Sequence[Area], progress: Progress) -> list[Zone]:
    """Return the zones of `areas`; slow, so progress is shown."""
    zones = []
    for number, area in enumerate(areas, start=1):
        zones.append(area.zone())
        progress.at(number, len(areas))
    return zones


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """Give the first partition of the store that is configured, or the data directory's, starting it if it is not running.

    Raises:
        ConfigError: the data directory cannot be used.
        UnavailableError: Redis does not answer.
    """
    data_dir = DataDir(settings.data_dir)
    running = data_dir.running()
    url = settings.redis_url or (running and running.redis_url)
    if url:
        async with partitions(url, settings.partitions) as stores:
            yield stores[0]
    else:
        with data_dir.held("embedded"):
            async with (
                EmbeddedRedis(data_dir.path) as redis,
                partitions(redis.url, settings.partitions) as stores,
            ):
                yield stores[0]


async def import_zones(settings: Settings, zones: Sequence[Zone]) -> None:
    """Replace the zones of the kinds that `zones` have."""
    async with opened_store(settings) as store:
        for kind in ZoneKind:
            if of_kind := [zone for zone in zones if zone.kind is kind]:
                await store.zones.save(kind, of_kind)


async def list_zones(settings: Settings) -> list[Zone]:
    """Return the zones in the store."""
    async with opened_store(settings) as store:
        return await store.zones.load()


async def zones_at(settings: Settings, lat: float, lon: float) -> dict[ZoneKind, str]:
    """Return, for each kind, the id of the zone at a place (degrees)."""
    zones = await list_zones(settings)
    return {
        kind: ZoneIndex(zone for zone in zones if zone.kind is kind).zone_at(lat, lon)
        for kind in ZoneKind
    }
