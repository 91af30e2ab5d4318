"""Virtual time: an event loop that never waits, and the clocks that the services read."""

import asyncio
import datetime as real
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from broker import dispatch
from broker.store import store as store_module

EPOCH_S = 1_790_000_000.0  # Unix time at which every simulated world begins
_FEW_LOCKS = 13  # a dispatcher makes a thousand, which takes longer than a simulated second


class StuckError(Exception):
    """Nobody has anything left to do, and the world has not ended."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is a number that jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = self  # BaseEventLoop asks `_selector.select(timeout)` to wait
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return virtual seconds since the world began."""
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass instead of waiting for it."""
        if timeout is None:
            raise StuckError
        self.now += timeout
        return []

    def _process_events(self, _: list[Any]) -> None:
        """There is nothing outside that could have happened."""

    def _write_to_self(self) -> None:
        """No thread waits to be woken."""

    def unix(self) -> float:
        """Return virtual Unix time."""
        return EPOCH_S + self.now

    def moment(self) -> real.datetime:
        """Return virtual UTC."""
        return moment(self.now)


def moment(now: float) -> real.datetime:
    """Return the UTC of `now`, virtual seconds since the world began."""
    return real.datetime.fromtimestamp(EPOCH_S + now, real.UTC)


@contextmanager
def virtual(loop: VirtualLoop, rng: random.Random, connect: Callable[[str], object]) -> Iterator[None]:
    """Give the services this world's clock, dice and Redis while the context lasts."""

    class Now(real.datetime):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> Any:
            return real.datetime.fromtimestamp(EPOCH_S + loop.now, tz)

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (time, "time", loop.unix),
        (dispatch, "datetime", Now),
        (dispatch, "random", rng),
        (dispatch, "_LOCKS", _FEW_LOCKS),
        (store_module, "Connection", connect),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def silence() -> Iterator[None]:
    """Keep the services' logs to themselves: thousands of worlds die in them."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_drop], cache_logger_on_first_use=False,
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    )  # fmt: skip
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(*_: object) -> Any:
    raise structlog.DropEvent
