"""One worker of a service: the real worker, on modelled connections, in virtual time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from broker.core.policy import Policy
from broker.errors import UnavailableError
from broker.mqtt import (
    Connection,
    ConnectionHooks,
    ConnectionOptions,
    Endpoint,
    Message,
)
from broker.mqtt.connection_options import DEFAULTS, NO_HOOKS
from broker.runtime.clock import Clock
from broker.runtime.config import Settings
from broker.runtime.externals import Externals
from broker.runtime.service import Service
from broker.runtime.worker import run_worker
from broker.store.kernel.pipeline import RedisPipeline
from schemas.messages import ServiceState
from services import routes
from verify.simulation.pace import Pace
from verify.simulation.process import Process
from verify.simulation.redis_model_server import Line, RedisServer
from verify.simulation.simulated_broker import SimulatedBroker
from verify.simulation.virtual_time import VirtualLoop

_SOON_S = (0.012, 0.012, 0.06)  # so long, about, a message is in hand, or what is gathered
_AGAIN_S = 1.0  # after so long a supervisor starts a worker again that could not go on


@dataclass(frozen=True, slots=True)
class SharedModels:
    """What all workers of a world share."""

    loop: VirtualLoop
    rng: random.Random
    delay: Callable[[], float]
    redis: RedisServer
    brokers: Sequence[SimulatedBroker]
    pace: Pace
    policy: Policy
    partitions: int
    trouble: Callable[[str], None]
    # By service: what strikes soon after one of its workers has taken something up.
    traps: "dict[str, Callable[[SimulatedWorker], None]]" = field(default_factory=dict)


class SimulatedWorker:
    """One process. `kill` is SIGKILL: whatever it was doing never goes on. `stop` is SIGTERM."""

    def __init__(self, service: Service, number: int, around: SharedModels) -> None:
        self.service = service
        self.number = number
        self.name = f"{service.name}-{number}"
        self.connections: list[Connection] = []
        self.state = ServiceState.STARTING
        self._around = around
        self._process = Process(
            around.loop, around.rng, around.delay, around.brokers, self._take_up
        )
        self._stop = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    @property
    def dead(self) -> bool:
        """Whether it was killed, or has ended."""
        return self._main is None or self._process.dead or self._main.done()

    @property
    def stops(self) -> bool:
        """Whether it was told to end."""
        return self._stop.is_set()

    def start(self) -> None:
        """Connect and begin."""
        self._main = self._around.loop.create_task(self._run(), name=self.name)

    def stop(self) -> None:
        """Finish what is in hand, and end."""
        self._stop.set()

    def kill(self) -> None:
        """Die without a word."""
        self._process.die()
        if self._main is not None:
            self._main.cancel()

    def cut(self) -> None:
        """Lose the network for a moment."""
        self._process.cut()

    async def _run(self) -> None:
        """Be a worker; start again, as a supervisor would see to it, when a server is away."""
        while True:
            try:
                return await self._work()
            except Exception as error:  # noqa: BLE001 - what no part of the system may raise
                if self._process.dead:
                    return None
                if not _is_unavailable(error):
                    self._around.trouble(f"{self.name}: {error!r}")
            await asyncio.sleep(self._around.rng.uniform(0, _AGAIN_S))

    async def _work(self) -> None:
        around, loop = self._around, self._around.loop
        self.connections.clear()
        await run_worker(
            self.service,
            self._settings(),
            worker=self.number,
            routes=routes(),
            stop=self._stop,
            on_state=self._tell,
            policy=around.policy,
            externals=Externals(
                clock=Clock(loop.unix, loop.time, monotonic=loop.time),
                dice=around.rng,
                open_mqtt=self._open_mqtt,
                open_redis=self._open_redis,
                pause=around.pace.pause,
            ),
        )

    def _settings(self) -> Settings:
        hosts = ",".join(f"{number}:1883" for number in range(len(self._around.brokers)))
        return Settings(
            mqtt_url=f"mqtt://services@{hosts}",
            redis_url="redis://redis",
            share_group="secret",
            data_dir=Path(),
            partitions=self._around.partitions,
        )

    def _tell(self, state: ServiceState) -> None:
        self.state = state

    def _open_mqtt(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        subscriptions: Sequence[str] = (),
        will: Message | None = None,
        options: ConnectionOptions = DEFAULTS,
        hooks: ConnectionHooks = NO_HOOKS,
    ) -> Connection:
        connection = Connection(
            endpoint,
            client_id=client_id,
            subscriptions=subscriptions,
            will=will,
            options=replace(options, keep_alive_s=0),  # both ends notice a cut by themselves
            hooks=hooks,
            externals=self._process.externals(),
        )
        self.connections.append(connection)
        return connection

    def _open_redis(self, url: str, *, answer_s: float) -> RedisPipeline:
        del url, answer_s  # one server, which answers or is down
        return cast("RedisPipeline", Line(self._around.redis, self._process))

    def _take_up(self) -> None:
        strike = self._around.traps.pop(self.service.name, None)
        if strike is not None:
            rng = self._around.rng
            self._around.loop.call_later(rng.uniform(0, rng.choice(_SOON_S)), strike, self)


def _is_unavailable(error: BaseException) -> bool:
    """Whether all that went wrong is that a server was away."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_unavailable, error.exceptions))
    return isinstance(error, (UnavailableError, asyncio.CancelledError))
