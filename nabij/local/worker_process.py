"""One worker process of one service, as the supervisor starts it.

    python -m nabij.local.worker_process SERVICE INDEX PIPE PARENT

Configured through its environment. PIPE is a file descriptor to which it writes a line for each
change of state, a beat and its health (JSON) each second, why it could not go on, and on SIGUSR2
its stacks; PARENT the supervisor's process id, with which it ends. Exit status: 0 drained, 2 badly
configured, 75 (EX_TEMPFAIL) something is not there yet, else 1.
"""

import asyncio
import contextlib
import faulthandler
import gc
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial

import msgspec
import structlog
from msgspec.structs import replace

from broker.core.health import Health
from broker.errors import ConfigError, UnavailableError
from broker.runtime import config, log
from broker.runtime.config import Settings
from nabij.event_loop import leaves, run
from nabij.local.parent_death import end_with, raise_open_files
from schemas.messages import ServiceState

BEAT = "beat"
FAILED = "failed: "  # and why
BEAT_S = 1.0
DRAIN_S = 10.0
DUMP_SIGNAL = signal.SIGUSR2
BADLY_CONFIGURED = 2
NOT_YET = os.EX_TEMPFAIL
_REASON_CHARACTERS = 1_000  # in UTF-8 less than PIPE_BUF

_log = structlog.get_logger(__name__)


class Pulse:
    """The pipe to the supervisor; `on_gone` is called once when the supervisor is gone."""

    def __init__(self, pipe: int, on_gone: Callable[[], None]) -> None:
        self._pipe = pipe
        self._on_gone: Callable[[], None] | None = on_gone
        os.set_blocking(pipe, False)

    def say(self, word: str) -> None:
        """Write one line; drop it if the pipe is full."""
        try:
            with contextlib.suppress(BlockingIOError):
                os.write(self._pipe, f"{word}\n".encode())
        except OSError:
            if self._on_gone:
                self._on_gone()
            self._on_gone = None

    def health(self, health: Health) -> None:
        """Write its health. A write of more than PIPE_BUF bytes could be torn (pipe(7))."""
        line = msgspec.json.encode(health)
        if len(line) >= select.PIPE_BUF:
            line = msgspec.json.encode(replace(health, causes=health.causes[:3]))
        self.say(line.decode())

    def failed(self, reason: str) -> None:
        """Write in one line why it could not go on."""
        self.say(FAILED + " ".join(reason.split())[:_REASON_CHARACTERS])

    def state(self, state: ServiceState) -> None:
        """Write a change of state; a worker that is ready has loaded what lives forever."""
        self.say(state.value)
        if state is ServiceState.READY:
            _calm_collector()

    async def beat(self) -> None:
        """Write each second that the loop turns."""
        while True:
            self.say(BEAT)
            await asyncio.sleep(BEAT_S)


def _calm_collector() -> None:
    """Let the garbage collector leave alone what lives forever; it took 6 % of intake's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def work(name: str, index: int, pipe: int, settings: Settings) -> None:
    """Run the worker until SIGTERM, SIGINT or the supervisor's end, then drain."""
    from broker.runtime.worker import run_worker  # noqa: PLC0415 - after the log has been set up
    from services import load, routes  # noqa: PLC0415 - as above

    service = load(name)
    os.nice(service.niceness)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def end() -> None:
        if not stop.is_set():
            stop.set()
            # The supervisor may be gone: no one would kill a worker that cannot drain.
            loop.call_later(DRAIN_S + 2, os._exit, 1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    pulse = Pulse(pipe, end)
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(pulse.beat(), name="heartbeat")
        await run_worker(
            service,
            settings,
            worker=index,
            routes=routes(),
            stop=stop,
            on_state=pulse.state,
            on_health=pulse.health,
        )
        beating.cancel()


def main(arguments: list[str]) -> int:
    """Run the worker that `arguments` name and return its exit status."""
    name, index, pipe, parent = arguments
    # Not to standard error, which is for the log: the supervisor logs it.
    faulthandler.register(DUMP_SIGNAL, file=int(pipe), all_threads=True)
    end_with(int(parent))
    raise_open_files()
    log.set_up("info", config.log_format(), service=name, worker=index)
    try:
        settings = config.load()
        log.set_up(settings.log_level, settings.log_format, service=name, worker=index)
        run(work(name, int(index), int(pipe), settings))
    except Exception as error:  # noqa: BLE001 - the outermost: a status instead of a traceback
        return _status_of(error, Pulse(int(pipe), lambda: None))
    return 0


def _status_of(error: Exception, pulse: Pulse) -> int:
    causes = list(leaves(error))
    tell = partial(_log.error, "the worker could not go on")
    for cause in causes:
        if isinstance(cause, ConfigError):
            tell(problems=cause.problems)
            return BADLY_CONFIGURED
    if all(isinstance(cause, UnavailableError) for cause in causes):
        reason = "; ".join(map(str, causes))
        tell(reason=reason)
        pulse.failed(reason)
        return NOT_YET
    _log.error("the worker crashed", exc_info=error)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
