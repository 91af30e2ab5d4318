"""One run of chaos: everything is started, struck, left to settle, and judged."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from broker.core.policy import Policy
from broker.errors import UnavailableError
from broker.store.kernel.redis_connection import RedisConnection as Redis
from devices.device_connection import Broker, DeviceConnection, Identity
from nabij.local.embedded import Account
from schemas import topics
from schemas.messages import IncidentState, Subject
from services import routes
from verify.chaos.chaos_evidence import ChaosEvidence
from verify.chaos.chaos_judge import judge
from verify.chaos.chaos_log import Blow, Entry, JournalRemoved, Log, Quiet, Tail
from verify.chaos.chaos_world import ChaosWorld
from verify.chaos.growth import EVERY_S, Growth, queue_sizes
from verify.chaos.hosts import change_all
from verify.chaos.mqtt_clients import mqtt_clients
from verify.chaos.observer import EXEMPT, observing
from verify.chaos.plan import Rescale, Strike
from verify.chaos.recovery import recovery_s
from verify.chaos.shares import EACH, unanswered
from verify.chaos.store_facts import facts_of, undone
from verify.chaos.strangers import strangers
from verify.chaos.strikes import ReceiptProbe, Striker
from verify.oracle.judgement import Judgement
from verify.oracle.observations import ReceiptSeen, ReportCreated, StateSeen

SETTLE_S = 90.0  # longer than any retry: what has not come by then does not come
QUIET_LOOKS = 3
LOOK_S = 0.2
CALM_S = 0.6  # nothing was written to any log for so long
SETTLED_BEFORE_S = 2.0
POISON_EVERY = 250  # one garbled stream entry for so many reports
_FROM_MEMORY = "this MQTT broker acknowledges what it has in memory alone"

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class ChaosOutcome:
    """What a run came to."""

    judgement: Judgement
    evidence: ChaosEvidence
    blows: list[Blow]
    recovery: dict[str, dict[str, float]]
    most_mb: dict[str, float]
    began: float
    settled: bool
    struck_s: float
    settle_s: float
    changes: list[Rescale]
    unexercised: list[str]
    not_judged: dict[str, str]  # invariants, and why


@dataclass
class ChaosProgress:
    """How far the devices are, read from their logs as they grow."""

    tails: list[Tail]
    wanted: int
    done: int = 0  # reports that have their receipts
    _created: set[UUID] = field(default_factory=set)
    _receipted: set[UUID] = field(default_factory=set)
    quiet: set[str] = field(default_factory=set)
    last_at: float = 0.0

    def look(self) -> None:
        """Read what is new."""
        for tail in self.tails:
            for entry in tail.entries():
                self.last_at = time.time()
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        match entry:
            case ReportCreated(probe=False) if entry.id not in self._created:
                self._created.add(entry.id)
                self.done += entry.id in self._receipted
            case ReceiptSeen(subject=Subject.REPORT) | JournalRemoved() if (
                entry.id not in self._receipted
            ):
                self._receipted.add(entry.id)
                self.done += entry.id in self._created
            case Quiet():
                self.quiet.add(entry.process)
            case _:
                pass

    @property
    def share(self) -> float:
        """The same, of all that are wanted."""
        return self.done / max(1, self.wanted)

    @property
    def calm(self) -> bool:
        """Whether nobody has written anything for a while."""
        return time.time() - self.last_at > CALM_S


class Run:
    """One run in a world that has been entered; `tell` hears how far it is."""

    def __init__(
        self,
        world: ChaosWorld,
        strikes: Sequence[Strike],
        tell: Callable[[int, int], None],
        rescales: Sequence[Rescale] = (),
    ) -> None:
        self._world = world
        self._strikes = strikes
        self._rescales = rescales
        self._changes: list[Rescale] = []
        self._tell = tell
        self._growth = Growth()
        self._poison: set[str] = set()
        logs = [f"device-{number}" for number in range(1, 5)]
        self._progress = ChaosProgress(
            [Tail(world.logs / f"{name}.jsonl") for name in (*logs, "desk", "probe")],
            world.scale.reports,
        )
        self._unfinished: list[str] = []

    # long: one run, told in its order
    async def run(self) -> ChaosOutcome:
        """Start desks and devices, strike, settle, judge."""
        world = self._world
        await world.hosts.wait_ready()
        await world.start_desk()
        began = time.time()
        async with (
            Redis(world.redis.url) as redis,
            ReceiptProbe(world) as probe,
            strangers(world),
            observing(world) as observer,
            mqtt_clients(world) as publisher,
        ):
            await self._until(lambda: "desk ready" in self._progress.quiet, 30.0, "desks")
            await world.start_devices(time.time() + 2.0)
            striker = Striker(world, probe, publisher, lambda: self._progress.share)
            async with _beside(self._sample(redis)), _beside(self._inject(redis)):
                striking = asyncio.create_task(self._strike(striker), name="strikes")
                try:
                    async with _beside(observer.garble()):
                        await self._load(striking)
                finally:
                    striking.cancel()
                    await asyncio.gather(striking, return_exceptions=True)
                struck_at = time.time()
                settled_at = await self._settle(redis)
            self._unfinished += [f"still retained: {topic}" for topic in sorted(observer.left)]
            ended = time.time()
        await self._find_swallowed()
        await world.end_lives()
        async with Redis(world.redis.url) as redis:
            facts = await facts_of(redis, world.directory / "journals", world.partitions)
        evidence = await asyncio.to_thread(ChaosEvidence.read, world.logs)
        policy = Policy.parse(world.policy_text).file
        judgement = await asyncio.to_thread(
            lambda: judge(
                evidence,
                facts,
                policy,
                settled_at=settled_at,
                poison=self._poison,
                growth=self._growth.judged(began, struck_at),
            )
        )
        for what in self._unfinished:
            judgement.blame("I8", what)
        return ChaosOutcome(
            judgement=judgement,
            evidence=evidence,
            blows=striker.blows,
            recovery=recovery_s(evidence, striker.blows, policy),
            most_mb=self._growth.most_mb(),
            began=began,
            settled=not self._unfinished,
            struck_s=struck_at - began,
            settle_s=ended - struck_at,
            changes=self._changes,
            unexercised=observer.exercised.missing(EXEMPT),
            not_judged={} if world.mqtt_has_journal else {"I11": _FROM_MEMORY},
        )

    async def _strike(self, striker: Striker) -> None:
        """Strike, and change the hosts, beside each other."""
        async with asyncio.TaskGroup() as both:
            both.create_task(striker.strike_all(self._strikes), name="strike")
            changing = change_all(
                self._world.hosts,
                self._rescales,
                lambda: self._progress.share,
                self._changes.append,
            )
            both.create_task(changing, name="change")

    async def _find_swallowed(self) -> None:
        """See that no session without a worker swallows anything."""
        probe = self._world.accounts["probe"]
        found = await unanswered(self._world.broker_url, probe.username, probe.password)
        for kind, count in found.items():
            self._unfinished.append(f"{count} of {EACH} messages of kind {kind} got no answer")

    async def _load(self, striking: asyncio.Task[None]) -> None:
        """Wait until every report has its receipt and every strike has fallen."""
        progress = self._progress
        at, best = time.monotonic(), 0
        while progress.done < progress.wanted or not striking.done():
            await asyncio.sleep(LOOK_S)
            progress.look()
            self._tell(progress.done, progress.wanted)
            if striking.done():
                striking.result()
            if progress.done > best or progress.done >= progress.wanted:  # strikes take their time
                at, best = time.monotonic(), progress.done
            elif time.monotonic() - at > SETTLE_S:
                self._unfinished.append(
                    f"stuck at {progress.done} of {progress.wanted} reports for {SETTLE_S:g} s"
                )
                return

    async def _settle(self, redis: Redis) -> float:
        """Let it come to rest, close every incident, let it come to rest again.

        Returns:
            Until when what was certain had to have arrived.
        """
        world = self._world
        world.hush_devices()
        names = {life.orders.stem for life in world.devices}
        progress = self._progress
        await self._until(lambda: names <= progress.quiet, SETTLE_S, "devices to be quiet")
        await self._hush_desk("desk at ease", "desks to give no more commands")
        await self._rest(redis, "at first")
        settled_at = time.time() - SETTLED_BEFORE_S
        await self._hush_desk("desk", "desks to close incidents")
        await self._rest(redis, "in the end")
        await self._until(lambda: progress.calm, SETTLE_S, "logs to be calm")
        await self._look_back()
        return settled_at

    async def _hush_desk(self, word: str, what: str) -> None:
        """Signal the desks, and wait for their word that it is done."""
        if process := self._world.desk.process:
            process.send_signal(signal.SIGUSR1)
        await self._until(lambda: word in self._progress.quiet, SETTLE_S, what)

    async def _rest(self, redis: Redis, when: str) -> None:
        """Wait until nothing is undone, several times in a row."""
        give_up_at = time.monotonic() + SETTLE_S
        looks, left = 0, {}
        while looks < QUIET_LOOKS:
            left = {
                what: count
                for what, count in (await undone(redis, self._world.partitions)).items()
                if count
            }
            looks = 0 if left else looks + 1
            self._progress.look()
            if time.monotonic() > give_up_at:
                self._unfinished.append(f"never at rest ({when}): {left}")
                return
            await asyncio.sleep(LOOK_S)

    async def _until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        give_up_at = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > give_up_at:
                self._unfinished.append(f"waited {within_s:g} s for {what}, which did not come")
                return
            await asyncio.sleep(LOOK_S / 2)
            self._progress.look()

    async def _look_back(self) -> None:
        """Subscribe as desks that come only now, and log what they are told (I7)."""
        with Log(self._world.logs / "fresh.jsonl") as log:
            await asyncio.gather(*(self._look_at(zone, log) for zone in self._world.zones))

    async def _look_at(self, zone: str, log: Log) -> None:
        """Read a zone's retained states."""
        account = self._world.accounts[f"desk-{zone}"]
        for state in await self._retained(account, topics.INCIDENT.filter(zone=zone)):
            log.write(StateSeen.of(state, t=time.time(), zone=zone, late=True))

    async def _retained(self, account: Account, pattern: str) -> list[IncidentState]:
        states: list[IncidentState] = []
        fresh = DeviceConnection(
            Broker.from_url(self._world.broker_url),
            Identity(account.username, account.password, f"{account.username}-fresh", 0),
            filters=[pattern],
            on_message=lambda message: states.append(topics.INCIDENT.decode(message.payload)),
        )
        async with fresh:
            known, told_at = -1, time.monotonic()
            while time.monotonic() - told_at < CALM_S:
                await asyncio.sleep(LOOK_S)
                if len(states) != known:
                    known, told_at = len(states), time.monotonic()
        return states

    async def _sample(self, redis: Redis) -> None:
        """Take memory and queues, again and again."""
        while True:
            now = time.time()
            with contextlib.suppress(Exception):  # a victim may be gone while it is looked at
                self._growth.memory(now, dict(self._world.processes()))
            with contextlib.suppress(UnavailableError):
                self._growth.queues(now, await queue_sizes(redis, self._world.partitions))
            await asyncio.sleep(EVERY_S)

    async def _inject(self, redis: Redis) -> None:
        """Put garbage into the streams: each must end as a dead letter, and harm nothing."""
        number = 0
        while True:
            if self._progress.done >= number * POISON_EVERY:
                payload, reader = (
                    f"poison {number}",
                    routes().readers[number % len(routes().readers)],
                )
                keys = self._world.partitions[number % len(self._world.partitions)]
                with contextlib.suppress(UnavailableError):
                    await redis.call("XADD", keys.events(reader), "*", "e", payload)
                    self._poison.add(payload)
                    number += 1
            await asyncio.sleep(LOOK_S)


@contextlib.asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
