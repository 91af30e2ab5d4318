"""What goes wrong in a simulated world: drawn from its seed, at a time or while something is in hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.runtime.service import Service
from services import ALL
from verify.simulation.redis_model_server import RedisServer
from verify.simulation.simulated_broker import SimulatedBroker
from verify.simulation.simulated_desks import Desk
from verify.simulation.simulated_devices import SimulatedParticipant
from verify.simulation.simulated_worker import SharedModels, SimulatedWorker

LATE_S = 150.0  # so long after the beginning a worker comes back that a colleague must take over
_HEALED_S = 8.0  # from then on nothing new goes wrong

_Plan = Callable[[float, float], None]


class At(Protocol):
    """Does something at a time of the world, and tells of it."""

    def __call__(self, at_s: float, what: str, *act: object) -> None:
        """`act` is a function and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The faults of one world.

    `workers` are those that run, by name: they change with restarts. `set_speed` takes 1 for the
    usual speed of messages, less for a slow one.
    """

    around: SharedModels
    workers: Mapping[str, SimulatedWorker]
    people: Sequence[SimulatedParticipant]
    desk: Desk
    at: At
    trace: Callable[[str, str], None]
    start_worker: Callable[[Service, int], None]
    set_speed: Callable[[float], None]

    def plan(self) -> None:
        """Draw how many there are, of which kind and when."""
        rng = self.around.rng
        kinds: tuple[_Plan, ...] = (
            *(self._worker,) * 3,
            self._stop,
            *(self._gone,) * 2,
            self._link,
            self._redis,
            self._mqtt,
            *(self._unwritten,) * 4,
            self._device,
            self._slow,
            *(self._trap,) * 5,
        )
        for _ in range(rng.choice((0, 1, 2, 3, 4, 6))):
            at_s, lasts_s = rng.uniform(0.5, 6.0), rng.uniform(0.05, 1.5)
            rng.choice(kinds)(at_s, lasts_s)

    # -- workers ----------------------------------------------------------------------------------

    def _worker(self, at_s: float, lasts_s: float) -> None:
        name = self.around.rng.choice(list(self.workers))
        worker = self.workers[name]
        self.at(at_s, f"kills {name}", lambda: self.workers[name].kill())  # noqa: PLW0108 - and another worker
        back_s = at_s + self._absence(worker, lasts_s)
        self.at(back_s, f"starts {name}", self._restart, worker.service, worker.number)

    def _absence(self, worker: SimulatedWorker, lasts_s: float) -> float:
        """Return for how long a dead worker stays away: its colleague may have to take over."""
        if worker.number == 1:
            return lasts_s
        return self.around.rng.choice((lasts_s, lasts_s, LATE_S + lasts_s))

    def _stop(self, at_s: float, lasts_s: float) -> None:
        """Let a worker drain, as an upgrade does."""
        name = self.around.rng.choice(list(self.workers))
        worker = self.workers[name]
        self.at(at_s, f"stops {name}", lambda: self.workers[name].stop())  # noqa: PLW0108 - as above
        self.at(at_s + lasts_s, f"starts {name}", self._restart, worker.service, worker.number)

    def _restart(self, service: Service, number: int) -> None:
        """Start a worker that is dead; one that is still draining when it has ended."""
        worker = self.workers[f"{service.name}-{number}"]
        if worker.dead:
            self.start_worker(service, number)
        elif worker.stops:
            self.around.loop.call_later(0.1, self._restart, service, number)

    # -- traps, which strike while a worker has something in hand ---------------------------------

    def _gone(self, at_s: float, lasts_s: float) -> None:
        """Let a worker die at work for good, as with its host: its colleague has to take over."""
        del lasts_s
        name = self.around.rng.choice(("alerting", "groups", "police"))
        self._set_trap(at_s, f"{name}-2", name, self._end_for_good)

    def _end_for_good(self, worker: SimulatedWorker) -> None:
        if self.around.loop.now > _HEALED_S:
            return
        if worker.number == 1:
            self.around.traps[worker.service.name] = self._end_for_good
            return
        self.trace("world", f"kills {worker.name} at work, for good")
        worker.kill()

    def _trap(self, at_s: float, lasts_s: float) -> None:
        """Strike while something is in hand: a moment that chance alone would seldom hit."""
        rng = self.around.rng
        name = rng.choice(ALL)
        strike = rng.choice((self._strike_worker, self._strike_worker, self._strike_server))
        self._set_trap(at_s, name, name, lambda worker: strike(worker, lasts_s))

    def _set_trap(
        self, at_s: float, shown: str, name: str, strike: Callable[[SimulatedWorker], None]
    ) -> None:
        traps = self.around.traps
        self.at(at_s, f"sets a trap for {shown}", traps.__setitem__, name, strike)

    def _strike_worker(self, worker: SimulatedWorker, lasts_s: float) -> None:
        if self.around.loop.now > _HEALED_S:
            return
        self.trace("world", f"kills {worker.name} at work")
        worker.kill()
        absence_s = self._absence(worker, lasts_s)
        self.around.loop.call_later(absence_s, self._restart, worker.service, worker.number)

    def _strike_server(self, worker: SimulatedWorker, lasts_s: float) -> None:
        if self.around.loop.now > _HEALED_S:
            return
        rng = self.around.rng
        server = rng.choice((self.around.redis, rng.choice(self.around.brokers)))
        self._kill(server, lasts_s, f"while {worker.name} is at work")

    def _kill(self, server: RedisServer | SimulatedBroker, lasts_s: float, when: str) -> None:
        self.trace("world", f"kills {type(server).__name__} {when}")
        server.kill()
        self.around.loop.call_later(lasts_s, server.start)

    # -- everything else --------------------------------------------------------------------------

    def _link(self, at_s: float, lasts_s: float) -> None:
        del lasts_s
        clients: list[SimulatedParticipant | Desk | SimulatedWorker]
        clients = [*self.people, self.desk, *self.workers.values()]
        one = self.around.rng.choice(clients)
        if isinstance(one, SimulatedWorker):
            self.at(at_s, f"cuts {one.name}", lambda: self.workers[one.name].cut())  # noqa: PLW0108 - as above
        else:
            self.at(at_s, "cuts a device", lambda: one.process.cut())  # noqa: PLW0108 - it may be another by then

    def _redis(self, at_s: float, lasts_s: float) -> None:
        self.at(at_s, "kills redis", self.around.redis.kill)
        self.at(at_s + lasts_s, "starts redis", self.around.redis.start)

    def _mqtt(self, at_s: float, lasts_s: float) -> None:
        broker = self.around.rng.choice(self.around.brokers)
        self.at(at_s, "kills an MQTT broker", broker.kill)
        self.at(at_s + lasts_s, "starts the MQTT broker", broker.start)

    def _unwritten(self, at_s: float, lasts_s: float) -> None:
        """Kill an MQTT broker while it writes a message to its journal, which is lost then."""
        broker = self.around.rng.choice(self.around.brokers)
        if not broker.keeps:
            self._mqtt(at_s, lasts_s)
            return
        self.at(
            at_s,
            "sets a trap for an MQTT broker",
            setattr,
            broker,
            "trap",
            lambda: self._strike_broker(broker, lasts_s),
        )

    def _strike_broker(self, broker: SimulatedBroker, lasts_s: float) -> None:
        if self.around.loop.now <= _HEALED_S:
            self._kill(broker, lasts_s, "while it writes a message")

    def _device(self, at_s: float, lasts_s: float) -> None:
        del lasts_s
        self.at(at_s, "restarts a device", self.around.rng.choice(self.people).restart)

    def _slow(self, at_s: float, lasts_s: float) -> None:
        self.at(at_s, "slows", self.set_speed, 0.0)
        self.at(min(_HEALED_S, at_s + lasts_s), "is fast again", self.set_speed, 1.0)
