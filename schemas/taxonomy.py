"""What can be reported, and a city's settings: the schema of the policy file.

The shipped policy is `schemas/policy.toml`; `broker/core/policy.py` checks and interprets one. A
city replaces the file, never this module.
"""

import enum
from importlib import resources
from typing import Annotated

from msgspec import Meta, Struct

ZONE_PATTERN = r"^[a-z0-9-]{1,40}$"  # a topic level
CATEGORY_PATTERN = r"^[a-z][a-z0-9-]{1,39}$"  # also a topic level

EMERGENCY_NUMBER = "112"  # that of the whole European Union

Seconds = Annotated[int, Meta(ge=1, le=30 * 86_400)]
Metres = Annotated[int, Meta(ge=1, le=20_000)]


class Language(enum.StrEnum):
    """The languages of the people on the wire (ISO 639-1)."""

    NL = "nl"
    FR = "fr"
    EN = "en"


class Urgency(enum.StrEnum):
    """Whether people are asked for help now, or a desk handles it in office hours."""

    URGENT = "urgent"
    ROUTINE = "routine"


class Desk(enum.StrEnum):
    """Who handles a category: the police, or the municipality."""

    POLICE = "police"
    CITY = "city"


class Audience(enum.StrEnum):
    """Who may know of a report: the police alone, or also the participants nearby."""

    POLICE = "police"
    POLICE_AND_NEARBY = "police_and_nearby"


class Priority(enum.StrEnum):
    """Order of dispatch on the police's topics; P1 before P2 before P3."""

    P1 = "p1"
    P2 = "p2"
    P3 = "p3"


class Names(Struct, frozen=True, forbid_unknown_fields=True):
    """One text in the three languages of the service."""

    nl: Annotated[str, Meta(min_length=1)]
    fr: Annotated[str, Meta(min_length=1)]
    en: Annotated[str, Meta(min_length=1)]

    def in_language(self, language: Language) -> str:
        """Return the text in `language`."""
        match language:
            case Language.NL:
                return self.nl
            case Language.FR:
                return self.fr
            case Language.EN:
                return self.en


class Category(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of incident and how it is handled.

    Distances in metres, times in seconds. `radius_m` is how far participants are alerted (0: not at
    all), `merge_m` and `merge_s` how near and how soon another report is of the same incident.
    `alert_if_seen_within_s` replaces the timer of that name.
    """

    names: Names
    urgency: Urgency
    desk: Desk
    priority: Priority = Priority.P3
    radius_m: Annotated[int, Meta(ge=0, le=20_000)] = 0
    merge_m: Metres
    merge_s: Seconds
    audience: Audience = Audience.POLICE
    text_to: Audience = Audience.POLICE
    alert_if_seen_within_s: Seconds | None = None


class Timers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deadlines and lifetimes, in seconds."""

    accept_s: Seconds
    acknowledge_s: Seconds
    silence_s: Seconds
    silence_routine_s: Seconds
    presence_s: Seconds
    retention_s: Seconds
    alert_if_seen_within_s: Seconds = 3_600
    unattended_s: Seconds = 10


class Widening(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the radius grows while no participant has accepted."""

    factor: Annotated[float, Meta(gt=1.0, le=4.0)]
    max_waves: Annotated[int, Meta(ge=1, le=10)]
    max_radius_m: Metres


class Accuracy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the uncertainty of a place counts, in metres."""

    max_presence_m: Metres = 500
    max_report_m: Metres = 500


class PolicyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy file as written: see the comments in `schemas/policy.toml`."""

    duty_zone: Annotated[str, Meta(pattern=ZONE_PATTERN)] | None = None
    advice: Names
    timers: Timers
    widening: Widening
    max_overdue: Annotated[int, Meta(ge=1, le=20)]
    accuracy: Accuracy = Accuracy()
    categories: dict[str, Category]


def default_policy_text() -> str:
    """Return the text of the policy that is shipped (TOML)."""
    return resources.files("schemas").joinpath("policy.toml").read_text(encoding="utf-8")
