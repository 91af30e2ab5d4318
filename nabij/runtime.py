"""The event loop of a process, and how it ends: signals, and errors that are sentences."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

END_S = 45.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 - read as `except Interrupted`
    """SIGTERM or SIGINT came; everything that was acquired has been released."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on uvloop, or on asyncio's own loop where uvloop does not exist."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; on the first SIGTERM or SIGINT cancel it, and let it take its time to end.

    Raises:
        Interrupted: a signal came.
    """
    return run(_until_signal(work))


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="main")
    came: list[int] = []

    def interrupt(number: int) -> None:
        came.append(number)
        if len(came) == 1:  # impatience does not cut the draining short
            task.cancel()
            # Draining is bounded; a mistake in it must not be what keeps a process from ending.
            loop.call_later(END_S, os._exit, 1)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if came:
            raise Interrupted from None
        raise


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside `error`, which may be a (nested) group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        return None
    return uvloop.new_event_loop
