"""What was sent, together with its receipt; and all that a replay sent and heard.

Every instant is Unix time in seconds on the devices' clock. Something sent at `sent_at` whose
receipt came at `received_at` was committed in between; without a receipt `received_at` is
infinite, since it may have been committed or not, at any time after.
"""

import math
from array import array
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from schemas.messages import Merge, Mode
from schemas.taxonomy import Audience
from verify.oracle.observations import CaseSeen, EscalationSeen

NEVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SentReport:
    """A report and its receipt; `incident` is None when it was rejected or never confirmed.

    Of a report for a desk alone the receipt tells an incident of its own, and no more.
    """

    id: UUID
    user: int
    category: str
    lat: float
    lon: float
    seen_at: float
    sent_at: float
    audience: Audience = Audience.POLICE_AND_NEARBY
    mode: Mode = Mode.REAL
    accuracy_m: float = 0.0
    received_at: float = NEVER
    incident: UUID | None = None
    merge: Merge | None = None
    sequence: int | None = None
    happened_at: float | None = None  # in the stream, where it comes from one
    rejected: str | None = None


class SentPresence(NamedTuple):
    """A participant's place, as the H3 cell it falls in; None: muted or away."""

    user: int
    cell: int | None
    sent_at: float
    received_at: float
    accuracy_m: float = 0.0


class Deed(NamedTuple):
    """An acceptance by a participant or that they left, or an acknowledgement by a desk."""

    incident: UUID
    sent_at: float
    received_at: float
    user: int = -1  # the participant's number


class HeardAlert(NamedTuple):
    """An alert; `user` and `incident` are indices, `id` the last 64 bits of the alert's id."""

    user: int
    incident: int
    id: int
    wave: int
    nearby: int
    received_at: float


class AlertLog:
    """A million alerts in 26 bytes each."""

    def __init__(self) -> None:
        self._columns: tuple[array[Any], ...] = tuple(array(code) for code in "IIQBBd")
        self._numbers: dict[UUID, int] = {}
        self.incidents: list[UUID] = []

    def append(
        self, *, user: int, incident: UUID, alert: UUID, wave: int, nearby: bool, received_at: float
    ) -> None:
        """Note that `user` received this alert."""
        number = self._numbers.get(incident)
        if number is None:
            number = self._numbers[incident] = len(self.incidents)
            self.incidents.append(incident)
        row = (user, number, alert.int & 0xFFFFFFFFFFFFFFFF, wave, nearby, received_at)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[HeardAlert]:
        return map(HeardAlert._make, zip(*self._columns, strict=True))


@dataclass(kw_only=True)
class ReplayHistory:
    """All of one replay, the oracle's only input. `zones` are the police zones that were watched (None: all of them)."""

    participants: tuple[str, ...]
    zones: frozenset[str] | None = None
    watches_city: bool = True
    reports: list[SentReport] = field(default_factory=list)
    presences: list[SentPresence] = field(default_factory=list)
    acceptances: list[Deed] = field(default_factory=list)
    departures: list[Deed] = field(default_factory=list)
    acknowledgements: list[Deed] = field(default_factory=list)
    alerts: AlertLog = field(default_factory=AlertLog)
    escalations: list[EscalationSeen] = field(default_factory=list)
    cases: list[CaseSeen] = field(default_factory=list)

    def watches(self, zone: str) -> bool:
        """Whether escalations to `zone` would have been heard."""
        return self.zones is None or zone in self.zones

    def snapshot(self) -> "ReplayHistory":
        """Return what is known now, while more keeps coming in."""
        return ReplayHistory(
            participants=self.participants,
            zones=self.zones,
            watches_city=self.watches_city,
            reports=list(self.reports),
            presences=list(self.presences),
            acceptances=list(self.acceptances),
            departures=list(self.departures),
            acknowledgements=list(self.acknowledgements),
            alerts=deepcopy(self.alerts),
            escalations=list(self.escalations),
            cases=list(self.cases),
        )
