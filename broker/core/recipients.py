"""Who is alerted to an incident: participants within its radius, but not its reporters."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from broker.core.grid import centre_of, distance_m
from broker.core.incidents import Incident
from schemas.messages import TAKES_ALERTS, Availability, Status


class Located(NamedTuple):
    """A participant's place: an H3 cell of resolution 10, and when they were there (Unix ms).

    With several MQTT brokers, `broker_index` is the one by which the position came.
    """

    user: str
    place: int
    seen_ms: int
    availability: Availability = Availability.AVAILABLE
    broker_index: int = 0


def recipients(
    people: Iterable[Located],
    incident: Incident,
    *,
    presence_s: int,
    now: datetime,
    never: Collection[str] = (),
) -> list[str]:
    """Return the users to alert, nearest first; at equal distance by name.

    `never` are the users who must not be alerted: reporters, and those who were alerted before.
    """
    if not incident.alerts_people or incident.status is Status.CLOSED:
        return []
    oldest_ms = int(now.timestamp() * 1000) - presence_s * 1000
    distances: dict[int, float] = {}  # people share cells: measure each cell once
    near: list[tuple[float, str]] = []
    for person in people:
        distance = distances.get(person.place)
        if distance is None:
            distance = distances[person.place] = distance_to(incident, person.place)
        if (
            distance <= incident.radius_m
            and person.seen_ms > oldest_ms
            and person.availability in TAKES_ALERTS
            and person.user not in never
        ):
            near.append((distance, person.user))
    near.sort()
    return [user for _, user in near]


def distance_to(incident: Incident, place: int) -> float:
    """Return the distance in metres from the incident to the centre of a place."""
    return distance_m(incident.location.lat, incident.location.lon, *centre_of(place))
