"""The event loop of a process and its end: signals, and errors as sentences."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

END_S = 45.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 - read as `except Interrupted`
    """SIGTERM, SIGINT or SIGHUP came; everything that was acquired has been released."""


class _Ending:
    """Whether a signal has come, and the task that the first one cancels."""

    def __init__(self) -> None:
        self.came = False
        self.cancel: Callable[[], object] = lambda: None

    def __call__(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if not self.came:  # a second signal does not cut the draining short
            self.came = True
            self.cancel()


_endings: list[_Ending] = []  # the one that is in force; a process has one set of signal handlers


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on uvloop, or on asyncio's own loop where uvloop does not exist."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let a signal end only what `run_until_signal` runs in here, now or when it begins.

    So what is created before it and removed after it, such as a temporary directory, is handled
    completely.
    """
    ending = _Ending()
    before = {number: signal.signal(number, ending) for number in _SIGNALS}
    _endings.append(ending)
    try:
        yield
    finally:
        _endings.remove(ending)
        for number, handler in before.items():
            signal.signal(number, handler)


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; on the first SIGTERM, SIGINT or SIGHUP cancel it and wait for its end.

    Raises:
        Interrupted: a signal came.
    """
    if not _endings:
        with ending_cleanly():
            return run_until_signal(work)
    return run(_until(_endings[-1], work))


async def _until(ending: _Ending, work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="main")

    def interrupt() -> None:
        task.cancel()
        # Draining has a time limit: a bug in it must not keep the process from ending.
        loop.call_later(END_S, os._exit, 1)

    ending.cancel = lambda: loop.call_soon_threadsafe(interrupt)
    if ending.came:
        interrupt()
    try:
        return await task
    except asyncio.CancelledError:
        if ending.came:
            raise Interrupted from None
        raise
    finally:
        ending.cancel = lambda: None


def _leave_terminal() -> None:
    """Redirect output for a closed terminal, which would fail with EIO, to the null device."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - the device
        for number in (1, 2):
            if os.isatty(number):
                os.dup2(nowhere.fileno(), number)


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
