"""The index of open incidents by place, for reports near them and for people who come near.

A cell is of the partition of its region. Around most incidents all cells are of the incident's own
partition and are written with its commit; cells beyond a border are written by
`broker/store/partition_locks.py`.
"""

from collections.abc import Sequence

from broker.core.grid import (
    DISTRICT_RESOLUTION,
    INDEX_RESOLUTION,
    cover,
    filed,
    place_of,
    touched,
)
from broker.core.incidents import Incident
from broker.core.placed_report import PlacedReport
from broker.store.kernel.keys import Keys
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction
from schemas.messages import Mode
from schemas.taxonomy import Audience


def joinable_by(keys: Keys, placed: PlacedReport) -> str:
    """Return the key of the open incidents that a report may join."""
    cell, _ = filed(placed.cell)
    return keys.joinable(_kind(placed.report.category, placed.report.mode, placed.audience), cell)


def joining_cells(incident: Incident) -> Sequence[int]:
    """Return the cells of resolution 9 from which a report may join `incident`."""
    place = place_of(incident.location.lat, incident.location.lon)
    return touched(place, incident.merge_m, INDEX_RESOLUTION)


def reached_cells(incident: Incident) -> Sequence[int]:
    """Return the cells of resolution 9 in which the recipients of `incident` are filed."""
    if not incident.alerts_people:
        return ()
    place = incident.location
    return cover(place.lat, place.lon, incident.radius_m)


def reached_districts(incident: Incident) -> Sequence[int]:
    """Return the cells of resolution 8 that the alerts of `incident` reach into."""
    if not incident.alerts_people:
        return ()
    place = place_of(incident.location.lat, incident.location.lon)
    return touched(place, incident.radius_m, DISTRICT_RESOLUTION)


def add_joinable(transaction: Transaction, incident: Incident) -> None:
    """Let reports in this partition's cells find `incident`."""
    place, name = incident.location, str(incident.id)
    targets = _joining(transaction.keys, incident)
    transaction.call_each(targets, "HSET", name, f"{place.lat!r} {place.lon!r}", "#", name)


def add_reached(transaction: Transaction, incident: Incident) -> None:
    """Let people who come into this partition's cells find `incident`."""
    if targets := _reached(transaction.keys, incident):
        place, since_ms = incident.location, milliseconds(incident.wave_at)
        entry = f"{place.lat!r} {place.lon!r} {incident.radius_m!r} {since_ms}"
        transaction.call_each(targets, "HSET", str(incident.id), entry)


def remove(transaction: Transaction, incident: Incident) -> None:
    """Remove `incident` from this partition's cells."""
    # The marker `#` stays as it is while there are others: that this one has closed changes no
    # decision to join another or to open one, and one to join this fails on its version.
    transaction.unfile(_joining(transaction.keys, incident), str(incident.id))
    if targets := _reached(transaction.keys, incident):
        transaction.call_each(targets, "HDEL", str(incident.id))


def _joining(keys: Keys, incident: Incident) -> list[str]:
    kind = _kind(incident.category, incident.mode, incident.audience)
    return [keys.joinable(kind, cell) for cell in joining_cells(incident) if keys.owns(cell)]


def _reached(keys: Keys, incident: Incident) -> list[str]:
    return [keys.reaching(cell) for cell in reached_districts(incident) if keys.owns(cell)]


def _kind(category: str, mode: Mode, audience: Audience) -> str:
    """What must be equal for reports to become one incident."""
    return f"{category}:{mode}:{audience}"
