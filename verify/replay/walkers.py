"""The participants of a replay: each on a connection of its own, moving along a real track.

They say where they are when their cell changes, or their last word would grow stale, as a phone
does; always with a receipt asked, so that the oracle knows from when on a place was in effect.
They accept alerts with a probability of their own, and do nothing else.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Self
from uuid import UUID

import msgspec

from devices.device_connection import Broker
from devices.participant import (
    Confirm,
    DeviceOptions,
    Listeners,
    MessageRejected,
    NotConfirmed,
    Participant,
)
from schemas import topics
from schemas.ids import new_id
from schemas.messages import Alert, AlertReason, Position, ReplyKind, Report
from verify.datasets.report_stream import StreamReport
from verify.oracle.geofence import cell_at
from verify.oracle.history import NEVER, Deed, ReplayHistory, SentPresence, SentReport
from verify.world.tracks import Track

SESSION_EXPIRY_S = 300  # alerts must survive a lost connection, but not the replay
RECEIPT_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 30.0
CONNECTING = 50  # at once
SPEAKING = 256  # presences at once
REPLYING = 32  # replies at once
ETA_S = (60, 600)
ACCURACIES_M = (5.0, 10.0, 25.0, 120.0, 900.0)  # of reports
INEXACT_M = 2_000.0  # of a device that knows the cell tower only
DELAY_S = (5.0, 40.0)  # before an answer, when the replay is not at full speed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayHabits:
    """How the people of a replay behave; probabilities and seconds."""

    acceptance: tuple[float, float]
    refresh_s: float
    delay_s: tuple[float, float] = (0.0, 0.0)
    leaving: float = 0.2  # of those who have accepted
    lost: float = 0.03  # of the positions that a device sends, it hardly knows where it is


@dataclass(eq=False)
class Walker:
    """One person: a device, a way, and when and where they last said they were."""

    number: int
    device: Participant
    place_at: Callable[[float], Position]
    acceptance: float
    cell: int | None = None
    spoke_at: float = -math.inf
    accepted: set[UUID] = field(default_factory=set)


class Walkers:
    """All participants, connected while the `async with` lasts; they write into `history`.

    `replies_waiting` are acceptances that are decided but not yet confirmed.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        accounts: Mapping[str, str],
        tracks: Sequence[Track],
        habits: ReplayHabits,
        history: ReplayHistory,
        random: Random,
        device: str,
    ) -> None:
        self.replies_rejected = 0
        self.presences_rejected = 0
        self.replies_waiting = 0
        self._habits = habits
        self._history = history
        self._random = random
        self._waiting: asyncio.Queue[tuple[Walker, UUID]] = asyncio.Queue()
        self._repliers: list[asyncio.Task[None]] = []
        self.walkers = [
            self._walker(number, track, self._participant(number, accounts[user], broker, device))
            for number, (user, track) in enumerate(zip(history.participants, tracks, strict=True))
        ]

    def _participant(self, number: int, password: str, broker: Broker, device: str) -> Participant:
        return Participant(
            self._history.participants[number],
            password,
            broker,
            # The oracle judges no group events, and a hot spot's groups grow to hundreds who hear
            # of each other: reading that took most of this process's time.
            deaf_to=(topics.GROUP, topics.QUESTION),
            listeners=Listeners(on_alert=partial(self._alerted, number)),
            options=DeviceOptions(
                receipt_timeout_s=RECEIPT_TIMEOUT_S,
                connect_timeout_s=CONNECT_TIMEOUT_S,
                device=device,
                session_expiry_s=SESSION_EXPIRY_S,
            ),
        )

    def _walker(self, number: int, track: Track, participant: Participant) -> Walker:
        starts_s = self._random.uniform(0.0, 2.0 * track.duration_s)
        return Walker(
            number,
            participant,
            lambda elapsed_s: track.position_at(starts_s + elapsed_s),
            self._random.uniform(*self._habits.acceptance),
        )

    async def __aenter__(self) -> Self:
        try:
            await _at_most(CONNECTING, (partial(each.device.__aenter__) for each in self.walkers))
        except BaseException:
            await self.__aexit__()
            raise
        self._repliers = [
            asyncio.create_task(self._reply(), name=f"replier {number}")
            for number in range(REPLYING)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for replier in self._repliers:
            replier.cancel()
        await asyncio.gather(*self._repliers, return_exceptions=True)
        connected = [each.device for each in self.walkers if each.device.connections]
        await asyncio.gather(*(device.__aexit__(None, None, None) for device in connected))

    async def advance(self, elapsed_s: float) -> int:
        """Bring everybody to where they are by now; return how many had to say so."""
        now = datetime.now(UTC).timestamp()
        moved: list[Callable[[], Awaitable[None]]] = []
        for walker in self.walkers:
            place = walker.place_at(elapsed_s)
            cell = cell_at(place.lat, place.lon)
            if cell != walker.cell or now - walker.spoke_at > self._habits.refresh_s:
                moved.append(partial(self._say_where, walker, place, cell))
        await _at_most(SPEAKING, moved)
        return len(moved)

    async def _say_where(self, walker: Walker, place: Position, cell: int) -> None:
        sent = datetime.now(UTC)
        received_at = NEVER
        accuracy_m = INEXACT_M if self._random.random() < self._habits.lost else place.accuracy_m
        place = msgspec.structs.replace(place, accuracy_m=accuracy_m)
        try:
            await walker.device.presence(place, at=sent, confirm=Confirm.YES)
            received_at = _now()
        except NotConfirmed:
            pass
        except MessageRejected:
            self.presences_rejected += 1
            return
        if accuracy_m < INEXACT_M:  # else once more, when the device knows better where it is
            walker.cell, walker.spoke_at = cell, sent.timestamp()
        self._history.presences.append(
            SentPresence(walker.number, cell, sent.timestamp(), received_at, accuracy_m)
        )

    async def report(self, walker: Walker, row: StreamReport) -> None:
        """Let `walker` report what the stream says, now."""
        now = datetime.now(UTC)
        seen_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        accuracy_m = self._random.choice(ACCURACIES_M)
        report = Report(
            id=new_id(),
            category=row.category,
            location=Position(lat=row.lat, lon=row.lon, accuracy_m=accuracy_m),
            seen_at=seen_at,
            text=row.text,
        )
        sent = SentReport(
            id=report.id,
            user=walker.number,
            category=row.category,
            lat=row.lat,
            lon=row.lon,
            seen_at=seen_at.timestamp(),
            sent_at=now.timestamp(),
            audience=report.audience,
            mode=report.mode,
            accuracy_m=accuracy_m,
            happened_at=row.at.timestamp(),
        )
        self._history.reports.append(await _with_receipt(sent, walker.device, report))

    def _alerted(self, number: int, alert: Alert, received_at: float) -> None:
        walker = self.walkers[number]
        walker.device.alerts.clear()  # the log keeps 26 bytes of each; repeats are told there
        self._history.alerts.append(
            user=number,
            incident=alert.incident,
            alert=alert.id,
            wave=alert.wave,
            nearby=alert.reason is AlertReason.NEARBY,
            received_at=received_at,
        )
        if alert.incident not in walker.accepted and self._random.random() < walker.acceptance:
            walker.accepted.add(alert.incident)
            self._accept_later(walker, alert.incident)

    def _accept_later(self, walker: Walker, incident: UUID) -> None:
        self.replies_waiting += 1
        delay_s = self._random.uniform(*self._habits.delay_s)
        if delay_s <= 0.0:
            self._waiting.put_nowait((walker, incident))
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(delay_s, self._waiting.put_nowait, (walker, incident))

    async def _reply(self) -> None:
        while True:
            walker, incident = await self._waiting.get()
            try:
                await self._accept(walker, incident)
            finally:
                self.replies_waiting -= 1
                self._waiting.task_done()

    async def all_replied(self) -> None:
        """Wait until every reply that is due has its receipt."""
        await self._waiting.join()

    async def _accept(self, walker: Walker, incident: UUID) -> None:
        eta_s = self._random.randint(*ETA_S)
        if deed := await self._answer(walker, incident, ReplyKind.ACCEPTED, eta_s):
            self._history.acceptances.append(deed)
            if self._random.random() < self._habits.leaving and (
                gone := await self._answer(walker, incident, ReplyKind.LEFT)
            ):
                self._history.departures.append(gone)

    async def _answer(
        self, walker: Walker, incident: UUID, kind: ReplyKind, eta_s: int | None = None
    ) -> Deed | None:
        """Reply, and return when that was; None when it was rejected."""
        sent_at, received_at = _now(), NEVER
        try:
            await walker.device.reply(incident, kind, eta_s=eta_s)
            received_at = _now()
        except NotConfirmed:
            pass
        except MessageRejected:
            self.replies_rejected += 1
            return None
        return Deed(incident, sent_at, received_at, walker.number)


async def _with_receipt(sent: SentReport, device: Participant, report: Report) -> SentReport:
    try:
        receipt = await device.report(report)
    except NotConfirmed:
        return sent
    except MessageRejected as error:
        return replace(sent, received_at=_now(), rejected=str(error))
    return replace(
        sent,
        received_at=_now(),
        incident=receipt.incident,
        merge=receipt.merge,
        sequence=receipt.sequence,
    )


async def _at_most(width: int, jobs: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Run all jobs, so many at a time."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as tasks:
        for number in range(width):
            tasks.create_task(work(), name=f"worker {number}")


def _now() -> float:
    return datetime.now(UTC).timestamp()
