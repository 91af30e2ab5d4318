"""Virtual time: an event loop that never waits, which the services' clocks read."""

# ruff: noqa: D102 (the methods of an event loop, as asyncio documents them)

import asyncio
import datetime as dt
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import Any

import structlog

EPOCH_S = 1_790_000_000.0  # Unix time at which every simulated world begins


class StuckError(Exception):
    """Nobody has anything left to do, and the world has not ended."""


class _Handle:
    """A callback that may be cancelled before its turn."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., object] | None, args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class VirtualLoop(asyncio.AbstractEventLoop):
    """An event loop whose time is a number that jumps to the next timer.

    Timers of one moment run in the order in which they were set: a seed always tells one story.
    Half as long as asyncio's own takes for an event, since there is no context and no selector.
    """

    def __init__(self, on_error: Callable[[str], None] = lambda _: None) -> None:
        self.now = 0.0
        self._on_error = on_error
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._number = 0

    def time(self) -> float:
        """Return virtual seconds since the world began."""
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        del context
        return asyncio.Task(coro, loop=self, name=name)

    def call_soon(  # type: ignore[override]  # less generic, like the two below
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        del context
        handle = _Handle(callback, args)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        del context
        self._number += 1
        handle = _Handle(callback, args)
        heappush(self._timers, (when, self._number, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tell what no part of the system may raise; a task that died with its process may."""
        if "was destroyed but it is pending" not in context["message"]:
            self._on_error(repr(context.get("exception") or context["message"]))

    def run_until_complete(self, future: Any) -> Any:
        """Run until `future` is done, and return its result."""
        asyncio._set_running_loop(self)  # noqa: SLF001 - what every event loop calls
        try:
            task = asyncio.ensure_future(future, loop=self)
            while not task.done():
                self._turn()
            return task.result()
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001

    def _turn(self) -> None:
        """Run one callback: the next that is ready, else the next timer, at its time."""
        if self._ready:
            handle = self._ready.popleft()
        elif self._timers:
            when, _, handle = heappop(self._timers)
            self.now = max(self.now, when)
        else:
            raise StuckError
        if handle.callback is None:
            return
        try:
            handle.callback(*handle.args)
        except Exception as error:  # noqa: BLE001 - as asyncio's own loop: told, and not the end
            self._on_error(repr(error))

    def unix(self) -> float:
        """Return virtual Unix time."""
        return EPOCH_S + self.now

    def moment(self) -> dt.datetime:
        """Return virtual UTC."""
        return moment(self.now)


def new_loop(on_error: Callable[[str], None]) -> VirtualLoop:
    """Return an event loop at the beginning of time; sockets, signals and threads it has none."""
    return VirtualLoop(on_error)  # type: ignore[abstract]


def moment(now: float) -> dt.datetime:
    """Return the UTC of `now`, virtual seconds since the world began."""
    return dt.datetime.fromtimestamp(EPOCH_S + now, dt.UTC)


@contextmanager
def silence() -> Iterator[None]:
    """Keep the services' logs to themselves: thousands of worlds die in them."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_drop],
        cache_logger_on_first_use=False,
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(*_: object) -> Any:
    raise structlog.DropEvent
