"""What devices and desk write down: all that the checker reads. `t` is Unix time, as everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from schemas.messages import Outcome, Rejection
from verify.oracle.observations import AlertSeen, CommandSent, Observation, StateSeen


@dataclass(slots=True, kw_only=True)
class SenderLog:
    """What each device and desk writes down."""

    rows: list[Observation] = field(default_factory=list)
    refused: dict[UUID, set[Outcome]] = field(default_factory=dict)  # what was garbled
    journal: set[UUID] = field(default_factory=set)  # what is unconfirmed at the end


@dataclass(slots=True)
class DeviceLog(SenderLog):
    """One person's device."""

    user: str
    briefs: list[bytes] = field(default_factory=list)  # as they came

    @property
    def alerts(self) -> Sequence[AlertSeen]:
        """Return the alerts that came."""
        return [row for row in self.rows if isinstance(row, AlertSeen)]


@dataclass(slots=True)
class Synced:
    """A desk's sync: of which desk, sent when, answered when."""

    kind: str
    zone: str
    sent_at: float
    answered_at: float | None = None


@dataclass(slots=True)
class DeskLog(SenderLog):
    """The desk of all zones; it reads the city's cases too."""

    syncs: dict[UUID, Synced] = field(default_factory=dict)

    @property
    def commands(self) -> Sequence[CommandSent]:
        """Return the commands that were given."""
        return [row for row in self.rows if isinstance(row, CommandSent)]

    @property
    def states(self) -> Iterator[tuple[float, StateSeen]]:
        """Yield the states that it took over, each with its time."""
        return ((row.t, row) for row in self.rows if isinstance(row, StateSeen))


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
    late_states: list[StateSeen] = field(default_factory=list)  # to who subscribed late
    deaths: int = 0  # of the MQTT broker
    mqtt_losses: list[str] = field(default_factory=list)  # that one with a journal may not have


@dataclass(slots=True)
class Logs:
    """Everybody's."""

    devices: dict[str, DeviceLog]
    desk: DeskLog
    operator: OperatorLog
    rest: Rest
    trouble: list[str] = field(default_factory=list)  # what no part of the system may raise
    partitions: int = 1

    @property
    def senders(self) -> Sequence[SenderLog]:
        """Return the logs of all devices and of the desk."""
        return (*self.devices.values(), self.desk)
