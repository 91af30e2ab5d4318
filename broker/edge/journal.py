"""The journal on disk: batches of records, each whole or not there.

A file begins with its format and a random mark. A row of frames follows: the mark, a CRC-32, the
length of a batch, and the batch (`records.encode_batch`). A frame that a kill or a power cut has
torn is the last of its file, and nobody was told of it: it is cut off. When a file has grown large,
a next one begins, gets a copy of all that is live, and replaces it.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from broker.edge.records import Record, decode_batch

_FORMAT: Final = b"nabij journal 1\n"
_MARK_BYTES: Final = 8
_HEADER_BYTES: Final = len(_FORMAT) + _MARK_BYTES + 4
_FRAME: Final = struct.Struct(f"<{_MARK_BYTES}sII")
_NAME: Final = "journal-{:08d}"
_GROWTH: Final = 2.0


class JournalError(Exception):
    """The journal cannot be read or written."""


class Journal:
    """The files of one directory. `write` blocks; only one thread at a time may be in it.

    A file below `min_bytes` is not rewritten.
    """

    def __init__(self, directory: Path, min_bytes: int = 16 << 20) -> None:
        self._directory = directory
        self._min_bytes = min_bytes
        self._lock = self._file = -1
        self._number = 0
        self._mark = b""
        self._bytes = 0
        self._live_bytes = 0  # after the last rewrite

    def open(self) -> None:
        """Take the directory for this process alone; make it if it is not there.

        Raises:
            JournalError: it cannot be used, or another process uses it.
        """
        with self._failing():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / "lock"
            self._lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = "another process uses this journal"
                raise JournalError(f"{self._directory}: {problem}") from None

    def read(self) -> Iterator[Record]:
        """Yield the records of all files, oldest first.

        Raises:
            JournalError: a file is damaged before its end, or of another release.
        """
        for path in self._paths():
            self._number = int(path.name.removeprefix("journal-"))
            for batch in _batches(path, path.read_bytes()):
                yield from decode_batch(batch)

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("journal-[0-9]*"))

    # -- writing ----------------------------------------------------------------------------------

    def rewrite(self) -> None:
        """Begin the next file; a copy of all that is live follows, then `rewritten`.

        Raises:
            JournalError: the directory cannot be written to.
        """
        self._number += 1
        self._mark = os.urandom(_MARK_BYTES)
        self._bytes = 0
        self._close_file()
        with self._failing():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._directory / _NAME.format(self._number), flags, 0o600)
            _sync_directory(self._directory)
        start = _FORMAT + self._mark
        self._put(start + zlib.crc32(start).to_bytes(4, "little"))

    def write(self, batch: bytes) -> None:
        """Append a batch, and return when it is on the disk.

        Raises:
            JournalError: it is not (the disk is full, or broken): what follows must not be promised.
        """
        self.append(batch)
        self._sync()

    def append(self, batch: bytes) -> None:
        """Append a batch, which a later `write` or `rewritten` brings to the disk."""
        checksum = zlib.crc32(batch, len(batch))
        self._put(_FRAME.pack(self._mark, checksum, len(batch)) + batch)

    def _put(self, data: bytes) -> None:
        with self._failing():
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        self._bytes += len(data)

    def _sync(self) -> None:
        with self._failing():
            os.fdatasync(self._file)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._close_file()  # nothing may follow half a frame
            raise JournalError(f"{self._directory}: {error.strerror}") from error

    @property
    def is_large(self) -> bool:
        """Whether the file should be rewritten."""
        return self._bytes > max(self._min_bytes, _GROWTH * self._live_bytes)

    def rewritten(self) -> None:
        """All that is live is in the present file: those before it go."""
        self._sync()
        with self._failing():
            for path in self._paths():
                if path.name != _NAME.format(self._number):
                    path.unlink()
            _sync_directory(self._directory)
        self._live_bytes = self._bytes

    def close(self) -> None:
        """Close the file, and let other processes use the directory."""
        self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _close_file(self) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1


def _batches(path: Path, data: bytes) -> Iterator[memoryview]:
    """Yield the batches of a file, without what was torn at its end."""
    if len(data) <= _HEADER_BYTES:
        return  # torn before anything was in it
    if not data.startswith(_FORMAT):
        raise JournalError(f"{path}: no journal of this release of Nabij: {data[:16]!r}")
    mark, at = data[len(_FORMAT) : _HEADER_BYTES - 4], _HEADER_BYTES
    if zlib.crc32(data[: at - 4]).to_bytes(4, "little") != data[at - 4 : at]:
        raise _damaged(path, 0)
    while (batch := _batch_at(data, at, mark)) is not None:
        yield batch
        at += _FRAME.size + len(batch)
    while (at := data.find(mark, at + 1)) >= 0:  # no client knows the mark, so it can fake no frame
        if _batch_at(data, at, mark) is not None:
            raise _damaged(path, at)


def _batch_at(data: bytes, at: int, mark: bytes) -> memoryview | None:
    if len(data) - at < _FRAME.size:
        return None
    found, checksum, size = _FRAME.unpack_from(data, at)
    batch = memoryview(data)[at + _FRAME.size : at + _FRAME.size + size]
    is_whole = found == mark and len(batch) == size and zlib.crc32(batch, size) == checksum
    return batch if is_whole else None


def _damaged(path: Path, at: int) -> JournalError:
    return JournalError(
        f"{path}: damaged before byte {at + 1}. Restore the directory from a backup; or move this"
        " file away, which loses what is in it: sessions, and messages that wait for them"
    )


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
