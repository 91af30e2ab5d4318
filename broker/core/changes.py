"""What services tell each other on Redis streams: typed Structs, and who reads each of them."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from schemas.taxonomy import Desk


class Change(enum.StrEnum):
    """What happened to an incident."""

    OPENED = "opened"
    MERGED = "merged"
    RENEWED = "renewed"  # merged too: the first report that is not old, so people are alerted
    WIDENED = "widened"
    ALERTED = "alerted"
    REPLIED = "replied"
    COMMANDED = "commanded"
    OVERDUE = "overdue"
    RESTATED = "restated"
    CLOSED = "closed"


class IncidentChanged(
    Struct, frozen=True, kw_only=True, tag="incident_changed", omit_defaults=True
):
    """An incident has a new version. `report` comes with `opened`, `merged` and `renewed`."""

    incident: UUID
    change: Change
    at: datetime
    desk: Desk
    report: UUID | None = None


class WalkedIn(Struct, frozen=True, kw_only=True, tag="walked_in"):
    """Users whose place came within the radius of an open incident."""

    incident: UUID
    users: tuple[str, ...]


class Informed(Struct, frozen=True, kw_only=True, tag="informed"):
    """The police say something to the group; `command` is its cause.

    Where there is no group, to each reporter, or to that of `report` alone.
    """

    incident: UUID
    command: UUID
    text: str
    at: datetime
    report: UUID | None = None


class Erased(Struct, frozen=True, kw_only=True, tag="erased"):
    """An incident's retention has ended and the store has forgotten it."""

    incident: UUID
    zone: str


READERS = ("alerting", "groups", "police", "city")

# Who acts on a change. To wake everybody for everything cost more than the commit itself: on two
# cores the readers ran just when intake wanted to publish the escalation.
_READERS_OF_CHANGE: dict[Change, tuple[str, ...]] = {
    Change.OPENED: ("alerting", "police"),
    Change.RENEWED: ("alerting", "police"),
    Change.WIDENED: ("alerting", "police"),
    Change.CLOSED: ("groups", "police"),
}
_READERS_OF_CITY_CHANGE: dict[Change, tuple[str, ...]] = {
    Change.OPENED: ("city",),
    Change.MERGED: ("city",),
    Change.CLOSED: ("groups",),
}

Event = IncidentChanged | WalkedIn | Informed | Erased
T = TypeVar("T")


@dataclass(frozen=True)
class EventKind(Generic[T]):
    """One kind of event, for `Service.on`."""

    payload: type[T]


INCIDENT_CHANGED = EventKind(IncidentChanged)
WALKED_IN = EventKind(WalkedIn)
INFORMED = EventKind(Informed)
ERASED = EventKind(Erased)

_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


def readers(event: Event) -> tuple[str, ...]:
    """Return the services that act on `event`; each has a stream of its own."""
    match event:
        case IncidentChanged(desk=Desk.CITY):
            return _READERS_OF_CITY_CHANGE.get(event.change, ())
        case IncidentChanged():
            return _READERS_OF_CHANGE.get(event.change, ("police",))
        case WalkedIn():
            return ("alerting",)
        case Informed():
            return ("groups",)
        case Erased():
            return ("police",)


def encode(event: Event) -> bytes:
    """Return `event` as it stands on the stream."""
    return _ENCODER.encode(event)


def decode(data: bytes) -> Event:
    """Return the event in a stream entry.

    Raises:
        msgspec.MsgspecError: it is none of ours.
    """
    event: Event = _DECODER.decode(data)
    return event
