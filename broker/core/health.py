"""A worker's health: whether reports are handled and, if not, why and what to do."""

import enum
from collections.abc import Iterable

from msgspec import Struct


class Severity(enum.StrEnum):
    """What a cause means for reports."""

    STOPS = "stops"  # reports are not handled: not ready
    DEGRADES = "degrades"  # they are, but an operator must act
    NOTE = "note"  # nothing is wrong; something could not be checked


class Cause(Struct, frozen=True, kw_only=True):
    """One thing that is wrong: a code for programs; for people, what it is and how to fix it."""

    code: str
    what: str
    mend: str
    severity: Severity = Severity.STOPS


class Health(Struct, frozen=True, kw_only=True):
    """The health of one worker at one moment; times are seconds."""

    causes: tuple[Cause, ...] = ()
    mqtt_up: bool = False
    redis_up: bool = False
    mqtt_round_trip_s: float | None = None
    redis_answer_s: float | None = None
    clock_jump_s: float = 0.0
    clock_jumps: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether this worker handles reports now."""
        return not stops(self.causes)


def stops(causes: Iterable[Cause]) -> bool:
    """Whether one of these stops reports."""
    return any(cause.severity is Severity.STOPS for cause in causes)


NO_REDIS = "no Redis at "  # and where, as an error begins
BROKE = "the connection broke"  # as one goes on
_START_REDIS = "start Redis, or mend NABIJ_REDIS_URL"
COME_BACK = "the services come back by themselves"

_FULL = ("No space left on device", "ENOSPC", "Disk quota exceeded")
_REFUSALS = {
    "MISCONF": (
        "redis_cannot_write",
        "Redis could not write to its disk and refuses writes",
        "look at the disk of Redis (space, permissions) and at its log",
    ),
    "OOM": (
        "redis_out_of_memory",
        "Redis has reached its maxmemory and refuses writes",
        "give Redis more memory (maxmemory), or find out what fills it",
    ),
    "READONLY": (
        "redis_read_only",
        "Redis is a read-only replica",
        "set NABIJ_REDIS_URL to the master, or promote this server (REPLICAOF NO ONE)",
    ),
    "NOREPLICAS": (
        "redis_no_replicas",
        "Redis has too few replicas (min-replicas-to-write) to accept a write",
        "start its replicas",
    ),
    "LOADING": (
        "redis_loading",
        "Redis is still loading its append-only file",
        "wait; if it takes minutes, see auto-aof-rewrite-percentage",
    ),
    "NOPERM": (
        "redis_no_permission",
        "the Redis user lacks a permission that the services need",
        "give it +@all on ~nabij:*",
    ),
    "NOAUTH": ("redis_no_password", "Redis wants a password", "put it in NABIJ_REDIS_URL"),
    "WRONGPASS": (
        "redis_wrong_password",
        "Redis refuses the password",
        "mend the password in NABIJ_REDIS_URL",
    ),
}


def disk_full(where: str) -> Cause:
    """Return the cause for a full disk."""
    return Cause(
        code="disk_full",
        what=f"the disk is full ({where})",
        mend="free space or enlarge the disk; Redis goes on by itself, or is restarted",
    )


def redis_cause(problem: str, where: str) -> Cause:
    """Return what keeps Redis from serving, from the text of its error."""
    if is_disk_full(problem):
        return disk_full(where)
    for word, (code, what, mend) in _REFUSALS.items():
        if word in problem:
            return Cause(code=code, what=f"{what} ({problem})", mend=mend)
    return Cause(
        code="redis_down",
        what=problem,
        mend=f"{_START_REDIS}; {COME_BACK}",
    )


def with_mend(problem: str) -> str:
    """Return an error's text, and how to fix it where Redis or a disk is its cause: for commands."""
    if is_disk_full(problem):
        cause = disk_full(problem)
    elif problem.startswith(NO_REDIS) or BROKE in problem:
        return f"{problem}: {_START_REDIS}"  # a command does not come back by itself
    elif problem.startswith("Redis") and any(word in problem for word in _REFUSALS):
        cause = redis_cause(problem, "of Redis")
    else:
        return problem
    return f"{cause.what}: {cause.mend}"


def is_disk_full(problem: str) -> bool:
    """Whether an error's text says that a disk has no space left."""
    return any(sign in problem for sign in _FULL)
