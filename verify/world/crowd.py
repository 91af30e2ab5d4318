"""Thousands of simulated participants, each on a connection of its own.

They move along tracks, say where they are, and answer alerts as people do: some look, some come,
some arrive, some leave again. What they decide follows from the seed; when it happens does not,
since the network is real. `time_scale` speeds up all delays and movements.
"""

import asyncio
import contextlib
import logging
import math
import resource
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from devices.device_connection import end
from devices.participant import (
    Broker,
    Confirm,
    DeviceOptions,
    Listeners,
    MessageRejected,
    NotConfirmed,
    Participant,
)
from schemas.messages import (
    Alert,
    AlertReason,
    GroupEvent,
    GroupEventKind,
    ReplyKind,
)
from verify.world.habits import Decision, Habits, Person
from verify.world.tracks import Track

MOST_ETA_S = 86_400  # the contract's
SESSION_EXPIRY_S = 60  # thousands of sessions must not stay behind in a broker that is in use

log = logging.getLogger(__name__)

OnAlert = Callable[[str, Alert, float], None]
OnProgress = Callable[[int, int], None]


@dataclass(slots=True)
class CrowdCounts:
    """What the crowd has done and received. Latencies in seconds from an incident's `opened_at`."""

    connected: int = 0
    placed: int = 0
    presences: int = 0
    alerts: int = 0
    seen: int = 0
    accepted: int = 0
    declined: int = 0
    on_scene: int = 0
    left: int = 0
    said: int = 0
    group_events: int = 0
    rejected: int = 0
    not_confirmed: int = 0
    alert_latencies_s: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdOptions:
    """How a crowd lives: `time_scale` times as fast as in reality, connecting `batch` at a time.

    `placing` says whether each first presence waits for its receipt.
    """

    seed: int = 0
    time_scale: float = 1.0
    habits: Habits = field(default_factory=Habits)
    placing: Confirm = Confirm.YES
    batch: int = 50


DEFAULTS = CrowdOptions()


class Crowd:
    """An async context manager; entered, everybody is connected and has said where they are.

    `accounts` maps users to passwords; the first user takes the first track, and so on around.
    `on_alert` gets the user, the alert and its Unix time of receipt. `on_progress` gets how many
    are there, and of how many.
    """

    def __init__(
        self,
        broker: Broker,
        accounts: Mapping[str, str | None],
        tracks: Sequence[Track],
        *,
        options: CrowdOptions = DEFAULTS,
        on_alert: OnAlert | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.tally = CrowdCounts()
        self._habits = options.habits
        self.people = [
            Person(user, tracks[number % len(tracks)], options.seed, options.habits)
            for number, user in enumerate(accounts)
        ]
        self._broker = broker
        self._accounts = accounts
        self._time_scale = options.time_scale
        self._placing = options.placing
        self._batch = options.batch
        self._on_alert = on_alert
        self._on_progress = on_progress
        self._began_at: float
        self._tasks: asyncio.TaskGroup
        self._everybody: asyncio.Task[None]
        self._ready: asyncio.Event
        self._gate: asyncio.Semaphore
        self._answering: dict[tuple[str, UUID], asyncio.Task[None]] = {}

    @property
    def now_s(self) -> float:
        """Simulated seconds since the crowd was entered."""
        return (asyncio.get_running_loop().time() - self._began_at) * self._time_scale

    async def __aenter__(self) -> Self:
        raise_open_files()
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        self._ready = asyncio.Event()
        self._gate = asyncio.Semaphore(self._batch)
        self._everybody = loop.create_task(self._live_together(), name="crowd")
        ready = loop.create_task(self._ready.wait(), name="crowd is ready")
        try:
            await asyncio.wait({ready, self._everybody}, return_when=asyncio.FIRST_COMPLETED)
            if self._everybody.done():
                self._everybody.result()
        except BaseException:
            await self._leave()
            raise
        finally:
            ready.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        await end(self._everybody)

    async def _live_together(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            for person in self.people:
                self._tasks.create_task(self._live(person), name=f"{person.user} lives")

    async def _live(self, person: Person) -> None:
        """Connect, say where we are, and go on saying it."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._gate:
                device = await stack.enter_async_context(self._device(person))
                self.tally.connected += 1
                with self._failures(person):
                    await device.presence(person.position_at(self.now_s), confirm=self._placing)
            self._note_placed()
            while True:
                await self._after(person.next_presence_s(self.now_s))
                await device.presence(person.position_at(self.now_s))
                self.tally.presences += 1

    def _device(self, person: Person) -> Participant:
        device = Participant(
            person.user,
            self._accounts[person.user],
            self._broker,
            listeners=Listeners(
                on_alert=lambda alert, received_at: self._alerted(
                    person, device, alert, received_at
                ),
                on_group=lambda event, _: self._heard(person, event),
            ),
            options=DeviceOptions(connect_timeout_s=60.0, session_expiry_s=SESSION_EXPIRY_S),
        )
        return device

    def _note_placed(self) -> None:
        self.tally.placed += 1
        if self._on_progress:
            self._on_progress(self.tally.placed, len(self.people))
        if self.tally.placed == len(self.people):
            self._ready.set()

    def _alerted(
        self, person: Person, device: Participant, alert: Alert, received_at: float
    ) -> None:
        self.tally.alerts += 1
        if alert.reason is AlertReason.NEARBY:
            self.tally.alert_latencies_s.append(received_at - alert.opened_at.timestamp())
        if self._on_alert:
            self._on_alert(person.user, alert, received_at)
        if self._everybody.cancelling():
            return
        name = f"{person.user} answers {alert.incident}"
        task = self._tasks.create_task(self._answer(person, device, alert), name=name)
        self._answering[person.user, alert.incident] = task
        task.add_done_callback(lambda _: self._answering.pop((person.user, alert.incident), None))

    def _heard(self, person: Person, event: GroupEvent) -> None:
        self.tally.group_events += 1
        if event.kind is not GroupEventKind.CLOSED:
            return
        if task := self._answering.get((person.user, event.incident)):
            task.cancel()

    async def _answer(self, person: Person, device: Participant, alert: Alert) -> None:
        """Look, decide, and if we come: go there, perhaps speak, perhaps leave."""
        decision = person.decide(alert.incident)
        with self._failures(person):
            await self._after(decision.seen_after_s)
            await device.reply(alert.incident, ReplyKind.SEEN)
            self.tally.seen += 1
            await self._after(decision.decide_after_s)
            if decision.answer is ReplyKind.DECLINED:
                await device.reply(alert.incident, ReplyKind.DECLINED)
                self.tally.declined += 1
            elif decision.answer is ReplyKind.ACCEPTED:
                await self._help(person, device, alert, decision)

    async def _help(
        self, person: Person, device: Participant, alert: Alert, decision: Decision
    ) -> None:
        errand = person.go_to(alert.location, self.now_s)
        eta_s = min(round(errand.eta_s), MOST_ETA_S)
        try:
            await device.reply(alert.incident, ReplyKind.ACCEPTED, eta_s)
            self.tally.accepted += 1
            if decision.words:
                await device.say(alert.incident, decision.words)
                self.tally.said += 1
            await self._after(errand.eta_s)
            await device.reply(alert.incident, ReplyKind.ON_SCENE)
            self.tally.on_scene += 1
            await self._after(decision.leaves_after_s or math.inf)
            await device.reply(alert.incident, ReplyKind.LEFT)
            self.tally.left += 1
        finally:
            person.walk_on(errand, self.now_s)

    async def _after(self, simulated_s: float) -> None:
        if math.isinf(simulated_s):
            await asyncio.get_running_loop().create_future()  # until the incident closes
        await asyncio.sleep(simulated_s / self._time_scale)

    @contextlib.contextmanager
    def _failures(self, person: Person) -> Iterator[None]:
        try:
            yield
        except MessageRejected as rejected:
            self.tally.rejected += 1
            log.info("%s: %s", person.user, rejected)
        except NotConfirmed as failure:
            self.tally.not_confirmed += 1
            log.warning("%s: %s", person.user, failure)


def raise_open_files() -> None:
    """Allow as many open files, hence connections, as the hard limit does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses more than OPEN_MAX
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
