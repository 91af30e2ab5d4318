"""The logs of a chaos run, on disk: what devices and desks observed, and what became of processes.

One JSON object a line, appended and flushed before the device goes on, so that a killed device
leaves all that it did but perhaps half a line.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import msgspec
from msgspec import Struct

from verify.oracle.observations import Observation


class Started(Struct, frozen=True, kw_only=True, tag="started"):
    """A device process began; it begins again after each death."""

    t: float
    process: str


class Quiet(Struct, frozen=True, kw_only=True, tag="quiet"):
    """This process has nothing left to send, and makes nothing new."""

    t: float
    process: str


class Blow(Struct, frozen=True, tag="blow", omit_defaults=True):
    """A strike that fell at `t` on a process: it was killed, or paused for `pause_s`."""

    t: float
    victim: str  # as in a Strike
    process: str
    pause_s: float | None = None


class JournalAdded(Struct, frozen=True, kw_only=True, tag="journal-added"):
    """The report with this id is in the device's journal: from here on it must not be lost."""

    t: float
    id: UUID


class JournalRemoved(Struct, frozen=True, kw_only=True, tag="journal-removed"):
    """The receipt of this message is here, so the journal is about to forget it."""

    t: float
    id: UUID


Entry = Observation | Started | Quiet | Blow | JournalAdded | JournalRemoved

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
