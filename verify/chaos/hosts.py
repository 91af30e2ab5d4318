"""The hosts that the services run on: started, stopped, killed, swapped and scaled."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self

from nabij.local.supervisor import Supervisor, Worker
from verify.chaos.plan import HostChange, Rescale
from verify.world.exercised import sent_topics

READY_S = 180.0  # on few processors, and what it waits for may be killed, too
# Those that share subscriptions: a worker that goes must not swallow its part of them.
_SCALED = {topic.service: 2 for topic in sent_topics()}


class Hosts:
    """An async context manager; when it is left every host is stopped.

    `environment` is that of the workers, without the host's name; `names` are those of the first
    hosts, `workers` says how many workers of which service each of them runs.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        program: Sequence[str],
        *,
        names: Sequence[str],
        workers: Mapping[str, int],
    ) -> None:
        self._environment = environment
        self._program = program
        self._names = names
        self._workers = workers
        self._running: dict[str, Supervisor] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fresh = 0

    async def __aenter__(self) -> Self:
        for name in self._names:
            await self._begin(name, self._workers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(*self._running)

    @property
    def ready(self) -> bool:
        """Whether every worker of every host is."""
        return bool(self._running) and all(one.ready for one in self._running.values())

    @property
    def workers(self) -> Sequence[Worker]:
        """All workers of all hosts."""
        return [worker for one in self._running.values() for worker in one.workers]

    def processes(self) -> dict[str, int]:
        """Return the workers that run now, by name; with several hosts after that of theirs."""
        return {
            worker.name if len(self._names) == 1 else f"{name}-{worker.name}": worker.pid
            for name, one in self._running.items()
            for worker in one.workers
            if worker.pid
        }

    async def wait_ready(self) -> None:
        """Return when every worker is; raises what `Supervisor.wait_ready` does."""
        for one in [*self._running.values()]:
            await one.wait_ready(READY_S)

    async def start(self, name: str, workers: Mapping[str, int] | None = None) -> None:
        """Start a host; return when it is ready."""
        await self._begin(name, workers or self._workers)
        await self._running[name].wait_ready(READY_S)

    async def stop(self, *names: str) -> None:
        """Stop hosts at once, as SIGTERM does."""
        tasks = [self._tasks.pop(name) for name in names]
        for name in names:
            self._stops.pop(name).set()
            del self._running[name]
        await asyncio.gather(*tasks)

    async def die(self, name: str) -> None:
        """Kill all of a host: its supervisor starts nothing again."""
        for worker in self._running[name].workers:
            if worker.pid:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        await self.stop(name)

    async def _begin(self, name: str, workers: Mapping[str, int]) -> None:
        supervisor = Supervisor(
            workers, {**self._environment, "NABIJ_INSTANCE": name}, program=self._program
        )
        entered, stop = asyncio.Event(), asyncio.Event()

        async def live() -> None:
            async with supervisor:
                entered.set()
                await stop.wait()

        self._tasks[name] = asyncio.create_task(live(), name=f"host {name}")
        self._stops[name], self._running[name] = stop, supervisor
        await entered.wait()

    # -- changes ----------------------------------------------------------------------------------

    async def change(self, rescale: Rescale) -> None:
        """Change the hosts; return when those that are to run are ready."""
        names = sorted(self._running)
        name = names[int(rescale.pick * len(names))]
        match rescale.change:
            case HostChange.ROLLING_RESTART:
                for each in names:
                    await self._restart(each, each)
            case HostChange.SCALE_UP:
                await self._restart(name, name, {**self._workers, **_SCALED})
            case HostChange.SCALE_DOWN:
                most = max(names, key=lambda each: len(self._running[each].workers))
                await self._restart(most, most)
            case HostChange.HOST_DIES:
                await self.die(name)
                await self.start(self._fresh_name())
            case HostChange.SWAP:
                fresh = self._fresh_name()
                await self.start(fresh)
                await self.stop(name)
            case HostChange.ALL_DOWN:
                await self.stop(*names)
                await asyncio.gather(*(self.start(self._fresh_name()) for _ in names))

    async def _restart(
        self, name: str, again: str, workers: Mapping[str, int] | None = None
    ) -> None:
        await self.stop(name)
        await self.start(again, workers)

    def _fresh_name(self) -> str:
        self._fresh += 1
        return f"h{self._fresh}"


async def change_all(
    hosts: Hosts,
    rescales: Sequence[Rescale],
    share_done: Callable[[], float],
    on_change: Callable[[Rescale], None],
) -> None:
    """Change the hosts, one change after another, each when so much has been done."""
    for rescale in rescales:
        while share_done() < rescale.share:  # noqa: ASYNC110 - it looks at other processes
            await asyncio.sleep(0.05)
        await hosts.change(rescale)
        on_change(rescale)
