"""What desks send besides receipts: a sync, and the commands of the police."""

import enum
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from schemas.lenient import Lenient, choice, ids, text
from schemas.messages.fields import Name, Status, Words, require_version_7
from schemas.restrictions import Restriction, as_it_is

__all__ = [
    "Acknowledge",
    "Ask",
    "Assign",
    "Close",
    "DeskSync",
    "Inform",
    "PoliceCommand",
    "Reporters",
    "SetStatus",
]


class DeskSync(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Asks what this desk missed: answered with what no desk of the zone has confirmed.

    `has` are the ids of messages that the desk has: they are recorded as delivered.
    """

    has: Annotated[frozenset[UUID], Meta(max_length=200), Lenient(ids(200))] = frozenset()


class _Command(Struct, frozen=True, kw_only=True, tag_field="command", forbid_unknown_fields=True):
    id: UUID
    incident: UUID
    by: Name

    def __post_init__(self) -> None:
        require_version_7(self.id)


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
