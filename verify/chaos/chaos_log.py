"""What the devices and desks of a chaos run write down: the checker's only evidence.

One JSON object a line, appended and flushed before the device goes on, so that a killed device
leaves all that it did but perhaps half a line. `t` is Unix time in seconds, on one machine's clock.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import msgspec
from msgspec import Struct

from schemas.messages import (
    AlertReason,
    EscalationKind,
    GroupEvent,
    GroupEventKind,
    GroupRole,
    Merge,
    Mode,
    Outcome,
    Question,
    Receipt,
    ReplyKind,
    Status,
    Subject,
)
from schemas.taxonomy import Audience


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """A device process began; it begins again after each death."""

    t: float
    process: str
    pid: int


class Created(Struct, frozen=True, kw_only=True, tag="created", omit_defaults=True):
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
    odd: bool = False
    poison: bool = False
    probe: bool = False


class Receipted(Struct, frozen=True, kw_only=True, tag="receipted", omit_defaults=True):
    """A receipt came; the same one may come again."""

    t: float
    user: str
    id: UUID
    subject: Subject
    outcome: Outcome
    incident: UUID | None = None
    merge: Merge | None = None
    sequence: int | None = None
    code: str | None = None
    notes: int = 0


class Journaled(Struct, frozen=True, kw_only=True, tag="journaled"):
    """The report with this id is in the device's journal: from here on it must not be lost."""

    t: float
    id: UUID


class Delivered(Struct, frozen=True, kw_only=True, tag="delivered"):
    """The receipt of this message is here, so the journal is about to forget it."""

    t: float
    id: UUID


class MessageSent(Struct, frozen=True, kw_only=True, tag="sent", omit_defaults=True):
    """Something is sent at `t`; again when its receipt is here, at `done`. `text` is like no other."""

    t: float
    user: str
    subject: Subject
    incident: UUID
    done: float | None = None
    reply: ReplyKind | None = None
    text: str = ""


class Moved(Struct, frozen=True, kw_only=True, tag="moved"):
    """A presence is being sent, number `number` of this user; no cell: muted."""

    t: float
    user: str
    number: int
    cell: int | None


class PresenceConfirmed(Struct, frozen=True, kw_only=True, tag="placed"):
    """The presence with this number is confirmed."""

    t: float
    user: str
    number: int


class AlertSeen(Struct, frozen=True, kw_only=True, tag="alerted", omit_defaults=True):
    """An alert came; the same id may come again. In short it tells neither wave nor reason."""

    t: float
    user: str
    id: UUID
    incident: UUID
    wave: int = 0
    reason: AlertReason | None = None


class Grouped(Struct, frozen=True, kw_only=True, tag="grouped", omit_defaults=True):
    """A group event came; the same id may come again."""

    t: float
    user: str
    id: UUID
    incident: UUID
    sequence: int
    kind: GroupEventKind
    text: str | None = None
    members: int = 0
    role: GroupRole | None = None


class Asked(Struct, frozen=True, kw_only=True, tag="asked", omit_defaults=True):
    """A question of the police came."""

    t: float
    user: str
    id: UUID
    incident: UUID
    text: str
    report: UUID | None = None


class Escalated(Struct, frozen=True, kw_only=True, tag="escalated", omit_defaults=True):
    """An escalation came to the police's desk of `zone`; the same id may come again."""

    t: float
    zone: str
    id: UUID
    kind: EscalationKind
    incident: UUID
    version: int
    report: UUID | None = None
    attempt: int = 1
    text: str = ""


class Stated(Struct, frozen=True, kw_only=True, tag="stated"):
    """A desk took over a newer state of an incident."""

    t: float
    zone: str
    incident: UUID
    version: int
    status: Status


class Retained(Struct, frozen=True, kw_only=True, tag="retained"):
    """What a desk that subscribes only now, when all is quiet, is told of an incident."""

    t: float
    zone: str
    incident: UUID
    version: int
    status: Status
    reports: int


class Commanded(Struct, frozen=True, kw_only=True, tag="commanded", omit_defaults=True):
    """The police send a command, until its receipt comes. `text` is like no other."""

    t: float
    zone: str
    id: UUID
    incident: UUID
    command: str
    text: str = ""


class Ordered(Struct, frozen=True, kw_only=True, tag="ordered", omit_defaults=True):
    """A command's receipt came."""

    t: float
    zone: str
    id: UUID
    outcome: Outcome
    code: str | None = None


class Cased(Struct, frozen=True, kw_only=True, tag="cased", omit_defaults=True):
    """A case came to the city's desk; the same id may come again. `message`: said since."""

    t: float
    id: UUID
    incident: UUID
    report: UUID
    message: UUID | None = None
    text: str = ""


class Quiet(Struct, frozen=True, kw_only=True, tag="quiet"):
    """This process has nothing left to send, and makes nothing new."""

    t: float
    process: str


class ProcessStruck(Struct, frozen=True, kw_only=True, tag="struck", omit_defaults=True):
    """A process was killed, or paused for `pause_s`. Written by the striker, for the reader."""

    t: float
    victim: str
    process: str
    pause_s: float | None = None


Entry = (
    Started
    | Created
    | Journaled
    | Delivered
    | Receipted
    | MessageSent
    | Moved
    | PresenceConfirmed
    | AlertSeen
    | Grouped
    | Asked
    | Escalated
    | Stated
    | Retained
    | Commanded
    | Ordered
    | Cased
    | Quiet
    | ProcessStruck
)

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Entry)


class Log:
    """An append-only file of entries, open while the `with` lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._mend()
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, entry: Entry) -> None:
        """Append `entry`; it survives the death of this process, though not of the machine."""
        self._file.write(_encode(entry) + b"\n")

    def _mend(self) -> None:
        """End the line that a killed writer began, so that ours is not glued to it."""
        if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
            with self._path.open("ab") as file:
                file.write(b"\n")


class Tail:
    """Reads a log while it grows; what is no entry is half a line of a killed writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def entries(self) -> Iterator[Entry]:
        """Yield what is new since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    yield _decoder.decode(line)
                except msgspec.MsgspecError:
                    continue


def receipted(user: str, receipt: Receipt) -> Receipted | None:
    """Return the entry for a receipt; None for one that is about no message in particular."""
    if receipt.id is None:
        return None
    return Receipted(
        t=time.time(),
        user=user,
        id=receipt.id,
        subject=receipt.subject,
        outcome=receipt.outcome,
        incident=receipt.incident,
        merge=receipt.merge,
        sequence=receipt.sequence,
        code=receipt.code,
        notes=len(receipt.notes),
    )


def grouped(user: str, event: GroupEvent, received_at: float) -> Grouped:
    """Return the entry for a group event."""
    return Grouped(
        t=received_at,
        user=user,
        id=event.id,
        incident=event.incident,
        sequence=event.sequence,
        kind=event.kind,
        text=event.text,
        members=event.members,
        role=event.role,
    )


def asked(user: str, question: Question, received_at: float) -> Asked:
    """Return the entry for a question of the police."""
    return Asked(
        t=received_at,
        user=user,
        id=question.id,
        incident=question.incident,
        text=question.text,
        report=question.report,
    )
