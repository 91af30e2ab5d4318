"""An item that cannot be handled must not hold up the others of a sweep, a batch or a read."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from broker.errors import UnavailableError
from broker.redaction import wordless

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger()


async def isolated(
    item: T,
    handle: Callable[[T], Awaitable[R | None]],
    *,
    what: str,
    postpone: Callable[[T], Awaitable[None]] | None = None,
) -> R | None:
    """Handle one of several items; if that fails, log it by its id, postpone it, and return None.

    Raises:
        UnavailableError: Redis or the MQTT broker is away, for all items alike.
    """
    try:
        return await handle(item)
    except UnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the other items are not to blame
        _log.exception(
            "an item cannot be handled; the others go on",
            what=what,
            item=str(item),
            exc_info=wordless(error),
        )
    if postpone is not None:
        await postpone(item)
    return None


async def each(
    items: Iterable[T],
    handle: Callable[[T], Awaitable[R | None]],
    *,
    what: str,
    postpone: Callable[[T], Awaitable[None]] | None = None,
) -> list[R]:
    """Handle items one after another, each isolated; return the results of those that worked."""
    done = [await isolated(item, handle, what=what, postpone=postpone) for item in items]
    return [result for result in done if result is not None]


def readable(items: Iterable[T], read: Callable[[T], R], *, what: str) -> Iterator[R]:
    """Yield `read(item)` for each item; one on which it fails is logged and left out.

    No content of the item is logged: it may tell who was where.
    """
    for item in items:
        try:
            result = read(item)
        except Exception as error:  # noqa: BLE001 - as above
            _log.error(
                "stored data cannot be read; it is left out", what=what, why=type(error).__name__
            )
        else:
            yield result
