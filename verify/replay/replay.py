"""Replays a real stream of incidents against a running broker, and asks the oracle what was lost.

At full speed it goes in rounds, so that nothing is left to chance: everybody who moved says so and
waits for the receipt, then a batch of reports is sent at once and waits for its receipts, and then
for those of what people and desks reply. So readers stay about a round behind at most.
At a given speed reports come when they are due, while people move.
"""

import asyncio
import contextlib
import enum
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from time import time
from uuid import UUID

from devices.await_receipt import MessageRejected, NotConfirmed
from devices.device_connection import Broker
from schemas.ids import new_id
from schemas.messages import EscalationKind, Position
from verify.datasets.report_stream import Stream, StreamReport
from verify.oracle.history import NEVER, Deed, ReplayHistory
from verify.oracle.observations import EscalationSeen
from verify.oracle.oracle import Oracle, OracleVerdict
from verify.replay.replay_desk import CaseWatch, EscalationWatch, Login
from verify.replay.replay_plan import ReplayPlan, Schedule, Verify
from verify.replay.replay_result import ReplayResult
from verify.replay.walkers import DELAY_S, ReplayHabits, Walker, Walkers
from verify.world.crowd import raise_open_files
from verify.world.tracks import Track, moved, read_tracks

ROUND_REPORTS = 150  # about so many reports in a round …
ROUNDS_MOST = 200  # … until there are so many rounds
ROUND_S = 5.0  # how far people move along their tracks between two rounds
STEP_S = 5.0  # how often people look where they are, at a given speed
CATCH_UP_S = 60.0  # a round waits so long at most for what people and desks reply
JITTER_M = 300.0
QUIET_S = 3.0
POLL_S = 0.5
PROGRESS_S = 1.0
ACKNOWLEDGING = 8  # commands at once; aiomqtt warns above ten
STANDING = Track("standing", Position(lat=51.0, lon=3.7), (0.0,), (0.0,), (0.0,))


class Phase(enum.StrEnum):
    """What a replay is doing."""

    CONNECTING = "connecting"
    REPLAYING = "replaying"
    SETTLING = "settling"
    JUDGING = "judging"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """How far it is, about once a second."""

    phase: Phase
    reports: int
    total: int
    alerts: int
    escalations: int
    elapsed_s: float
    reports_per_s: float


OnProgress = Callable[[ReplayProgress], None]


@dataclass(frozen=True, kw_only=True)
class ReplayLogin:
    """Where and as whom to connect.

    `accounts` are the participants' passwords, at least as many as the plan has participants.
    `desks` are logins by police zone, or one under `*` that may read and write all of them.
    `city` reads every case; without it cases are not judged.
    """

    broker: Broker
    accounts: Mapping[str, str]
    desks: Mapping[str, Login]
    city: Login | None = None


class Replay:
    """One replay; `run` once. Afterwards `history` holds what was sent and heard."""

    def __init__(
        self,
        plan: ReplayPlan,
        stream: Stream,
        wire: ReplayLogin,
        on_progress: OnProgress | None = None,
    ) -> None:
        if len(wire.accounts) < plan.participants:
            raise ValueError(
                f"{plan.participants} participants need as many accounts, not {len(wire.accounts)}"
            )
        self.history = ReplayHistory(
            participants=tuple(islice(wire.accounts, plan.participants)),
            zones=None if "*" in wire.desks else frozenset(wire.desks),
            watches_city=wire.city is not None,
        )
        self._plan = plan
        self._stream = stream
        self._wire = wire
        self._on_progress = on_progress
        self._random = Random(plan.seed)
        self._device = f"replay-{new_id().hex[-12:]}"  # no session of an earlier replay's
        self._phase = Phase.CONNECTING
        self._total = self._pauses_cut = 0
        self._began_at = self._sent_at = 0.0
        self._to_acknowledge: asyncio.Queue[tuple[EscalationWatch, UUID, str]] = asyncio.Queue()
        self.commands_rejected = 0

    async def run(self) -> ReplayResult:
        """Replay, wait until all is quiet, and judge.

        Raises:
            TrackError, GeofenceError: an input cannot be used.
            Refused, Unreachable: the MQTT broker does not let us in.
        """
        raise_open_files()
        stream = self._stream
        oracle = self._plan.oracle()
        self._total = len(stream.reports)
        async with self._devices(stream) as walkers:
            self._phase = Phase.REPLAYING
            self._began_at = time()
            if self._plan.speed is None:
                await self._in_rounds(stream, walkers)
            else:
                await self._at_speed(stream, walkers, self._plan.speed)
            self._sent_at = time()
            verdict = await self._settle(walkers, oracle)
        return ReplayResult.of(
            self.history,
            stream,
            verdict,
            policy=self._plan.policy(),
            pauses_cut=self._pauses_cut,
            duration_s=time() - self._began_at,
            sending_s=self._sent_at - self._began_at,
            replies_rejected=walkers.replies_rejected,
            presences_rejected=walkers.presences_rejected,
            commands_rejected=self.commands_rejected,
        )

    # -- who takes part --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _devices(self, stream: Stream) -> AsyncIterator[Walkers]:
        """Connect the desks, then the participants; all leave at the end."""
        async with contextlib.AsyncExitStack() as stack:
            for zone, login in self._wire.desks.items():
                await stack.enter_async_context(self._desk(zone, login))
            if city := self._wire.city:
                await stack.enter_async_context(
                    CaseWatch(
                        city,
                        self._wire.broker,
                        device=self._device,
                        on_case=self.history.cases.append,
                    )
                )
            tasks = await stack.enter_async_context(_background())
            tasks.append(asyncio.create_task(self._tell_progress(), name="progress"))
            tasks += [
                asyncio.create_task(self._keep_acknowledging(), name=f"acknowledge {number}")
                for number in range(ACKNOWLEDGING)
            ]
            yield await stack.enter_async_context(self._walkers(stream))

    def _desk(self, zone: str, login: Login) -> EscalationWatch:
        def heard(escalation: EscalationSeen) -> None:
            self.history.escalations.append(escalation)
            if escalation.kind == EscalationKind.NEW:
                self._to_acknowledge.put_nowait((desk, escalation.incident, escalation.zone))

        desk = EscalationWatch(
            login,
            self._wire.broker,
            zone="+" if zone == "*" else zone,
            device=f"{self._device}-{'all' if zone == '*' else zone}",
            on_escalation=heard,
        )
        return desk

    def _walkers(self, stream: Stream) -> Walkers:
        """Place everybody near something that happens, on a track of their own."""
        policy = self._plan.policy()
        tracks = [STANDING]
        if self._plan.tracks:
            tracks = read_tracks(self._plan.tracks, STANDING.origin)
            self._random.shuffle(tracks)
        homes = (self._home(stream) for _ in self.history.participants)
        return Walkers(
            broker=self._wire.broker,
            accounts=self._wire.accounts,
            tracks=[track.on(home) for home, track in zip(homes, cycle(tracks), strict=False)],
            habits=ReplayHabits(
                acceptance=self._plan.acceptance,
                refresh_s=policy.timers.presence_s * 0.6,
                delay_s=(0.0, 0.0) if self._plan.speed is None else DELAY_S,
            ),
            history=self.history,
            random=self._random,
            device=self._device,
        )

    def _home(self, stream: Stream) -> Position:
        report = self._random.choice(stream.reports)
        away_m = JITTER_M * math.sqrt(self._random.random())
        bearing = self._random.uniform(0.0, math.tau)
        place = Position(lat=report.lat, lon=report.lon)
        return moved(place, away_m * math.sin(bearing), away_m * math.cos(bearing))

    async def _keep_acknowledging(self) -> None:
        while True:
            asked = await self._to_acknowledge.get()
            try:
                await self._acknowledge(*asked)
            finally:
                self._to_acknowledge.task_done()

    async def _acknowledge(self, desk: EscalationWatch, incident: UUID, zone: str) -> None:
        sent_at, received_at = time(), NEVER
        try:
            await desk.acknowledge(incident, zone)
            received_at = time()
        except NotConfirmed:
            pass
        except MessageRejected:
            self.commands_rejected += 1
            return
        self.history.acknowledgements.append(Deed(incident, sent_at, received_at))

    # -- at which pace ---------------------------------------------------------------------------

    async def _in_rounds(self, stream: Stream, walkers: Walkers) -> None:
        rounds = min(max(1, round(self._total / ROUND_REPORTS)), ROUNDS_MOST)
        size = math.ceil(self._total / rounds)
        for number, start in enumerate(range(0, self._total, size)):
            await walkers.advance(number * ROUND_S)
            async with asyncio.TaskGroup() as tasks:
                for row, reporter in self._batch(stream.reports[start : start + size], walkers):
                    tasks.create_task(walkers.report(reporter, row), name=f"report {start}")
            with contextlib.suppress(TimeoutError):  # who does not answer is told by the oracle
                async with asyncio.timeout(CATCH_UP_S):
                    await walkers.all_replied()
                    await self._to_acknowledge.join()  # receipts come behind what is to be read

    def _batch(
        self, rows: tuple[StreamReport, ...], walkers: Walkers
    ) -> "zip[tuple[StreamReport, Walker]]":
        people = walkers.walkers
        if len(rows) <= len(people):
            return zip(rows, self._random.sample(people, len(rows)), strict=True)
        return zip(rows, self._random.choices(people, k=len(rows)), strict=True)

    async def _at_speed(self, stream: Stream, walkers: Walkers, speed: float) -> None:
        await walkers.advance(0.0)
        schedule = Schedule.of(stream.reports, speed)
        self._pauses_cut = schedule.cut
        began_at = time()
        async with _background() as background:
            background.append(asyncio.create_task(_walk(walkers, began_at), name="walk"))
            async with asyncio.TaskGroup() as tasks:
                for row, due_s in zip(stream.reports, schedule.due_s, strict=True):
                    await asyncio.sleep(max(0.0, began_at + due_s - time()))
                    reporter = self._random.choice(walkers.walkers)
                    tasks.create_task(walkers.report(reporter, row), name="report")

    # -- the end ---------------------------------------------------------------------------------

    async def _settle(self, walkers: Walkers, oracle: Oracle) -> OracleVerdict | None:
        """Wait until nothing comes any more and nothing due is missing, or for so long."""
        self._phase = Phase.SETTLING
        await self._quiet(walkers, time() + self._plan.settle_s)
        if self._plan.verify is Verify.NO:
            return None
        heard, verdict = self._heard(), await self._judge(oracle)
        give_up_at = time() + self._plan.settle_s
        while verdict.missing and time() < give_up_at:
            await self._quiet(walkers, give_up_at, more_than=heard)
            heard, verdict = self._heard(), await self._judge(oracle)
        return verdict

    async def _judge(self, oracle: Oracle) -> OracleVerdict:
        """Judge what is known now, beside the event loop: that takes a minute for a long replay."""
        self._phase = Phase.JUDGING
        snapshot, now = self.history.snapshot(), time()
        verdict = await asyncio.to_thread(oracle.judge, snapshot, self._sent_at, now)
        self._phase = Phase.SETTLING
        return verdict

    async def _quiet(self, walkers: Walkers, give_up_at: float, more_than: int = -1) -> None:
        """Wait until something came beyond `more_than`, and then nothing for a while."""
        heard, since = self._heard(), time()
        while time() < give_up_at and (
            heard <= more_than or time() < since + QUIET_S or walkers.replies_waiting
        ):
            await asyncio.sleep(POLL_S)
            if self._heard() != heard:
                heard, since = self._heard(), time()

    def _heard(self) -> int:
        history = self.history
        return len(history.alerts) + len(history.escalations) + len(history.cases)

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            if self._on_progress:
                self._on_progress(self._progress())

    def _progress(self) -> ReplayProgress:
        reports, until = len(self.history.reports), self._sent_at or time()
        elapsed_s = time() - self._began_at if self._began_at else 0.0
        sending_s = until - self._began_at if self._began_at else 0.0
        return ReplayProgress(
            phase=self._phase,
            reports=reports,
            total=self._total,
            alerts=len(self.history.alerts),
            escalations=len(self.history.escalations),
            elapsed_s=elapsed_s,
            reports_per_s=reports / sending_s if sending_s > 0.0 else 0.0,
        )


async def _walk(walkers: Walkers, began_at: float) -> None:
    while True:
        await asyncio.sleep(STEP_S)
        await walkers.advance(time() - began_at)


@contextlib.asynccontextmanager
async def _background() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that go on until the block ends."""
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
