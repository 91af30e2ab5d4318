"""What services tell each other on Redis streams: typed Structs, and which services read which."""

import enum
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from schemas.taxonomy import Desk


class Change(enum.StrEnum):
    """What happened to an incident."""

    OPENED = "opened"
    MERGED = "merged"
    RENEWED = "renewed"  # also a merge: the first report that is not old, so people are alerted
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
    """Users who came within the radius of an open incident."""

    incident: UUID
    users: tuple[str, ...]


class Informed(Struct, frozen=True, kw_only=True, tag="informed"):
    """The police say something to the group; `command` is its cause.

    Without a group it goes to each reporter, or only to the reporter of `report`.
    """

    incident: UUID
    command: UUID
    text: str
    at: datetime
    report: UUID | None = None


class ConversationSilent(Struct, frozen=True, kw_only=True, tag="conversation_silent"):
    """One reporter's conversation about an incident without a group has been silent too long."""

    incident: UUID
    conversation: UUID
    at: datetime


class Erased(Struct, frozen=True, kw_only=True, tag="erased"):
    """An incident's retention has ended and the store has deleted it."""

    incident: UUID
    zone: str


Event = IncidentChanged | WalkedIn | Informed | ConversationSilent | Erased
T = TypeVar("T")


@dataclass(frozen=True)
class EventKind(Generic[T]):
    """One kind of event, for `Service.on`."""

    payload: type[T]


INCIDENT_CHANGED = EventKind(IncidentChanged)
WALKED_IN = EventKind(WalkedIn)
INFORMED = EventKind(Informed)
CONVERSATION_SILENT = EventKind(ConversationSilent)
ERASED = EventKind(Erased)

_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Interest:
    """Which events a service reads: all of a kind, or the changes of some kinds and desks."""

    payload: type[Any]
    changes: Collection[Change] = tuple(Change)
    desks: Collection[Desk] = tuple(Desk)

    def kinds(self) -> list[object]:
        """Return the kinds by which `Routes` looks up readers."""
        if self.payload is not IncidentChanged:
            return [self.payload]
        return [*itertools.product(self.changes, self.desks)]


class Routes:
    """Which services read which event; each reading service has its own stream.

    Waking every service for every event cost more than the commit itself: on two cores the readers
    ran just when intake was about to publish the escalation.
    """

    def __init__(self, interests: Mapping[str, Sequence[Interest]]) -> None:
        self.readers = tuple(name for name, some in interests.items() if some)
        found: dict[object, dict[str, None]] = {}
        for name, some in interests.items():
            for kind in itertools.chain.from_iterable(one.kinds() for one in some):
                found.setdefault(kind, {})[name] = None
        self._readers_of = {kind: tuple(names) for kind, names in found.items()}

    def readers_of(self, event: Event) -> tuple[str, ...]:
        """Return the services that read `event`."""
        kind: object = type(event)
        if isinstance(event, IncidentChanged):
            kind = (event.change, event.desk)
        return self._readers_of.get(kind, ())


def encode(event: Event) -> bytes:
    """Return `event` as it is written to the stream."""
    return _ENCODER.encode(event)


def decode(data: bytes) -> Event:
    """Return the event in a stream entry.

    Raises:
        msgspec.MsgspecError: it is not an event of ours.
    """
    event: Event = _DECODER.decode(data)
    return event
