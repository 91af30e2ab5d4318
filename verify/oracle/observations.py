"""What a device or a desk did or heard: one vocabulary for the logs of every proof.

Chaos writes these as JSON lines, the simulation keeps them in memory, a replay keeps what it hears
(`history.py` has what it sent, each with its receipt). A row has what a judge reads of a message,
and no more: a run hears a million. `t` is Unix time in seconds on the writer's clock.
"""

from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct

from schemas.messages import (
    Alert,
    AlertReason,
    Brief,
    Case,
    Escalation,
    EscalationKind,
    GroupEvent,
    GroupEventKind,
    GroupRole,
    IncidentState,
    Merge,
    Mode,
    Outcome,
    PoliceCommand,
    Question,
    Receipt,
    ReplyKind,
    Report,
    Status,
    Subject,
)
from schemas.taxonomy import Audience

Row = TypeVar("Row", bound=Struct)

# -- what is sent --------------------------------------------------------------------------------


class ReportCreated(Struct, frozen=True, kw_only=True, tag="report", omit_defaults=True):
    """A report is made. `poison` must be rejected; with the receipt of a `probe` Redis is killed."""

    t: float
    user: str
    id: UUID
    category: str
    lat: float
    lon: float
    seen_at: float
    audience: Audience = Audience.POLICE_AND_NEARBY
    mode: Mode = Mode.REAL
    odd: bool = False  # so that its receipt has notes
    poison: bool = False
    probe: bool = False

    @classmethod
    def of(cls, report: Report, *, t: float, user: str, odd: bool = False) -> "ReportCreated":
        """Return the row of a report as it is meant."""
        place, seen_at = report.location, report.seen_at.timestamp()
        more = {"lat": place.lat, "lon": place.lon, "seen_at": seen_at, "odd": odd}
        return _row(cls, report, t=t, user=user, **more)


class PresenceSent(Struct, frozen=True, kw_only=True, tag="presence", omit_defaults=True):
    """Presence number `number` of this user is sent at `t`; again when confirmed, at `done`.

    No cell: muted. `short`: it asks for alerts in short.
    """

    t: float
    user: str
    number: int
    cell: int | None
    short: bool = False
    done: float | None = None


class MessageSent(Struct, frozen=True, kw_only=True, tag="sent", omit_defaults=True):
    """A message is sent at `t`; again when its receipt is here, at `done`. `text` is like no other."""

    t: float
    user: str
    subject: Subject
    incident: UUID
    reply: ReplyKind | None = None
    text: str = ""
    done: float | None = None


class CommandSent(Struct, frozen=True, kw_only=True, tag="command", omit_defaults=True):
    """The police send a command, until its receipt comes. `text` (or unit) is like no other."""

    t: float
    zone: str
    id: UUID
    incident: UUID
    command: str
    text: str = ""

    @classmethod
    def of(cls, command: PoliceCommand, *, t: float, zone: str) -> "CommandSent":
        """Return the row of a command."""
        texts = (getattr(command, name, "") for name in ("text", "outcome", "unit"))
        text = next(filter(None, texts), "")
        return _row(cls, command, t=t, zone=zone, command=type(command).__name__.lower(), text=text)


# -- what is heard -------------------------------------------------------------------------------


class ReceiptSeen(Struct, frozen=True, kw_only=True, tag="receipt", omit_defaults=True):
    """A receipt came to a user, or to the desk of a zone; the same one may come again."""

    t: float
    to: str
    id: UUID
    subject: Subject
    outcome: Outcome
    incident: UUID | None = None
    merge: Merge | None = None
    sequence: int | None = None
    code: str | None = None
    notes: int = 0

    @classmethod
    def of(cls, receipt: Receipt, *, t: float, to: str) -> "ReceiptSeen | None":
        """Return the row of a receipt; None for one that is about no message in particular."""
        if receipt.id is None:
            return None
        return _row(cls, receipt, t=t, to=to, notes=len(receipt.notes))


class AlertSeen(Struct, frozen=True, kw_only=True, tag="alert", omit_defaults=True):
    """An alert came; the same id may come again. In short it tells neither wave nor reason."""

    t: float
    user: str
    id: UUID
    incident: UUID
    wave: int = 0
    reason: AlertReason | None = None

    @classmethod
    def of(cls, alert: Alert | Brief, *, t: float, user: str) -> "AlertSeen":
        """Return the row of an alert, in full or in short."""
        return _row(cls, alert, t=t, user=user)


class GroupEventSeen(Struct, frozen=True, kw_only=True, tag="group", omit_defaults=True):
    """A group event came; the same id may come again. `at`: when it happened, on services' clocks.

    `own`: it is of the member who hears it.
    """

    t: float
    user: str
    id: UUID
    incident: UUID
    sequence: int
    kind: GroupEventKind
    at: float
    text: str | None = None
    members: int = 0
    role: GroupRole | None = None
    own: bool = False

    @classmethod
    def of(cls, event: GroupEvent, *, t: float, user: str) -> "GroupEventSeen":
        """Return the row of a group event."""
        own = event.member == event.you
        return _row(cls, event, t=t, user=user, at=event.at.timestamp(), own=own)


class QuestionSeen(Struct, frozen=True, kw_only=True, tag="question", omit_defaults=True):
    """A question of the police came."""

    t: float
    user: str
    id: UUID
    incident: UUID
    text: str
    report: UUID | None = None

    @classmethod
    def of(cls, question: Question, *, t: float, user: str) -> "QuestionSeen":
        """Return the row of a question."""
        return _row(cls, question, t=t, user=user)


class EscalationSeen(Struct, frozen=True, kw_only=True, tag="escalation", omit_defaults=True):
    """An escalation came to the desk of `zone`; the same id may come again.

    `zone` and `priority` are those of its topic. Only of what a reporter says is the text kept.
    """

    t: float
    zone: str
    priority: str
    id: UUID
    kind: EscalationKind
    incident: UUID
    committed_at: float = 0.0
    report: UUID | None = None
    attempt: int = 1
    reports: int = 1
    text: str = ""

    @classmethod
    def of(
        cls, told: Escalation, *, t: float, zone: str, priority: str | None = None
    ) -> "EscalationSeen":
        """Return the row of an escalation that came on the topic of `zone` and `priority`."""
        return _row(
            cls,
            told,
            t=t,
            zone=zone,
            priority=priority or told.priority,
            committed_at=told.committed_at.timestamp(),
            text=told.text if told.kind is EscalationKind.SAID else "",
        )


class CaseSeen(Struct, frozen=True, kw_only=True, tag="case", omit_defaults=True):
    """A case came to the desk of `municipality`; the same id may come again. `message`: said since.

    `municipality` and `category` are those of its topic.
    """

    t: float
    municipality: str
    category: str
    id: UUID
    incident: UUID
    report: UUID
    committed_at: float = 0.0
    reports: int = 1
    message: UUID | None = None
    text: str = ""

    @classmethod
    def of(
        cls, case: Case, *, t: float, municipality: str | None = None, category: str | None = None
    ) -> "CaseSeen":
        """Return the row of a case that came on the topic of `municipality` and `category`."""
        return _row(
            cls,
            case,
            t=t,
            municipality=municipality or case.municipality,
            category=category or case.category,
            committed_at=case.committed_at.timestamp(),
            text=case.text if case.message else "",
        )


class StateSeen(Struct, frozen=True, kw_only=True, tag="state", omit_defaults=True):
    """A desk took over a newer state of an incident; `late`: one that subscribes when all is quiet."""

    t: float
    zone: str
    incident: UUID
    version: int
    status: Status
    reports: int = 1
    assigned: tuple[str, ...] = ()
    late: bool = False

    @classmethod
    def of(cls, state: IncidentState, *, t: float, zone: str, late: bool = False) -> "StateSeen":
        """Return the row of a retained state."""
        return _row(cls, state, t=t, zone=zone, late=late)


# -- what clients of the MQTT broker alone see ----------------------------------------------------


class PublishAcknowledged(
    Struct, frozen=True, kw_only=True, tag="acknowledged", omit_defaults=True
):
    """The MQTT broker has taken a message, says its PUBACK. The numbers of a topic rise."""

    t: float
    topic: str
    number: int
    retained: bool = False


class PublishDelivered(Struct, frozen=True, kw_only=True, tag="delivered"):
    """A message came to a client that keeps its session; QoS 1 lets the same one come again."""

    t: float
    client: str
    topic: str
    number: int


class SessionOpened(Struct, frozen=True, kw_only=True, tag="session"):
    """A client that keeps its session has connected; `present`: the MQTT broker had the session."""

    t: float
    client: str
    present: bool


class RetainedRead(Struct, frozen=True, kw_only=True, tag="retained"):
    """A client without a session subscribed, not before `t`: which number is retained on each topic."""

    t: float
    numbers: dict[str, int]


Observation = (
    ReportCreated
    | PresenceSent
    | MessageSent
    | CommandSent
    | ReceiptSeen
    | AlertSeen
    | GroupEventSeen
    | QuestionSeen
    | EscalationSeen
    | CaseSeen
    | StateSeen
    | PublishAcknowledged
    | PublishDelivered
    | SessionOpened
    | RetainedRead
)


def _row(kind: type[Row], message: Struct, **more: Any) -> Row:
    """Return a row with what `message` says under the same names, and with `more`."""
    names = [name for name in kind.__struct_fields__ if name not in more]
    same = {name: getattr(message, name) for name in names if hasattr(message, name)}
    return kind(**same, **more)
