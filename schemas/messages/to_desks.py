"""What desks get besides receipts: escalations and incident states for the police, cases for a city."""

import enum
from typing import Annotated
from uuid import UUID

from msgspec import Struct

from schemas.lenient import may_grow
from schemas.messages.fields import EmergencyCall, Mode, Position, SentMode, Status, Time
from schemas.taxonomy import Audience, Language, Priority

__all__ = ["Case", "Escalation", "EscalationKind", "IncidentState"]


class EscalationKind(enum.StrEnum):
    """Why the police get this: a new incident, more about one, no acknowledgement, an answer.

    `said` is what the reporter of `report` says about an incident for the police alone.
    """

    NEW = "new"
    UPDATE = "update"
    OVERDUE = "overdue"
    ANSWER = "answer"
    SAID = "said"
    OTHER = "other"


class Escalation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message for the police. `id` is the same by every path; readers drop repeats by it.

    `version` is the incident's at commit. `attempt` counts from 1; above 1 it was not acknowledged.
    """

    id: UUID
    kind: Annotated[EscalationKind, may_grow(EscalationKind.OTHER)]
    incident: UUID
    version: int
    zone: str
    priority: Annotated[Priority, may_grow(Priority.P1)]
    category: str
    location: Position
    committed_at: Time
    report: UUID | None = None
    seen_at: Time | None = None
    text: str = ""
    emergency_call: Annotated[EmergencyCall, may_grow(EmergencyCall.UNKNOWN)] = (
        EmergencyCall.UNKNOWN
    )
    audience: Annotated[Audience, may_grow(Audience.POLICE)] = Audience.POLICE_AND_NEARBY
    language: Annotated[Language, may_grow(Language.NL)] = Language.NL
    reporter_location: Position | None = None
    reports: int = 1
    attempt: int = 1
    question: UUID | None = None
    mode: SentMode = Mode.REAL


class IncidentState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of an incident, retained for desks that subscribe later. It has counts, not names.

    `seen_at` is the latest of its reports.
    """

    incident: UUID
    version: int
    status: Annotated[Status, may_grow(Status.OPEN)]
    category: str
    priority: Annotated[Priority, may_grow(Priority.P1)]
    zone: str
    location: Position
    radius_m: float
    wave: int
    opened_at: Time
    seen_at: Time
    updated_at: Time
    reports: int
    alerted: int = 0
    accepted: int = 0
    on_scene: int = 0
    acknowledged_by: str | None = None
    assigned: tuple[str, ...] = ()
    outcome: str | None = None
    mode: SentMode = Mode.REAL


class Case(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A report for the municipality's desk. One per report; `incident` groups them.

    One with `message` has what the reporter said about it since.
    """

    id: UUID
    incident: UUID
    report: UUID
    version: int
    municipality: str
    category: str
    location: Position
    seen_at: Time
    committed_at: Time
    text: str = ""
    language: Annotated[Language, may_grow(Language.NL)] = Language.NL
    reports: int = 1
    message: UUID | None = None
    mode: SentMode = Mode.REAL
