"""What participants send: reports, presence, replies, messages to a group, answers, a sync."""

import enum
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct

from schemas.ids import made_at_ms
from schemas.lenient import (
    Lenient,
    always,
    choice,
    code,
    has_offset,
    ids,
    instant,
    language_tag,
    numbers_by_id,
    roughly,
    whole,
)
from schemas.messages.fields import (
    EmergencyCall,
    Eta,
    Mode,
    Moment,
    Position,
    Text,
    Time,
    Words,
    require_version_7,
)
from schemas.restrictions import Restriction, as_it_is, availability_said
from schemas.taxonomy import Audience, Language
from schemas.validation_errors import Code, FieldError

__all__ = [
    "TAKES_ALERTS",
    "Answer",
    "Availability",
    "Form",
    "GroupMessage",
    "Presence",
    "Reply",
    "ReplyKind",
    "Report",
    "Sync",
]


def _made_at(message: Mapping[str, Any]) -> str | None:
    """Return when the id of a message was made (RFC 9562, 5.7), if there is no better time."""
    try:
        made = datetime.fromtimestamp(made_at_ms(UUID(message["id"])) / 1000, UTC)
        said = message.get("seen_at")
        about = roughly(said)
        # Without an offset it may be now, within 14 hours; an old time must not look new.
        doubt = timedelta(0) if has_offset(said) else timedelta(hours=14)
        if about is not None and made - about > doubt:
            # At most 6 days before the id: older than 7 days would be refused.
            made = max(about, made - timedelta(days=6))
        return made.isoformat(timespec="milliseconds")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        return None


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a reporter saw: `location` is where it happens, not where the reporter is.

    An unknown audience is read as `police`, an unknown mode as `real`.
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
        require_version_7(self.id)


class Availability(enum.StrEnum):
    """Whether a participant takes alerts. With `muted` and `away` the broker forgets the place."""

    ON_DUTY = "on_duty"
    AVAILABLE = "available"
    MUTED = "muted"
    AWAY = "away"


TAKES_ALERTS = frozenset({Availability.ON_DUTY, Availability.AVAILABLE})


def _if_withdrawn(message: Mapping[str, Any]) -> str | None:
    """Return a time that counts as now, if a presence takes no alerts."""
    said = message.get("availability")
    repaired = choice(Availability)(said)
    takes_alerts = said is None or (repaired.value if repaired else said) in [*TAKES_ALERTS]
    return None if takes_alerts else "1970-01-01T00:00:00Z"


class Form(enum.StrEnum):
    """How alerts come: in full or, for a small device, also in short (see Brief)."""

    FULL = "full"
    SHORT = "short"


class Presence(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a participant is. Kept as an H3 cell of resolution 10, never as coordinates.

    An unknown availability is read as `muted`. A participant who takes no alerts has their place
    forgotten, whatever `at` says: a missing or unreadable time counts as now. `form` applies to all
    alerts from now on; without it the last one applies.
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
        require_version_7(self.id)


class GroupMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message to the group around an incident."""

    id: UUID
    incident: UUID
    text: Words

    def __post_init__(self) -> None:
        require_version_7(self.id)


class Answer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reporter's answer to a question of the police."""

    id: UUID
    question: UUID
    text: Words

    def __post_init__(self) -> None:
        require_version_7(self.id)


Sequences = Annotated[frozenset[int], Meta(max_length=50)]


class Sync(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Asks what the device missed: alerts, group events and questions after `since` are sent again.

    `alerts` are the ids of alerts that the device has: they are recorded as delivered and not sent
    again. `groups` names the sequences of group events that it has, which are not sent again.
    """

    since: Moment
    alerts: Annotated[frozenset[UUID], Meta(max_length=200), Lenient(ids(200))] = frozenset()
    groups: Annotated[
        dict[UUID, Sequences], Meta(max_length=200), Lenient(numbers_by_id(200, 50))
    ] = {}
