"""The journal on disk: batches of records, each whole or not there.

A file is a row of frames: length, CRC-32 and the batch (`records.encode_batch`). A frame that a
kill or a power cut has torn is the last of its file, and nobody was told of it: it is cut off.
When a file has grown large, a next one begins, gets a copy of all that is live, and replaces it.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.edge.records import Record, decode_batch

_FRAME: Final = struct.Struct("<II")
_NAME: Final = "journal-{:08d}"
_MIN_BYTES: Final = 16 << 20  # a smaller file is not rewritten
_GROWTH: Final = 2.0


class JournalError(Exception):
    """The journal cannot be read or written."""


class Journal:
    """The files of one directory. `write` blocks; only one thread at a time may be in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = -1
        self._number = 0
        self._bytes = 0
        self._live_bytes = 0  # after the last rewrite
        self._is_rewriting = False

    # -- reading ----------------------------------------------------------------------------------

    def read(self) -> Iterator[Record]:
        """Yield the records of all files, oldest first.

        Raises:
            JournalError: a file is damaged before its end.
        """
        for path in self._paths():
            data = path.read_bytes()
            yield from _records(path, data)

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("journal-[0-9]*"))

    # -- writing ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a new file, to which a copy of all that is live has to be written first.

        Raises:
            JournalError: the directory cannot be written to.
        """
        numbers = [int(path.name.removeprefix("journal-")) for path in self._paths()]
        self._begin(max(numbers, default=0) + 1)

    def _begin(self, number: int) -> None:
        path = self._directory / _NAME.format(number)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _sync_directory(self._directory)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}") from error
        if self._file >= 0:
            os.close(self._file)
        self._file, self._number, self._bytes = file, number, 0
        self._is_rewriting = True

    def write(self, batch: bytes) -> None:
        """Append a batch, and return when it is on the disk.

        Raises:
            JournalError: it is not (the disk is full, or broken): what follows must not be promised.
        """
        frame = _FRAME.pack(len(batch), zlib.crc32(batch)) + batch
        try:
            view = memoryview(frame)
            while view:
                view = view[os.write(self._file, view) :]
            os.fdatasync(self._file)
        except OSError as error:
            raise JournalError(f"{self._directory}: {error.strerror}") from error
        self._bytes += len(frame)

    @property
    def is_large(self) -> bool:
        """Whether the file should be rewritten."""
        limit = max(_MIN_BYTES, _GROWTH * self._live_bytes)
        return not self._is_rewriting and self._bytes > limit

    def rewrite(self) -> None:
        """Begin the next file; a copy of all that is live follows, then `rewritten`."""
        self._begin(self._number + 1)

    def rewritten(self) -> None:
        """All that is live is in the present file: those before it go."""
        for path in self._paths():
            if path.name != _NAME.format(self._number):
                path.unlink()
        self._live_bytes, self._is_rewriting = self._bytes, False

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def _records(path: Path, data: bytes) -> Iterator[Record]:
    at = 0
    while at + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, at)
        batch = data[at + _FRAME.size : at + _FRAME.size + size]
        if len(batch) < size:
            return  # torn: a kill in the middle of a write
        if zlib.crc32(batch) != checksum:
            if at + _FRAME.size + size < len(data):
                raise JournalError(f"{path}: damaged at byte {at}, before its end")
            return
        yield from decode_batch(batch)
        at += _FRAME.size + size


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
