"""The modelled Redis server, and a process's lines to it: slow, cut, down, never out of order."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from broker.errors import UnavailableError
from broker.store.kernel.pipeline import CommandRefused
from broker.store.kernel.redis_connection import SCRIPT_NAMES
from verify.simulation.process import Process
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.script_models import SCRIPTS, Script
from verify.simulation.virtual_time import EPOCH_S, VirtualLoop

_APART_S = 1e-6  # what is sent one after another arrives so


class RedisServer:
    """One server. What it has carried out it keeps over restarts (`appendfsync always`).

    `changes` counts what changed in sorted sets and streams: what a worker's loops look for.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.up = True
        self.starts = 1
        self.changes = 0
        self.scripts: dict[str, Script] = dict(SCRIPTS)
        self.database = Database(lambda: int((EPOCH_S + loop.now) * 1000), self._changed)
        self._watching: dict[bytes, list[asyncio.Future[None]]] = {}
        self._watching_all: list[asyncio.Future[None]] = []

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

    def watch_all(self) -> asyncio.Future[None]:
        """Return what is done once anything has changed that `changes` counts."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching_all.append(future)
        return future

    def execute(self, words: Sequence[Word]) -> Any:
        """Carry out one command, or the model of a script."""
        if words[0] != "EVALSHA":
            return self.database.execute(*words)
        count = int(words[2])
        script = self.scripts[SCRIPT_NAMES[str(words[1])]]
        keys = [str(key) for key in words[3 : 3 + count]]
        return script(self.database, keys, words[3 + count :])

    def _changed(self, key: bytes) -> None:
        self.changes += 1
        several, self._watching_all = self._watching_all, []
        for future in (*self._watching.pop(key, ()), *several):
            if not future.done():
                future.set_result(None)


class Line:
    """One connection of a process, with the methods of `broker.store.kernel.pipeline.RedisPipeline`."""

    def __init__(self, server: RedisServer, process: Process) -> None:
        self._server = server
        self._process = process
        self._arrived_at = self._answered_at = 0.0

    async def call(self, *words: Word) -> Any:
        """Return the answer to one command."""
        if "BLOCK" in words:
            return await self._blocking(words)
        answer = await self._ask(lambda: self._server.execute(words))
        if words[0] == "XREADGROUP" and answer and answer[0][1]:
            self._process.on_take()
        return answer

    async def calls(self, several: Iterable[Sequence[Word]]) -> list[Any]:
        """Return the answers to several commands."""
        commands = list(several)
        return await self._ask(lambda: self._execute_all(commands)) if commands else []

    def _execute_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Carry out what comes in one write; what is refused keeps none from what follows it."""
        answers: list[Any] = []
        refusal: CommandRefused | None = None
        for words in commands:
            try:
                answers.append(self._server.execute(words))
            except CommandRefused as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return answers

    async def close(self) -> None:
        """Close it: what is under way may still arrive."""

    async def _blocking(self, words: Sequence[Word]) -> Any:
        """Return the answer to XREADGROUP as soon as there is one, without a limit of time."""
        key, group = raw(words[-2]), raw(words[2])
        while True:
            stream = self._server.database.stream(key)
            if self._server.up and stream.last == stream.groups[group].last:
                await self._server.watch(key)
                continue
            answer = await self._ask(lambda: self._server.execute(words))
            if answer is not None:
                self._process.on_take()
                return answer

    def _ask(self, run: Callable[[], Any]) -> asyncio.Future[Any]:
        """Carry out at once and answer late, or carry out late and answer at once: by the dice."""
        process, server = self._process, self._server
        loop = process.loop
        future: asyncio.Future[Any] = loop.create_future()
        if process.dead:
            future.cancel()  # whatever waits for it ends
            return future
        if not server.up:
            future.set_exception(UnavailableError("Redis: nobody answers"))
            return future
        starts, late_s = server.starts, process.delay()
        at = max(loop.now + late_s, self._answered_at + _APART_S)
        self._answered_at = at
        first = process.rng.random() < 0.5 and self._arrived_at <= loop.now
        answer = _Answer(run, future, process, lambda: server.up and server.starts == starts)
        if first:
            answer.carry_out()
        else:
            self._arrived_at = at
        loop.call_at(at, answer.arrive)
        return future


class _Answer:
    """One command on its way there and back."""

    __slots__ = ("_future", "_process", "_reachable", "_refusal", "_result", "_run")

    def __init__(
        self,
        run: Callable[[], Any],
        future: asyncio.Future[Any],
        process: Process,
        reachable: Callable[[], bool],
    ) -> None:
        self._run: Callable[[], Any] | None = run
        self._future = future
        self._process = process
        self._reachable = reachable
        self._result: Any = None
        self._refusal: Exception | None = None

    def carry_out(self) -> None:
        run, self._run = self._run, None
        assert run is not None
        try:
            self._result = run()
        except Exception as error:  # noqa: BLE001 - a refusal, or a mistake of the model
            self._refusal = error

    def arrive(self) -> None:
        if self._process.dead:
            if self._run is not None and self._reachable():
                self.carry_out()  # it was on its way
            self._future.cancel()
            return
        if not self._reachable():
            if not self._future.done():
                self._future.set_exception(UnavailableError("Redis: the connection broke"))
            return
        if self._run is not None:
            self.carry_out()
        if self._future.done():
            return
        if self._refusal is not None:
            self._future.set_exception(self._refusal)
        else:
            self._future.set_result(self._result)
