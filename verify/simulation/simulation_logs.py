"""What devices and desk write down: all that the checker reads. Times are virtual seconds."""

from dataclasses import dataclass, field
from uuid import UUID

from schemas.messages import (
    Alert,
    Brief,
    Case,
    Escalation,
    GroupEvent,
    GroupMessage,
    IncidentState,
    Outcome,
    PoliceCommand,
    Question,
    Receipt,
    Rejection,
    Report,
)


@dataclass(slots=True)
class SimulatedPresence:
    """A presence: where (degrees; None: nowhere), first sent when, confirmed when."""

    lat_lon: tuple[float, float] | None
    sent_at: float
    confirmed_at: float | None = None


@dataclass(slots=True)
class DeviceLog:
    """One person's device."""

    user: str
    reports: dict[UUID, tuple[float, Report]] = field(default_factory=dict)
    receipts: list[tuple[float, Receipt]] = field(default_factory=list)
    said: dict[UUID, GroupMessage] = field(default_factory=dict)  # about what they reported
    alerts: list[tuple[float, Alert | Brief]] = field(default_factory=list)
    events: list[tuple[float, GroupEvent]] = field(default_factory=list)
    questions: list[tuple[float, Question]] = field(default_factory=list)
    presences: list[SimulatedPresence] = field(default_factory=list)
    synced_at: list[float] = field(default_factory=list)
    odd: set[UUID] = field(default_factory=set)  # the reports in which something was odd
    briefs: list[bytes] = field(default_factory=list)  # as they came
    refused: dict[UUID, set[Outcome]] = field(default_factory=dict)  # what was garbled
    journal: set[UUID] = field(default_factory=set)  # what is unconfirmed at the end


@dataclass(slots=True)
class Synced:
    """A desk's sync: of which desk, sent when (Unix time is EPOCH_S more), answered when."""

    kind: str
    zone: str
    sent_at: float
    answered_at: float | None = None


@dataclass(slots=True)
class DeskLog:
    """The desk of all zones; it reads the city's cases too."""

    commands: dict[UUID, tuple[float, PoliceCommand]] = field(default_factory=dict)
    receipts: list[tuple[float, Receipt]] = field(default_factory=list)
    escalations: list[tuple[float, Escalation]] = field(default_factory=list)
    states: list[tuple[float, IncidentState]] = field(default_factory=list)
    cleared: list[tuple[float, UUID]] = field(default_factory=list)
    cases: list[tuple[float, Case]] = field(default_factory=list)
    syncs: dict[UUID, Synced] = field(default_factory=dict)
    refused: dict[UUID, set[Outcome]] = field(default_factory=dict)
    journal: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Alarm:
    """The desk of a zone is unattended, or is not any more."""

    kind: str
    zone: str
    stands: bool


@dataclass(slots=True)
class OperatorLog:
    """What operators hear, and what was garbled for them to hear of."""

    dead_letters: list[tuple[float, Rejection]] = field(default_factory=list)
    alarms: list[tuple[float, Alarm]] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Rest:
    """What is left when all is over: how much the store and the MQTT broker still hold."""

    left: dict[str, int] = field(default_factory=dict)
    late_states: list[IncidentState] = field(default_factory=list)  # to who subscribed late
    deaths: int = 0  # of the MQTT broker


@dataclass(slots=True)
class Logs:
    """Everybody's."""

    devices: dict[str, DeviceLog]
    desk: DeskLog
    operator: OperatorLog
    rest: Rest
    trouble: list[str] = field(default_factory=list)  # what no part of the system may raise
