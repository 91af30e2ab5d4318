"""Keeps the workers running: one child process each, watched through a pipe.

A worker that ends is started again, after a growing pause; other workers are not affected. One
whose event loop hangs logs its stacks and is killed. Workers end with the supervisor, however it
ends.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec
import structlog

import nabij
from broker.core.health import Cause, Health, Severity, stops
from broker.errors import ConfigError, UnavailableError
from nabij.local.worker_process import BADLY_CONFIGURED, BEAT, DRAIN_S, DUMP_SIGNAL, FAILED
from schemas.messages import ServiceState

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_S = 30.0  # a worker that lived this long is restarted with the shortest pause
TICK_S = 1.0
MISSED_BEATS = 5  # not alive, and not ready
HUNG_BEATS = 20  # asked for its stacks, and killed a tick later
START_TIMEOUT_S = 30.0

WORKER = (sys.executable, "-m", "nabij.local.worker_process")

_STDERR = 2
_STATES = frozenset(ServiceState)
_UNTOLD = Cause(
    code="worker_untried",
    what="a worker has not yet tried whether it works",
    mend="wait a second",
)

_log = structlog.get_logger(__name__)


class Worker:
    """One of a service's workers, with its process's last report."""

    def __init__(self, service: str, index: int) -> None:
        self.service = service
        self.index = index
        self.state = ServiceState.STARTING
        self.process: Process | None = None
        self.busy = False  # from before the start of the process until after its end
        self.restarts = 0
        self.missed_beats = 0
        self.was_ready = False
        self.health: Health | None = None
        self.failure: str | None = None  # why its last process could not go on
        self.stack: list[str] = []
        self._unfinished = b""

    @property
    def name(self) -> str:
        """The name, such as `intake-1`."""
        return f"{self.service}-{self.index}"

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self.process.pid if self.process else None

    @property
    def alive(self) -> bool:
        """Whether its loop turns, if it has a process."""
        return self.process is None or self.missed_beats < MISSED_BEATS

    @property
    def is_ready(self) -> bool:
        """Whether it handles reports now."""
        return not stops(self.causes())

    @property
    def condition(self) -> str:
        """Its state, in a word."""
        if self.process and not self.alive:
            return "hung"
        if self.state is ServiceState.READY and not self.is_ready:
            return "not ready"
        return self.state.value

    def causes(self) -> Sequence[Cause]:
        """What is wrong with it now."""
        if self.state is not ServiceState.READY or not self.alive:
            return [self._away()]
        if self.health is None:
            return [_UNTOLD]
        return self.health.causes

    @property
    def reason(self) -> str | None:
        """Why it does not become ready, as far as its processes have said so."""
        waits_for = (
            [f"{one.what} ({one.mend})" for one in self.health.causes] if self.health else []
        )
        return self.failure or "; ".join(waits_for) or None

    def _away(self) -> Cause:
        what = self.condition if self.process and not self.alive else self.state.value
        return Cause(
            code=f"worker_{what}",
            what=f"a worker of {self.service} is {what}",
            mend="it is started again by itself; if it stays so, its log says why",
        )

    def hear(self, data: bytes) -> None:
        """Read what came through the pipe: beats, states, its health, and stacks."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            word = line.decode(errors="replace")
            if word == BEAT:
                self.missed_beats = 0
            elif word in _STATES:
                self.missed_beats = 0
                self.state = ServiceState(word)
                if self.state is ServiceState.READY:
                    self.was_ready, self.health, self.failure = True, None, None
            elif line.startswith(b"{"):
                self.health = msgspec.json.decode(line, type=Health)
            elif word.startswith(FAILED):
                self.failure = word.removeprefix(FAILED)
            elif word:
                self.stack.append(word)

    def forget_process(self) -> None:
        """The process has ended."""
        self.process, self.busy, self._unfinished, self.missed_beats = None, False, b"", 0
        self.state, self.health, self.stack = ServiceState.LOST, None, []


class Supervisor:
    """An async context manager: started on entering, drained on leaving.

    `workers` says how many workers of which service; `environment` is theirs, `program` is what
    each runs. `on_exit` is called with the id of every process that ended.
    """

    def __init__(
        self,
        workers: Mapping[str, int],
        environment: Mapping[str, str],
        *,
        program: Sequence[str] = WORKER,
        on_exit: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.workers: Sequence[Worker] = [
            Worker(service, index + 1)
            for service, count in workers.items()
            for index in range(count)
        ]
        self._environment = {**environment}
        self._program = program
        self._on_exit = on_exit
        self._tasks = asyncio.TaskGroup()
        self._children: list[asyncio.Task[None]] = []
        self._failure: ConfigError | None = None
        self._changed = asyncio.Event()
        self._draining = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._children = [
            self._tasks.create_task(self._watch(), name="watch the workers"),
            *(
                self._tasks.create_task(self._keep(worker), name=f"keep {worker.name}")
                for worker in self.workers
            ),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._drain()
        finally:
            for child in self._children:
                child.cancel()
            # The body's own error must not be wrapped: the group only has to end.
            await self._tasks.__aexit__(None, None, None)

    @property
    def ready(self) -> bool:
        """Whether every worker is."""
        return not self.unready()

    @property
    def alive(self) -> bool:
        """Whether every running worker's loop turns."""
        return all(worker.alive for worker in self.workers)

    def unready(self) -> dict[str, str]:
        """Return the workers that are not ready, and their states."""
        return {worker.name: _told(worker) for worker in self.workers if not worker.is_ready}

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when every worker is ready.

        Raises:
            UnavailableError: with the workers that were not ready in time.
            ConfigError: a worker reports that its configuration is wrong.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: self.ready or self._failure is not None)
        except TimeoutError:
            raise UnavailableError(f"not ready after {timeout_s:g} s: {self._why()}") from None
        if self._failure:
            raise self._failure

    def _why(self) -> str:
        """Return the workers that are not ready, and each reason why they do not start, once."""
        states = ", ".join(f"{name} is {state}" for name, state in self.unready().items())
        starting = (one.reason for one in self.workers if one.state is not ServiceState.READY)
        return "; ".join([states, *dict.fromkeys(reason for reason in starting if reason)])

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # One worker

    async def _keep(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        pause_s = BACKOFF_FIRST_S
        while not self._draining:
            began_s = loop.time()
            status = await self._run_once(worker)
            if self._draining:
                return
            if status == BADLY_CONFIGURED and not worker.was_ready:
                self._failure = ConfigError([f"{worker.name} cannot start: see its log above"])
                self._changed.set()
                return
            if loop.time() - began_s > STEADY_S:
                pause_s = BACKOFF_FIRST_S
            worker.restarts += 1
            _log.warning(
                "a worker ended and is started again",
                worker=worker.name,
                status=status,
                pause_s=pause_s,
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_MAX_S)

    async def _run_once(self, worker: Worker) -> int:
        """Start its process, listen to it, and return its exit status."""
        worker.state, worker.busy = ServiceState.STARTING, True
        try:
            with _pipe() as (reading, writing):
                worker.process = await self._spawn(worker, writing)
                if self._draining:  # a signal came while it was being started
                    self._send(worker, signal.SIGTERM)
                status = await self._listen(worker, worker.process, reading)
            self._on_exit(worker.process.pid)
        except OSError as error:  # out of processes or files
            _log.error("a worker could not be started", worker=worker.name, reason=str(error))
            status = 1
        worker.forget_process()
        self._changed.set()
        return status

    async def _spawn(self, worker: Worker, pipe: int) -> Process:
        return await asyncio.create_subprocess_exec(
            *self._program,
            *(worker.service, str(worker.index), str(pipe), str(os.getpid())),
            cwd=Path(nabij.__file__).parents[1],  # `-m` searches here first
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=_STDERR,  # our stdout is for results
            pass_fds=(pipe,),
            start_new_session=True,  # Ctrl-C is for us; we then tell the workers
        )

    async def _listen(self, worker: Worker, process: Process, pipe: int) -> int:
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe, self._hear, worker, pipe)
        try:
            return await process.wait()
        finally:
            loop.remove_reader(pipe)
            with contextlib.suppress(BlockingIOError):  # its last words
                self._hear(worker, pipe)

    def _hear(self, worker: Worker, pipe: int) -> None:
        worker.hear(os.read(pipe, 4096))
        self._changed.set()

    # All of them

    async def _watch(self) -> None:
        """Count missed beats, in ticks, so that a pause of this process is not counted."""
        while True:
            await asyncio.sleep(TICK_S)
            for worker in self.workers:
                worker.missed_beats += worker.process is not None
                if worker.missed_beats == HUNG_BEATS:
                    self._send(worker, DUMP_SIGNAL)
                    self._send(worker, signal.SIGCONT)  # a stopped process handles no other signal
                elif worker.missed_beats > HUNG_BEATS or worker.stack:
                    _log.error(
                        "a worker hangs and is killed", worker=worker.name, stack=worker.stack
                    )
                    self._send(worker, signal.SIGKILL)

    async def _drain(self) -> None:
        self._draining = True
        for worker in self.workers:
            self._send(worker, signal.SIGTERM)
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._until(self._idle)
        except TimeoutError:
            for worker in self.workers:
                if worker.process:
                    _log.error("a worker did not drain and is killed", worker=worker.name)
                    self._send(worker, signal.SIGKILL)
            await self._until(self._idle)

    def _idle(self) -> bool:
        return not any(worker.busy for worker in self.workers)

    @staticmethod
    def _send(worker: Worker, number: signal.Signals) -> None:
        if worker.process:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)


def _told(worker: Worker) -> str:
    causes = [cause for cause in worker.causes() if cause.severity is Severity.STOPS]
    if worker.state is not ServiceState.READY or not worker.alive:
        return worker.condition
    return "; ".join(f"not ready: {cause.what} ({cause.mend})" for cause in causes)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)
