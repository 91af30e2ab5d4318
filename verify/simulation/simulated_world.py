"""One seed: a small world, its story, and what everybody has logged at its end.

What goes wrong in it is planned in `verify/simulation/faults.py`.
"""

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from h3.api import basic_int as h3
from msgspec.structs import replace

from broker.core.policy import Policy
from broker.core.zones import Zone, ZoneKind
from broker.edge.accounts import Grant
from broker.runtime.service import Service
from broker.store.kernel.keys import Keys
from schemas import topics
from schemas.messages import Close, ReplyKind
from schemas.roles import Role
from schemas.taxonomy import Timers, Widening, default_policy_text
from services import ALL, load, routes
from verify.simulation.broken import Broken, broken_policy, promises_broken
from verify.simulation.faults import LATE_S, Faults
from verify.simulation.pace import Pace
from verify.simulation.redis_model import raw
from verify.simulation.redis_model_server import RedisServer
from verify.simulation.sender import Ground
from verify.simulation.simulated_broker import SimulatedBroker, grant
from verify.simulation.simulated_desks import Desk, Operator
from verify.simulation.simulated_devices import Habits, SimulatedParticipant
from verify.simulation.simulated_worker import SharedModels, SimulatedWorker
from verify.simulation.simulation_logs import Logs, Rest
from verify.simulation.virtual_time import StuckError, new_loop
from verify.world.exercised import Exercised

# Where there are two partitions, their border runs through the first.
_CENTRES = ((51.0543, 3.7161), (51.0700, 3.7900), (50.8270, 3.2640))
_BROKERS, _PARTITIONS = (1, 1, 2), (1, 1, 2)
_KEEPS = (True, True, False)  # of the MQTT brokers, so many have a journal
_TWICE = {"intake", "alerting", "groups", "police", "relay"}  # with two workers each
_MOST_PEOPLE = 4
_LONG_AGO_S = 7_200.0  # so long ago some of what is reported was seen
_DEGREE_M = 111_200.0
_HIDING, _BLUNDERING, _POISONED, _ASLEEP = 0.15, 0.8, 0.1, 0.1

_OF_ONE_HELPER, _ONE_HELPER = 16, 8  # of so many seeds, this one tells of a helper who leaves
_RADIUS_M, _ACCEPT_S = 200, 3  # of what people nearby hear of, and until when one must accept

_SYNC_S = 12.0
_BEGIN_S, _END_S = 1.0, 800.0

_INCIDENT = re.compile(rb":[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
Place = tuple[float, float]  # latitude and longitude


@cache
def policy() -> Policy:
    """The shipped policy with short times and small circles."""
    shipped = Policy.parse(default_policy_text()).file
    radii = {"fight": _RADIUS_M, "theft": _RADIUS_M, "threat": _RADIUS_M, "graffiti": 0}
    categories = {
        code: replace(shipped.categories[code], radius_m=radius_m, merge_m=60, merge_s=60)
        for code, radius_m in radii.items()
    }
    timers = Timers(
        accept_s=_ACCEPT_S,
        acknowledge_s=3,
        silence_s=60,
        silence_routine_s=60,
        presence_s=300,
        retention_s=200,
        unattended_s=6,
    )
    return Policy(
        replace(
            shipped,
            categories=categories,
            timers=timers,
            max_overdue=2,
            widening=Widening(factor=2.0, max_waves=2, max_radius_m=2 * _RADIUS_M),
        )
    )


@cache
def zones() -> list[Zone]:
    """A zone around each centre, of the same name for police and city."""
    made = [
        (f"zone-{number}", tuple(h3.grid_disk(h3.latlng_to_cell(*centre, 7), 1)))
        for number, centre in enumerate(_CENTRES, 1)
    ]
    return [
        Zone(name, name, kind, cells)
        for kind in (ZoneKind.POLICE, ZoneKind.MUNICIPALITY)
        for name, cells in made
    ]


@cache
def accounts() -> dict[str, Grant]:
    """Return who may connect to an MQTT broker, with the rights of their roles."""
    desks = [*((Role.POLICE_DESK, one.id) for one in zones()), (Role.CITY_DESK, None)]
    owners: dict[str, list[tuple[Role, str | None]]] = {
        **{f"p{number}": [(Role.PARTICIPANT, f"p{number}")] for number in range(_MOST_PEOPLE)},
        "desk": desks,
        "late": desks,
        "operator": [(Role.OPERATOR, None)],
        "services": [(Role.SERVICE, None)],
    }
    return {name: grant(name, *several) for name, several in owners.items()}


@dataclass
class SimulatedWorld:
    """Everything there is. `run` lives it through and returns the logs."""

    seed: int
    broken: Broken | None = None
    on_trace: Callable[[float, str, str], None] | None = None
    swallowed: str | None = None  # the template of a topic on which nothing arrives
    workers: dict[str, SimulatedWorker] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    slow: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.loop = new_loop(self.trouble.append)
        self.redis = RedisServer(self.loop)
        self.exercised = Exercised()
        self._mqtt_losses: list[str] = []
        self.brokers = [self._broker() for _ in range(self.rng.choice(_BROKERS))]
        count = self.rng.choice(_PARTITIONS)
        self.keys = [Keys(number, count) for number in range(count)]
        self.around = SharedModels(
            loop=self.loop,
            rng=self.rng,
            delay=self._delay,
            redis=self.redis,
            brokers=self.brokers,
            pace=Pace(self.loop, self.redis, self.keys),
            policy=broken_policy(self.broken, policy()),
            partitions=count,
            trouble=self.trouble.append,
        )
        ground = Ground(
            self.loop, self.rng, self._delay, self.brokers, self.trace, self.trouble.append
        )
        self.people = [
            SimulatedParticipant(ground, f"p{n}") for n in range(self.rng.randint(3, _MOST_PEOPLE))
        ]
        self.centres = _CENTRES[: self.rng.randint(1, 3)]
        names = [f"zone-{number}" for number in range(1, len(self.centres) + 1)]
        self.desk = Desk(ground, names)
        self.late = Desk(ground, names, "late", syncs=False)
        self.operator = Operator(ground)
        self._reporting: tuple[SimulatedParticipant | Desk, ...] = (*self.people, self.desk)

    def _broker(self) -> SimulatedBroker:
        keeps = self.rng.choice(_KEEPS)
        broker = SimulatedBroker(self.loop, self.rng, accounts(), self.exercised, keeps=keeps)
        broker.swallowed = self.swallowed
        return broker

    def run(self) -> Logs:
        """Live it through."""
        with promises_broken(self.broken, self.redis, self.workers):
            try:
                self.loop.run_until_complete(self._live())
            finally:
                self._end()
        return self._logs()

    def trace(self, who: str, what: str) -> None:
        """Print an event, if tracing is on."""
        if self.on_trace:
            self.on_trace(self.loop.now, who, what)

    def _delay(self) -> float:
        dice = self.rng.random()
        if self.slow and dice < 0.3:
            return self.rng.uniform(0.05, 1.0)
        return 0.0005 + 0.004 * dice * dice

    def _set_speed(self, speed: float) -> None:
        self.slow = speed < 1.0

    # -- the story --------------------------------------------------------------------------------

    async def _live(self) -> None:
        self._import_zones()
        for service in map(load, ALL):
            for number in (1, 2) if service.name in _TWICE else (1,):
                self._start(service, number)
        for one in (*self.people, self.desk, self.operator):
            one.start()
        self._tell_story()
        Faults(
            around=self.around,
            workers=self.workers,
            people=self.people,
            desk=self.desk,
            at=self._at,
            trace=self.trace,
            start_worker=self._start,
            set_speed=self._set_speed,
        ).plan()
        await asyncio.sleep(LATE_S)
        self.late.start()
        await asyncio.sleep(_END_S - LATE_S)
        keepers = [broker.judge for broker in self.brokers if broker.keeps]
        self._mqtt_losses = [one for judge in keepers for one in judge.violations()]

    def _import_zones(self) -> None:
        execute = self.redis.database.execute
        for zone in zones():
            name = f"{zone.kind}:{zone.id}"
            execute("HSET", self.keys[0].zones, name, msgspec.msgpack.encode(zone))
        execute("INCR", self.keys[0].zones_version)

    def _start(self, service: Service, number: int) -> None:
        worker = SimulatedWorker(service, number, self.around)
        self.workers[worker.name] = worker
        worker.start()

    def _at(self, at_s: float, what: str, *act: Any) -> None:
        self.loop.call_at(at_s, self._do, what, *act)

    def _do(self, what: str, act: Callable[..., None], *words: Any) -> None:
        self.trace("world", what)
        act(*words)

    def _tell_story(self) -> None:
        for number, person in enumerate(self.people):
            self._at(_SYNC_S + number, "syncs", person.sync)
        if self.seed % _OF_ONE_HELPER == _ONE_HELPER:
            self._tell_of_one_helper()
        else:
            self._tell_of_a_busy_place()

    def _tell_of_a_busy_place(self) -> None:
        rng = self.rng
        for person in self.people:
            self._at(rng.uniform(0.1, 0.6), "stands", person.stand, self._near())
            for _ in range(rng.choice((0, 0, 1, 1, 2))):
                at = rng.choice((self._near(), self._near(), None))
                self._at(rng.uniform(_BEGIN_S, 7.0), "moves", person.stand, at)
            if rng.random() < _HIDING:
                self._hide(person, rng.uniform(_BEGIN_S, 4.0))
        spots = [self._near(60.0) for _ in range(2)]
        for number in range(rng.randint(1, 3)):
            category = rng.choice(("fight", "fight", "fight", "theft", "threat", "graffiti"))
            at_s = rng.uniform(_BEGIN_S, 5.0)
            person = rng.choice(self.people)
            at = rng.choice((spots[0], spots[0], spots[1], self._near()))
            words = (category, at, f"report {number}", rng.choice((0.0,) * 9 + (_LONG_AGO_S,)))
            self._at(at_s, "reports", person.report, *words)
        self._tell_slips()

    def _tell_of_one_helper(self) -> None:
        """The only one who helps leaves, and reports it again: the others must be called then.

        Nothing else tells them: they stand beyond the first radius, and nobody closes the incident.
        Sometimes the helper accepts again instead, which calls nobody.
        """
        rng, spot = self.rng, self._near(60.0)
        witness, helper, *others = rng.sample(self.people, len(self.people))
        if helper.is_small:  # a short alert does not say what to report again
            witness, helper = helper, witness
        helper.habits = Habits(
            answering=1.0,
            answers=(ReplyKind.ACCEPTED,),
            leaving=1.0,
            stays_s=(_ACCEPT_S + 0.5, _ACCEPT_S + 2.0),
            reporting=rng.choice((1.0, 1.0, 0.0)),
            coming_back=1.0,
        )
        self.desk.orders = tuple(order for order in self.desk.orders if order is not Close)
        self._at(rng.uniform(0.1, 0.6), "stands", helper.stand, self._around(spot, 0.0, 150.0))
        for person in others:
            person.habits = Habits(answering=0.0)
            place = self._around(spot, _RADIUS_M + 40.0, 2.0 * _RADIUS_M - 40.0)
            self._at(rng.uniform(0.1, 0.6), "stands", person.stand, place)
        at_s = rng.uniform(_BEGIN_S, 2.0)
        self._at(at_s, "reports", witness.report, "fight", spot, "report 0")

    def _hide(self, person: SimulatedParticipant, at_s: float) -> None:
        """Mute in a burst, with a place in between."""
        for number, place in enumerate((None, None, self._near(), None)):
            self._at(at_s + number * 0.005, "hides", person.stand, place)

    def _tell_slips(self) -> None:
        """What devices, desks and services do wrong, or do not do."""
        rng = self.rng
        if rng.random() < _BLUNDERING:
            one = rng.choice((self.desk, rng.choice(self.people)))
            self._at(rng.uniform(_BEGIN_S, 7.0), "blunders", one.blunder)
        if rng.random() < _POISONED:
            reader = rng.choice(routes().readers)
            self._at(rng.uniform(_BEGIN_S, 7.0), f"poisons {reader}", self._poison, reader)
        if rng.random() < _ASLEEP:
            self._at(rng.uniform(_BEGIN_S, 4.0), "the desk sleeps", self.desk.sleep)
            self._at(rng.uniform(25.0, 40.0), "the desk wakes", self.desk.restart)

    def _poison(self, reader: str) -> None:
        poison = f"poison of {reader}"
        keys = self.rng.choice(self.keys)
        self.redis.database.execute("XADD", keys.events(reader), "*", "e", poison)
        self.operator.log.poison.add(poison)

    def _near(self, within_m: float = 350.0) -> Place:
        lat, lon = self.rng.choice(self.centres)
        north, east = (self.rng.uniform(-within_m, within_m) / _DEGREE_M for _ in range(2))
        return lat + north, lon + east * 1.6

    def _around(self, spot: Place, least_m: float, most_m: float) -> Place:
        """Return a place so far from `spot`, in any direction."""
        away_m, angle = self.rng.uniform(least_m, most_m), self.rng.uniform(0.0, math.tau)
        north, east = away_m * math.cos(angle), away_m * math.sin(angle)
        return spot[0] + north / _DEGREE_M, spot[1] + east / _DEGREE_M * 1.6

    # -- the end ----------------------------------------------------------------------------------

    def _end(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        while left := asyncio.all_tasks(self.loop):
            for task in left:
                task.cancel()
            with suppress(StuckError):
                self.loop.run_until_complete(asyncio.wait(left))

    def _logs(self) -> Logs:
        for one in self._reporting:
            one.log.journal = set(one.journal)
        rest = Rest(
            self._left(),
            [state for _, state in self.late.log.states],
            sum(broker.deaths for broker in self.brokers),
            self._mqtt_losses,
        )
        return Logs(
            {one.user: one.log for one in self.people},
            self.desk.log,
            self.operator.log,
            rest,
            self.trouble,
            len(self.keys),
        )

    def _left(self) -> dict[str, int]:
        """Return how much is left of what must be gone by now."""
        database, left = self.redis.database, Counter[str]()
        for keys in self.keys:
            left["deadlines"] += database.do_zcard(raw(keys.deadlines))
            left["outbox"] += database.do_zcard(raw(keys.outbox))
            left["outbox messages"] += database.do_hlen(raw(keys.outbox_messages))
            left["open incidents"] += database.do_zcard(raw(keys.open_incidents))
            left["dead letters"] += database.do_zcard(raw(keys.dead_letter_times))
            left["undelivered readers"] += database.do_hlen(raw(keys.undelivered_readers))
            left["alarms"] += database.do_hlen(raw(keys.unattended))
            left["keys of erased incidents"] += self._of_incidents(keys)
            for reader in routes().readers:
                stream = database.stream(raw(keys.events(reader)))
                left[f"events of {reader}"] += len(stream.entries)
                for group in stream.groups.values():
                    left[f"pending of {reader}"] += len(group.pending)
        left["dead letters"] -= len(self.operator.log.poison)
        for broker in self.brokers:
            states = [one for one in broker.retained_topics() if topics.SERVICE.parse(one) is None]
            left["retained messages"] += len(states)
        return left

    def _of_incidents(self, keys: Keys) -> int:
        """Return how many keys name an incident, by its UUIDv8; at the end each is erased.

        A question has such an id too, but lives on by itself.
        """
        database, questions = self.redis.database, raw(keys.question(""))
        found = [
            key
            for key in database.data
            if key.startswith(raw(keys.prefix))
            and not key.startswith(questions)
            and _INCIDENT.search(key)
        ]
        return database.do_exists(*found)
