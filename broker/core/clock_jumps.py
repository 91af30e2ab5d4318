"""Detects jumps of the wall clock, and says which time the services then use.

Small corrections of the wall clock are followed. A sudden difference to the monotonic clock
(`steady`, which also counts suspension) means that the wall clock was set: by an operator, a time
server or a restored virtual machine. Whether the new time is right is unknown, so the services keep
the old time for a grace period before they use the new one.

A worker that starts has no old time. It takes the time of the running workers, or of Redis: a wall
clock that differs is treated as a jump.
"""

import enum

from msgspec import Struct
from msgspec.structs import replace

MAX_STEP_S = 2.0  # a time server corrects this much in one step
GRACE_S = 900.0
AGREE_S = 5.0  # clocks no further apart than this agree


class Turn(enum.Enum):
    """What a reading of both clocks has shown."""

    STEADY = "steady"
    JUMPED = "jumped"
    RETURNED = "returned"
    ADOPTED = "adopted"


class Timekeeper(Struct, frozen=True, kw_only=True):
    """Our time is `steady + offset`; `jump_s` is the jump held off since `jumped_at`."""

    offset_s: float
    jump_s: float = 0.0
    jumped_at: float = 0.0


class SharedTime(Struct, frozen=True, array_like=True):
    """The time that the workers use (Unix s), and how much longer they hold off a jump (0: none).

    `from_redis`: no worker has reported it lately, so it is the clock of Redis.
    """

    seconds: float
    held_for_s: float = 0.0
    from_redis: bool = False


def started(wall_s: float, steady_s: float) -> Timekeeper:
    """Return a timekeeper that takes the wall clock as it is."""
    return Timekeeper(offset_s=wall_s - steady_s)


def started_from(
    shared: SharedTime, wall_s: float, steady_s: float, *, grace_s: float = GRACE_S
) -> Timekeeper:
    """Return a timekeeper that holds off the wall clock if it differs from the shared time."""
    off_s = wall_s - shared.seconds
    if abs(off_s) <= AGREE_S:
        return started(wall_s, steady_s)
    held_s = grace_s - shared.held_for_s if 0 < shared.held_for_s <= grace_s else 0.0
    return Timekeeper(offset_s=shared.seconds - steady_s, jump_s=off_s, jumped_at=steady_s - held_s)


def read(
    before: Timekeeper,
    wall_s: float,
    steady_s: float,
    *,
    grace_s: float = GRACE_S,
    others_agree: bool = True,
) -> tuple[Timekeeper, Turn]:
    """Return the timekeeper after a reading of both clocks, and what the reading has shown.

    `others_agree` says whether another host's clock agrees with the wall clock: without that it is
    never used.
    """
    off_s = wall_s - steady_s - before.offset_s
    if abs(off_s) <= MAX_STEP_S:
        after = Timekeeper(offset_s=wall_s - steady_s)
        return after, Turn.RETURNED if before.jump_s else Turn.STEADY
    if abs(off_s - before.jump_s) > MAX_STEP_S:
        return replace(before, jump_s=off_s, jumped_at=steady_s), Turn.JUMPED
    if steady_s - before.jumped_at < grace_s or not others_agree:
        return replace(before, jump_s=off_s), Turn.STEADY
    return Timekeeper(offset_s=wall_s - steady_s), Turn.ADOPTED
