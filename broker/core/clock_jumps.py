"""When the wall clock has jumped, and what time the services then go by.

A wall clock follows small corrections. One that is suddenly off against a clock that only runs
(`steady`, which counts suspension too) has been set: by an operator, a time server or a restored
virtual machine. Whether it is right now nobody knows yet, so the services keep the time from before
for a grace. Only then do they go by the new one.

A worker that starts knows no time from before. It takes that of the workers that run, or of Redis: a
wall clock that shows another is held off as a jump is.
"""

import enum

from msgspec import Struct
from msgspec.structs import replace

MAX_STEP_S = 2.0  # what a time server corrects in one go without anybody noticing
GRACE_S = 900.0
AGREE_S = 5.0  # two clocks that are no further apart show the same


class Turn(enum.Enum):
    """What a reading of both clocks has shown."""

    STEADY = "steady"
    JUMPED = "jumped"
    RETURNED = "returned"
    ADOPTED = "adopted"


class Timekeeper(Struct, frozen=True, kw_only=True):
    """What is known: our time is `steady + offset`; `jump_s` is what is held off since `jumped_at`."""

    offset_s: float
    jump_s: float = 0.0
    jumped_at: float = 0.0


class SharedTime(Struct, frozen=True, array_like=True):
    """What the workers go by (Unix s), and how much longer they hold a jump off (0: they hold none).

    `from_redis`: no worker has said it lately, so that it is the clock of Redis.
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
    """Return a timekeeper that holds the wall clock off where it does not show the shared time."""
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
    """Return what is known after a reading of both clocks, and what it has shown.

    `others_agree` says whether another host's clock shows the same as the wall clock: one that
    stands alone is never gone by.
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
