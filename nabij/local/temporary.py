"""Temporary directories that are removed even if their process is killed.

A process that is killed (SIGKILL, out of memory) leaves its directories behind, with passwords and
places in them. Each has a lock that its process holds; the next start removes those whose lock is
free.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "nabij-"
_LOCK = "owner.lock"


@contextlib.contextmanager
def temporary_directory(prefix: str = PREFIX) -> Iterator[Path]:
    """Yield a temporary directory; first remove those of dead processes."""
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        lock = _locked(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(lock)


def remove_abandoned() -> None:
    """Remove the directories of this user whose process, and all that it started, has ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            status = path.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if not is_ours or status.st_mode & 0o077:
                continue
            _hold(held, path / _LOCK)  # one without a lock is of another release, or being created
            for lock in path.glob("*/lock"):  # of a server that has not ended yet
                _hold(held, lock)
            shutil.rmtree(path, ignore_errors=True)


def _locked(directory: Path) -> int:
    """Lock a directory; the lock file gets its name once it is held, so it is never seen free."""
    unnamed = directory / f"{_LOCK}.new"
    lock = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(directory / _LOCK)
    return lock


def _hold(held: contextlib.ExitStack, path: Path) -> None:
    """Hold an existing, free lock.

    Raises:
        OSError: it is not.
    """
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    held.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
