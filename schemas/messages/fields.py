"""The fields that several payloads share: places, times, texts, whether it is an exercise."""

import enum
from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from schemas.lenient import Lenient, instant, may_grow, number, text
from schemas.restrictions import Restriction, inexactness_m
from schemas.validation_errors import Code, FieldError

__all__ = ["EmergencyCall", "Mode", "Position", "Status"]

Latitude = Annotated[float, Meta(ge=-90.0, le=90.0)]
Longitude = Annotated[float, Meta(ge=-180.0, le=180.0)]
Accuracy = Annotated[
    float,
    Meta(ge=0.0, le=10_000.0),
    Lenient(number(10_000, unknown=10_000)),
    Restriction(
        ("accurac", "nauwkeurig", "precision"),
        inexactness_m,
        alike=("accuracy",),
        unrelated=("vertical", "altitude", "speed", "course", "heading", "bearing"),
    ),
]
Time = Annotated[datetime, Meta(tz=True)]
Eta = Annotated[int, Meta(ge=0, le=86_400)]

# Incoming fields that may be repaired. Optional ones have a default, required ones have none.
Moment = Annotated[Time, Lenient(instant)]
Text = Annotated[str, Meta(max_length=2_000), Lenient(text(2_000))]
Words = Annotated[str, Meta(min_length=1, max_length=2_000), Lenient(text(2_000))]
Name = Annotated[str, Meta(min_length=1, max_length=60), Lenient(text(60))]


def require_version_7(identifier: UUID) -> None:
    """Raise `FieldError` for an id that does not say when it was made (RFC 9562, 5.7)."""
    if identifier.version != 7:
        raise FieldError(
            Code.BAD_ID, "id", f"The id must be a UUID of version 7, not {identifier}."
        )


class Mode(enum.StrEnum):
    """Whether this is an exercise. Drills take the same path and never mix with real reports."""

    REAL = "real"
    DRILL = "drill"


SentMode = Annotated[Mode, may_grow(Mode.REAL)]


class EmergencyCall(enum.StrEnum):
    """Whether 101/112 was called, which Nabij never replaces."""

    CALLED = "called"
    NOT_CALLED = "not_called"
    UNKNOWN = "unknown"


class Status(enum.StrEnum):
    """The status of an incident; the life cycle is in `broker/core/incidents.py`."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    ASSIGNED = "assigned"
    ON_SCENE = "on_scene"
    CLOSED = "closed"


class Position(Struct, frozen=True, forbid_unknown_fields=True):
    """A place on the earth: degrees, and the radius of uncertainty in metres."""

    lat: Latitude
    lon: Longitude
    accuracy_m: Accuracy = 0.0

    def __post_init__(self) -> None:
        if self.lat == 0.0 and self.lon == 0.0:
            raise FieldError(
                Code.NULL_ISLAND, "", "The position is (0, 0): a device without a fix, not a place."
            )
