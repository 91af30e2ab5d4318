"""The modelled Redis server, and a worker's line to it: slow, cut, down, never out of order."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from broker.core.changes import Routes
from broker.errors import UnavailableError
from broker.store.kernel.keys import Keys
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.script_models import SCRIPTS, Script
from verify.simulation.virtual_time import EPOCH_S, VirtualLoop

_APART_S = 1e-6  # what is sent one after another arrives so


class RedisServer:
    """One server. What it has carried out it keeps over restarts (`appendfsync always`)."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.up = True
        self.starts = 1
        self.scripts: dict[str, Script] = dict(SCRIPTS)
        self.database = Database(lambda: int((EPOCH_S + loop.now) * 1000), self._changed)
        self._watching: dict[bytes, list[asyncio.Future[None]]] = {}

    def kill(self) -> None:
        """Die: nobody gets an answer any more."""
        self.up = False
        for key in list(self._watching):
            self._changed(key)

    def start(self) -> None:
        """Come back with everything that was carried out."""
        self.up = True
        self.starts += 1

    def watch(self, key: bytes) -> asyncio.Future[None]:
        """Return what is done once `key` has been written to, or the server has died."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching.setdefault(key, []).append(future)
        return future

    def _changed(self, key: bytes) -> None:
        for future in self._watching.pop(key, ()):
            if not future.done():
                future.set_result(None)


class Line:
    """One worker's connection, with the methods of `broker.store.kernel.redis_connection.Connection`."""

    def __init__(
        self, server: RedisServer, loop: VirtualLoop, rng: random.Random, delay: Callable[[], float]
    ) -> None:
        self._server = server
        self._loop = loop
        self._rng = rng
        self._delay = delay
        self._arrived_at = self._answered_at = 0.0
        self.keys = Keys()
        self.routes: Routes | None = None
        self.dead = False

    async def call(self, *words: Word) -> Any:
        """Return the answer to one command."""
        return await self._ask(lambda: self._server.database.execute(*words))

    async def calls(self, several: Iterable[Sequence[Word]]) -> list[Any]:
        """Return the answers to several commands."""
        return await asyncio.gather(*(self.call(*words) for words in several))

    async def script(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """Return the answer of a script."""
        script = self._server.scripts[name]
        return await self._ask(lambda: script(self._server.database, keys, words))

    async def blocking(self, who: str, block_ms: int, *words: Word) -> Any:
        """Return the answer to XREADGROUP as soon as there is one, without a limit of time."""
        del who, block_ms
        key = raw(words[-2])
        while True:
            stream = self._server.database.stream(key)
            if self._server.up and all(stream.last == g.last for g in stream.groups.values()):
                await self._server.watch(key)
                continue
            if (answer := await self.call(*words)) is not None:
                return answer

    def _ask(self, run: Callable[[], Any]) -> asyncio.Future[Any]:
        """Carry out at once and answer late, or carry out late and answer at once: by the dice."""
        loop, server = self._loop, self._server
        future: asyncio.Future[Any] = loop.create_future()
        if self.dead:
            return future  # the waiting worker has died
        if not server.up:
            future.set_exception(UnavailableError("Redis: nobody answers"))
            return future
        starts, late_s = server.starts, self._delay()
        at = max(loop.now + late_s, self._answered_at + _APART_S)
        self._answered_at = at
        first = self._rng.random() < 0.5 and self._arrived_at <= loop.now
        answer = _Answer(run, future, lambda: server.up and server.starts == starts)
        if first:
            answer.carry_out()
        else:
            self._arrived_at = at
        loop.call_at(at, answer.arrive)
        return future


class _Answer:
    """One command on its way there and back."""

    __slots__ = ("_future", "_reachable", "_result", "_run")

    def __init__(
        self, run: Callable[[], Any], future: asyncio.Future[Any], reachable: Callable[[], bool]
    ) -> None:
        self._run: Callable[[], Any] | None = run
        self._future = future
        self._reachable = reachable
        self._result: Any = None

    def carry_out(self) -> None:
        run, self._run = self._run, None
        assert run is not None
        try:
            self._result = run()
        except Exception as error:  # noqa: BLE001 - a mistake of the model must reach the caller
            self._future.set_exception(error)

    def arrive(self) -> None:
        if not self._reachable():
            if not self._future.done():
                self._future.set_exception(UnavailableError("Redis: the connection broke"))
            return
        if self._run is not None:
            self.carry_out()
        if not self._future.done():
            self._future.set_result(self._result)
