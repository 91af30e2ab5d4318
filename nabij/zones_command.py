"""What `nabij zones` prints."""

import re
from pathlib import Path

import h3.api.basic_int as h3

from broker.core.grid import PLACE_RESOLUTION
from broker.core.zones import UNASSIGNED, GeoFile, Zone, ZoneKind
from broker.errors import ConfigError
from broker.runtime.config import Settings
from nabij.event_loop import run
from nabij.local.data_directory import DataDir
from nabij.local.zone_files import covered, import_zones, list_zones, read_areas, zones_at
from nabij.output import Progress, print_json, print_line, print_table, say

NAMED = 5  # features of one kind that are named


def run_import(
    settings: Settings, file: Path, kind: str | None, id_property: str, *, as_json: bool
) -> None:
    """Import the zones in `file`."""
    geofile = read_areas(file, _kind(kind), id_property)
    with Progress("covering with cells") as progress:
        zones = covered(geofile.areas, progress)
    run(import_zones(settings, zones))
    counts = {kind: sum(zone.kind is kind for zone in zones) for kind in ZoneKind}
    if as_json:
        skipped = list(geofile.skipped)
        print_json({**counts, "skipped": skipped, "cells": sum(map(_cells, zones))})
    else:
        found = ", ".join(f"{count} of kind {kind}" for kind, count in counts.items() if count)
        print_line(f"imported {found}; {sum(map(_cells, zones)):,} cells")
    _tell_skipped(geofile)
    running = DataDir(settings.data_dir).running()
    if settings.mqtt_url is None and running:
        say("the running `nabij up` uses them now; restart it to have accounts for new desks")


def _tell_skipped(geofile: GeoFile) -> None:
    """Name what is no zone, by its reason, and the ids that topics could not have."""
    by_reason: dict[str, list[str]] = {}
    for each in geofile.skipped:
        by_reason.setdefault(each.reason, []).append(each.feature)
    for reason, features in by_reason.items():
        more = f" and {len(features) - NAMED:,} more" if len(features) > NAMED else ""
        say(f"skipped {len(features):,}: {reason}: {', '.join(features[:NAMED])}{more}")
    if any(reason.startswith("the level") for reason in by_reason):
        say("--kind takes features of every level")
    changed = [area for area in geofile.areas if area.id != area.given_id]
    for area in changed[:NAMED]:
        say(f"the id {area.given_id!r} becomes {area.id}, as a level of topics")
    if len(changed) > NAMED:
        say(f"and {len(changed) - NAMED:,} more ids")


def run_list(settings: Settings, *, as_json: bool) -> None:
    """Print the zones in the store."""
    zones = run(list_zones(settings))
    if as_json:
        print_json(
            [
                {"kind": zone.kind, "id": zone.id, "name": zone.name, "cells": _cells(zone)}
                for zone in zones
            ]
        )
    elif zones:
        rows = [[zone.kind.value, zone.id, zone.name, f"{_cells(zone):,}"] for zone in zones]
        print_table(["kind", "id", "name", "cells"], rows)
    else:
        say("no zones: `nabij up` will use Ghent, Kortrijk and Maaseik, built in")


def run_at(settings: Settings, place: str, *, as_json: bool) -> None:
    """Print the zones that a place is in."""
    lat, lon = place_of(place)
    found = run(zones_at(settings, lat, lon))
    if as_json:
        print_json(found)
        return
    for kind, zone in found.items():
        print_line(f"{kind}: {zone}{' (no zone has it)' if zone == UNASSIGNED else ''}")


def place_of(text: str) -> tuple[float, float]:
    """Return the latitude and longitude in `LAT,LON`.

    Raises:
        ConfigError: it is no such text.
    """
    match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*", text)
    lat, lon = (float(match[1]), float(match[2])) if match else (91.0, 181.0)
    if abs(lat) > 90.0 or abs(lon) > 180.0:
        raise ConfigError([f"{text!r} must be LAT,LON in degrees, as in 51.0543,3.7217"])
    return lat, lon


def _kind(text: str | None) -> ZoneKind | None:
    if text is None:
        return None
    try:
        return ZoneKind(text)
    except ValueError:
        raise ConfigError([f"--kind {text!r} must be {' or '.join(ZoneKind)}"]) from None


def _cells(zone: Zone) -> int:
    """How many cells of the finest resolution."""
    return sum(h3.cell_to_children_size(cell, PLACE_RESOLUTION) for cell in zone.cells)
