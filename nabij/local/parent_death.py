"""Replaces itself by another program that ends when its parent ends.

Run as a script, not imported: `python -I -S parent_death.py PARENT_PID PROGRAM [ARGUMENT]…`. It
asks the kernel for SIGTERM at the parent's death (prctl(2), PR_SET_PDEATHSIG, kept across execve),
raises the limit on open files, and replaces itself. A `preexec_fn` could do the same, but runs
Python between fork and exec, which is unsafe once the parent has threads.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
OPEN_FILES = 1_048_576  # an unlimited hard limit would make some programs allocate for it


def end_with(parent_pid: int) -> None:
    """Have SIGTERM sent when the parent dies (Linux; elsewhere the parent's atexit must do)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:  # it died before the request was made
        sys.exit(1)


def raise_open_files() -> None:
    """Raise the limit on open files to the hard limit: each participant is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses more than OPEN_MAX
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    raise_open_files()
    end_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  (the caller's own command, no shell)
