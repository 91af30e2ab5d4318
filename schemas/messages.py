"""Every payload on the wire, as frozen, validated Structs. JSON, UTF-8, at most 16 KiB.

Times are RFC 3339 with an offset. Coordinates are WGS 84 degrees. Ids are UUIDs: version 7 where
a device makes them, version 5 where the broker derives them, so that repeating a step repeats
the id. See `schemas/topics.py` for who sends which payload where.
"""

# long: the payloads refer to each other, and are read as one

import enum
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct

from schemas.lenient import (
    Lenient,
    always,
    choice,
    code,
    has_offset,
    ids,
    instant,
    language_tag,
    may_grow,
    number,
    numbers_by_id,
    roughly,
    text,
    whole,
)
from schemas.restrictions import Restriction, as_it_is, availability_said, inexactness_m
from schemas.taxonomy import Audience, Desk, Language, Names, Priority, Urgency
from schemas.validation_errors import Code, FieldError

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

# What comes in, as it may be repaired: what may be left out has a default, what is needed has none.
Moment = Annotated[Time, Lenient(instant)]
Text = Annotated[str, Meta(max_length=2_000), Lenient(text(2_000))]
Words = Annotated[str, Meta(min_length=1, max_length=2_000), Lenient(text(2_000))]
Name = Annotated[str, Meta(min_length=1, max_length=60), Lenient(text(60))]


def _require_version_7(identifier: UUID) -> None:
    if identifier.version != 7:
        raise FieldError(
            Code.BAD_ID, "id", f"The id must be a UUID of version 7, not {identifier}."
        )


def _made_at(message: Mapping[str, Any]) -> str | None:
    """Return when the id of a message was made (RFC 9562, 5.7), for want of a better time."""
    try:
        made = datetime.fromtimestamp((UUID(message["id"]).int >> 80) / 1000, UTC)
        said = message.get("seen_at")
        about = roughly(said)
        # Without an offset it may be of now, within 14 hours; what is old must not look new.
        doubt = timedelta(0) if has_offset(said) else timedelta(hours=14)
        if about is not None and made - about > doubt:
            # And is not refused for it, as what is older than 7 days would be.
            made = max(about, made - timedelta(days=6))
        return made.isoformat(timespec="milliseconds")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        return None


class Mode(enum.StrEnum):
    """Whether this is an exercise. Drills take the same way, are marked, and never mix."""

    REAL = "real"
    DRILL = "drill"


SentMode = Annotated[Mode, may_grow(Mode.REAL)]


class EmergencyCall(enum.StrEnum):
    """Whether 101/112 was called, which Nabij never replaces."""

    CALLED = "called"
    NOT_CALLED = "not_called"
    UNKNOWN = "unknown"


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


# -- participant → broker ------------------------------------------------------------------------


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a witness saw: `location` is where it happens, not where the witness stands.

    Of an audience that is not understood the narrower is taken, of a mode the real one.
    """

    id: UUID
    category: Annotated[str, Meta(max_length=40, pattern=r"^[^A-Z_\s]*$"), Lenient(code)]
    location: Position
    seen_at: Annotated[Time, Lenient(instant, otherwise=_made_at)]
    reporter_location: Annotated[Position | None, Lenient()] = None
    text: Text = ""
    emergency_call: Annotated[EmergencyCall, Lenient(choice(EmergencyCall))] = EmergencyCall.UNKNOWN
    audience: Annotated[
        Audience,
        Lenient(choice(Audience), otherwise=always(Audience.POLICE)),
        Restriction(("audience",), as_it_is),
    ] = Audience.POLICE_AND_NEARBY
    language: Annotated[Language, Lenient(language_tag(Language))] = Language.NL
    mode: Annotated[Mode, Lenient(choice(Mode))] = Mode.REAL

    def __post_init__(self) -> None:
        _require_version_7(self.id)


class Availability(enum.StrEnum):
    """Whether a participant takes alerts. `muted` and `away` make the broker forget the place."""

    ON_DUTY = "on_duty"
    AVAILABLE = "available"
    MUTED = "muted"
    AWAY = "away"


TAKES_ALERTS = frozenset({Availability.ON_DUTY, Availability.AVAILABLE})


def _if_withdrawn(message: Mapping[str, Any]) -> str | None:
    """Return a time that counts as now, if a presence takes no alerts: its time matters little."""
    said = message.get("availability")
    mended = choice(Availability)(said)
    takes_alerts = said is None or (mended.value if mended else said) in [*TAKES_ALERTS]
    return None if takes_alerts else "1970-01-01T00:00:00Z"


class Form(enum.StrEnum):
    """How alerts come: in full, or for a small device in short too (see Brief)."""

    FULL = "full"
    SHORT = "short"


class Presence(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a participant is. Kept as an H3 cell of resolution 10, never as coordinates.

    Of an availability that is not understood `muted` is taken. Without alerts the place is
    forgotten whatever `at` says: a time that cannot be read, or is missing, counts as now. `form`
    holds for all alerts from now on; without it what was asked for last does.
    """

    at: Annotated[Time, Lenient(instant, otherwise=_if_withdrawn, told="It counts as now.")]
    location: Annotated[Position | None, Lenient()] = None
    availability: Annotated[
        Availability,
        Lenient(choice(Availability), otherwise=always(Availability.MUTED)),
        Restriction(
            ("availab", "mute"),
            availability_said,
            alike=("available", "muted"),
            unrelated=("commute",),
            words=frozenset({"mute", "muted", "away", "off", "offduty", "unavailable"}),
            word="muted",
        ),
    ] = Availability.AVAILABLE
    form: Annotated[Form | None, Lenient(choice(Form))] = None

    def __post_init__(self) -> None:
        if self.location is None and self.availability in TAKES_ALERTS:
            raise FieldError(
                Code.MISSING_FIELD,
                "location",
                f"A participant who is {self.availability} needs a location.",
            )


class ReplyKind(enum.StrEnum):
    """What a participant does about an alert."""

    SEEN = "seen"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    ON_SCENE = "on_scene"
    LEFT = "left"


class Reply(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer to an alert. Accepting joins the group; `eta_s` is seconds to arrival."""

    id: UUID
    incident: UUID
    kind: Annotated[ReplyKind, Lenient(choice(ReplyKind))]
    eta_s: Annotated[Eta | None, Lenient(whole(86_400))] = None

    def __post_init__(self) -> None:
        _require_version_7(self.id)


class GroupMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something said to the group around an incident."""

    id: UUID
    incident: UUID
    text: Words

    def __post_init__(self) -> None:
        _require_version_7(self.id)


class Answer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reporter's answer to a question of the police."""

    id: UUID
    question: UUID
    text: Words

    def __post_init__(self) -> None:
        _require_version_7(self.id)


Sequences = Annotated[frozenset[int], Meta(max_length=50)]


class Sync(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What did I miss since: answered with alerts, group events and questions after `since`, repeated.

    `alerts` are the ids of alerts that the device has: they are recorded as delivered, and not
    repeated. Nor are of `groups` the events of these sequences.
    """

    since: Moment
    alerts: Annotated[frozenset[UUID], Meta(max_length=200), Lenient(ids(200))] = frozenset()
    groups: Annotated[
        dict[UUID, Sequences], Meta(max_length=200), Lenient(numbers_by_id(200, 50))
    ] = {}


class DeliveryReceipt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reader's word that it has these messages: a desk's escalations or cases, a user's questions.

    Until then they are sent again. The PUBACK of an MQTT broker does not count: it only says that
    the broker has the message, or that any client at all has subscribed.
    """

    ids: Annotated[frozenset[UUID], Meta(min_length=1, max_length=200), Lenient(ids(200))]


class DeskSync(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What did this desk miss: answered with what no desk of the zone has confirmed.

    `has` are the ids of messages that the desk has: they are recorded as delivered.
    """

    has: Annotated[frozenset[UUID], Meta(max_length=200), Lenient(ids(200))] = frozenset()


# -- broker → participant ------------------------------------------------------------------------


class Outcome(enum.StrEnum):
    """What became of a message. A repeated message gets the same receipt again."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Subject(enum.StrEnum):
    """Which kind of message a receipt is about: the last level of its topic.

    `other`, here and below, is what a reader takes for a value that it does not know.
    """

    REPORT = "report"
    PRESENCE = "presence"
    REPLY = "reply"
    MESSAGE = "message"
    ANSWER = "answer"
    SYNC = "sync"
    RECEIPT = "receipt"
    COMMAND = "command"
    OTHER = "other"


class Merge(enum.StrEnum):
    """Whether a report opened an incident or joined one."""

    OPENED = "opened"
    MERGED = "merged"


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Proof that a message is durably stored, or the reason why it was rejected.

    `sequence` numbers the reports of one partition as they were committed; it and `merge` are not
    told of a report for the police alone, which is not counted, and whose `incident` is an id of
    this report's own. `advice`
    says to call 112 and comes with every urgent report, and with each that is rejected. A rejection
    has `code`, `field` (JSON path, `$` is the whole payload) and `reason` (a sentence). `notes` say
    what was odd in the message, and what was made of it.
    """

    subject: Annotated[Subject, may_grow(Subject.OTHER)]
    outcome: Annotated[Outcome, may_grow(Outcome.REJECTED)]
    at: Time
    id: UUID | None = None
    incident: UUID | None = None
    merge: Annotated[Merge | None, Lenient()] = None
    sequence: int | None = None
    advice: str | None = None
    code: Annotated[Code | None, may_grow(Code.OTHER)] = None
    field: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


class AlertReason(enum.StrEnum):
    """Why this participant is alerted now."""

    NEARBY = "nearby"
    WALKED_IN = "walked_in"
    WIDENED = "widened"
    OTHER = "other"


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happens near you. `seen_at` is when it was last seen; repeats are dropped by `id`."""

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
    """An alert in less than 256 bytes, for a device that has no room for more.

    `id`, `incident` and what one may do are those of the alert. `lat` and `lon` are rounded to five
    decimals (a metre), `expires_at` to seconds. `call` is the emergency number.
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
    """As what a member of a group speaks. The broker decides it, never the sender."""

    REPORTER = "reporter"
    RESPONDER = "responder"
    POLICE = "police"
    NABIJ = "nabij"


class GroupEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happened in the group around an incident.

    `member` is a name that holds within this incident only (`helper-2`, `reporter-1`, `police`):
    members do not learn each other's user ids, nor positions. `role` is as what they speak: a
    device shows it beside the text, which anybody may have written. `moved` tells a new `eta_s`, or
    `on_scene`. `sequence` counts the incident's group events from 1.
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


# -- broker ↔ police -----------------------------------------------------------------------------


class EscalationKind(enum.StrEnum):
    """Why the police read this: a new incident, more about one, nobody answered, an answer.

    `said` is what the reporter of `report` says about an incident for the police alone.
    """

    NEW = "new"
    UPDATE = "update"
    OVERDUE = "overdue"
    ANSWER = "answer"
    SAID = "said"
    OTHER = "other"


class Escalation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something for the police. `id` is the same whichever way it took; repeats are dropped by it.

    `version` is the incident's at commit. `attempt` counts from 1; above 1 nobody acknowledged.
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


class Status(enum.StrEnum):
    """Where an incident stands; the life cycle is in `broker/core/incidents.py`."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    ASSIGNED = "assigned"
    ON_SCENE = "on_scene"
    CLOSED = "closed"


class IncidentState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an incident stands, retained for operations that subscribe later. Counts, not names.

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


class _Command(Struct, frozen=True, kw_only=True, tag_field="command", forbid_unknown_fields=True):
    id: UUID
    incident: UUID
    by: Name

    def __post_init__(self) -> None:
        _require_version_7(self.id)


class Acknowledge(_Command, tag="acknowledge", frozen=True, kw_only=True):
    """Operations have seen the incident and take it."""


class Assign(_Command, tag="assign", frozen=True, kw_only=True):
    """A unit is on its way."""

    unit: Name


class SetStatus(_Command, tag="status", frozen=True, kw_only=True):
    """The incident's status as operations see it."""

    status: Annotated[Status, Lenient(choice(Status))]


OneReport = Annotated[UUID | None, Lenient(needed=True), Restriction((), as_it_is)]


class Reporters(enum.StrEnum):
    """Whose reporters a question is for: one report's, or every report's."""

    ONE = "one"
    ALL = "all"


class Ask(_Command, tag="ask", frozen=True, kw_only=True):
    """Ask the reporter of `report`, or all of them; neither is needed where there is one report."""

    text: Words
    report: OneReport = None
    reporters: Annotated[Reporters, Lenient(choice(Reporters))] = Reporters.ONE


class Inform(_Command, tag="inform", frozen=True, kw_only=True):
    """Tell the group something; of an incident for the police alone each reporter.

    `report` picks one of them.
    """

    text: Words
    report: OneReport = None


class Close(_Command, tag="close", frozen=True, kw_only=True):
    """End the incident; `outcome` goes to everyone who was alerted."""

    outcome: Annotated[str, Meta(min_length=1, max_length=500), Lenient(text(500))]


PoliceCommand = Acknowledge | Assign | SetStatus | Ask | Inform | Close


# -- broker → city desk, operators ---------------------------------------------------------------


class Case(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A report for the municipality's desk. One per report; `incident` groups them.

    With `message`, what the reporter has said about it since.
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


class ServiceState(enum.StrEnum):
    """Where a service instance is in its life; `lost` is its last will."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """One instance of a service, retained."""

    service: str
    instance: str
    state: Annotated[ServiceState, may_grow(ServiceState.STARTING)]
    at: Time
    version: str


class Probe(Struct, frozen=True, kw_only=True):
    """What a worker publishes and must receive itself, to know that it hears the MQTT broker."""

    number: int
    nonce: str


class Unattended(Struct, frozen=True, kw_only=True):
    """An alarm: messages that no desk of `zone` has confirmed within the policy's `unattended_s`.

    `zone` is a police zone, or a municipality where `desk` is the city's; `oldest_at` is when the
    oldest of the `count` messages was committed. Retained until a desk has them all.
    """

    desk: Annotated[Desk, may_grow(Desk.POLICE)]
    zone: str
    count: int
    oldest_at: Time
    at: Time


class Rejection(Struct, frozen=True, kw_only=True):
    """A dead letter: a message with no sender to tell, or one that a handler failed on.

    `payload` is the start of it, as text with what is not UTF-8 replaced; `size` its bytes.
    """

    service: str
    topic: str
    code: str
    field: str
    reason: str
    at: Time
    payload: str
    size: int
