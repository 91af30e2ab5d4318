"""One way to decide and commit: optimistically, and again if what was read has changed.

The pure core decides on what was read, and the commit is guarded by it. So no lock is held while
something is decided, and no commit rests on what is no longer so.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.errors import Code, Rejected, UnavailableError
from broker.runtime.service import Context
from broker.store import KnownReceipt

Seen = TypeVar("Seen")
Committed = TypeVar("Committed")

ATTEMPTS = (
    1_000  # each fails because another commit succeeded: so many mean a guard that never holds
)


async def decide_and_commit(
    read: Callable[[], Awaitable[Seen]], commit: Callable[[Seen], Awaitable[Committed | None]]
) -> Committed:
    """Read, decide and commit, and again until nothing has changed in between.

    `commit` decides on what `read` returned and commits that; it returns None if that was no longer
    so. What needs no commit, as the answer to a repeated message, it returns at once.

    Raises:
        UnavailableError: no attempt was committed; the message is tried again later.
    """
    for _ in range(ATTEMPTS):
        committed = await commit(await read())
        if committed is not None:
            return committed
    raise UnavailableError(f"{ATTEMPTS} commits in a row found that what they rest on has changed")


def refuse_other(
    received: KnownReceipt, ctx: Context, *, sender: str, told: str | None = None
) -> None:
    """Refuse a message whose id was received before, unless it is the same message.

    Raises:
        Rejected: the id is another sender's, or of another payload.
    """
    if received.user != sender or received.digest != ctx.digest:
        raise Rejected(
            Code.ID_REUSED, "$.id", told or "The id was used before, for another message."
        )
