"""The file of a journal: created complete or not at all, and refused when it is damaged."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path

MEMORY = ":memory:"
_APPLICATION_ID = 0x6E61626A
_VERSION = 1
_LOCK_TIMEOUT_S = 2.0  # a process that was killed may still be dying
_SCHEMA = f"""
BEGIN;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE message (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, subject TEXT NOT NULL,
    topic TEXT NOT NULL, payload BLOB NOT NULL, created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT
);
CREATE TABLE seen (id BLOB PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE heard (incident BLOB PRIMARY KEY, sequence INTEGER NOT NULL, at REAL NOT NULL)
    WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
COMMIT;
"""
_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = DELETE",
    "synchronous = EXTRA",
    "secure_delete = ON",  # no text and no place stays in the file after deletion
    "cache_size = -64",  # KiB: hundreds of journals live in one process
)


class JournalError(Exception):
    """The journal cannot be used: which file, why, and what to do. Nothing was promised."""


def opened(path: str) -> sqlite3.Connection:
    """Open the journal at `path` exclusively, or create it.

    Raises:
        JournalError: it is damaged, or not a journal.
        sqlite3.Error, OSError: for `explained`.
    """
    if path != MEMORY:
        _create_where_missing(Path(path))
    connection = sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if path == MEMORY:
            connection.executescript(_SCHEMA)
        _check(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_where_missing(path: Path) -> None:
    """Create the file complete or not at all: so an empty file has lost its content."""
    if path.exists():
        return
    leftover = path.with_name(f"{path.name}-journal")
    if leftover.exists():
        raise JournalError(
            f"{path} is gone, but {leftover} is there: bring the file back, or remove that one too."
        )
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    os.close(descriptor)
    try:
        with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.executescript(_SCHEMA)
        with contextlib.suppress(FileExistsError):  # another process was quicker: its file stands
            os.link(name, path)
    finally:
        Path(name).unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(path: str, connection: sqlite3.Connection) -> None:
    ((application,),) = connection.execute("PRAGMA application_id")
    if application != _APPLICATION_ID:
        raise JournalError(f"{path} is no journal of a device, or has lost its beginning. {_MOVE}")
    ((version,),) = connection.execute("PRAGMA user_version")
    if version != _VERSION:
        raise JournalError(
            f"{path} is of version {version}, and this program knows {_VERSION}: use a newer one."
        )
    ((verdict,),) = connection.execute("PRAGMA quick_check(1)")
    if verdict != "ok":
        raise JournalError(f"{path} is damaged ({' '.join(verdict.split())}). {_MOVE}")
    ((size,),) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    )
    if path != MEMORY and Path(path).stat().st_size < size:  # a cut page is read as if zeros follow
        raise JournalError(f"{path} is damaged: it was cut short. {_MOVE}")
    # Take the exclusive lock now, rather than at the first message.
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("COMMIT")


_MOVE = (
    "Messages in it may not have been delivered: move it away and keep it"
    " (`sqlite3 FILE .recover` shows what is left), and start again with a new one."
)
_CAUSES: Mapping[int, str] = {
    sqlite3.SQLITE_BUSY: "is in use by another process: end that one, or give each device its own.",
    sqlite3.SQLITE_LOCKED: "is in use already: give each device its own.",
    sqlite3.SQLITE_CORRUPT: f"is damaged. {_MOVE}",
    sqlite3.SQLITE_NOTADB: f"is damaged, or no journal of a device. {_MOVE}",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full. Make room, then report again.",
    sqlite3.SQLITE_READONLY: "cannot be written: mend its permissions.",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: see that its directory is there and can be written.",
    sqlite3.SQLITE_IOERR: "cannot be read or written: see whether the disk is full or failing.",
}


def explained(path: str, error: sqlite3.Error | OSError) -> JournalError:
    """Say which file, why, and what to do."""
    if isinstance(error, OSError):
        return JournalError(f"{path} cannot be created: {error.strerror or error}.")
    cause = _CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "cannot be used.")
    return JournalError(f"{path} {cause} ({error}) Nothing was kept: call 112 if it is urgent.")
