"""What participants get besides receipts: alerts, in full and in short, group events, questions."""

import enum
from typing import Annotated
from uuid import UUID

from msgspec import Struct

from schemas.lenient import Lenient, may_grow
from schemas.messages.fields import Mode, Position, SentMode, Time
from schemas.taxonomy import Names, Urgency

__all__ = ["Alert", "AlertReason", "Brief", "GroupEvent", "GroupEventKind", "GroupRole", "Question"]


class AlertReason(enum.StrEnum):
    """Why this participant is alerted now."""

    NEARBY = "nearby"
    WALKED_IN = "walked_in"
    WIDENED = "widened"
    OTHER = "other"


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happens near you. `seen_at` is the last sighting; readers drop repeats by `id`."""

    id: UUID
    incident: UUID
    wave: int
    reason: Annotated[AlertReason, may_grow(AlertReason.OTHER)]
    category: str
    names: Names
    urgency: Annotated[Urgency, may_grow(Urgency.URGENT)]
    location: Position
    radius_m: float
    opened_at: Time
    seen_at: Time
    expires_at: Time
    advice: Names
    text: str | None = None
    mode: SentMode = Mode.REAL


class Brief(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alert in less than 256 bytes, for small devices.

    `id` and `incident` are those of the alert, and the same replies are possible. `lat` and `lon`
    are rounded to five decimals (a metre), `expires_at` to seconds. `call` is the emergency number.
    """

    id: UUID
    incident: UUID
    category: str
    lat: float
    lon: float
    expires_at: Time
    call: str
    mode: SentMode = Mode.REAL


class GroupEventKind(enum.StrEnum):
    """What happened in a group."""

    JOINED = "joined"
    LEFT = "left"
    SAID = "said"
    MOVED = "moved"
    CLOSED = "closed"
    OTHER = "other"


class GroupRole(enum.StrEnum):
    """The role of a member in a group. The broker sets it, never the sender."""

    REPORTER = "reporter"
    RESPONDER = "responder"
    POLICE = "police"
    NABIJ = "nabij"


class GroupEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happened in the group around an incident.

    `member` is a name that is valid only within this incident (`helper-2`, `reporter-1`, `police`):
    members learn neither each other's user ids nor positions. A device shows `role` beside the
    text, which any member may have written. `moved` tells a new `eta_s`, or `on_scene`. `sequence`
    counts the incident's group events from 1.
    """

    id: UUID
    incident: UUID
    sequence: int
    kind: Annotated[GroupEventKind, may_grow(GroupEventKind.OTHER)]
    at: Time
    member: str
    role: Annotated[GroupRole | None, Lenient()] = None
    members: int
    eta_s: int | None = None
    on_scene: int = 0
    text: str | None = None
    you: str | None = None


class Question(Struct, frozen=True, kw_only=True):
    """A question of the police to the reporter alone."""

    id: UUID
    incident: UUID
    report: UUID
    text: str
    asked_at: Time
