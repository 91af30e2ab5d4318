"""One process of several devices in a chaos run: it reports, moves, replies and talks, and dies.

    python -m verify.chaos.chaos_device ORDERS.json

Killed and started again, it goes on where its log ends; what it had not got confirmed is in the
journals of its devices. SIGUSR1: make nothing new, and say when nothing is left. SIGTERM: end.
"""

import asyncio
import math
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from devices.journal import Journal, UnsentMessage
from devices.participant import (
    Broker,
    Confirm,
    Listeners,
    MessageRejected,
    NotConfirmed,
    Participant,
)
from schemas import topics
from schemas.ids import new_id
from schemas.messages import (
    Alert,
    Availability,
    Brief,
    Form,
    Position,
    Question,
    ReplyKind,
    Report,
    Subject,
)
from verify.chaos.chaos_log import JournalAdded, JournalRemoved, Log, Quiet, Started, Tail
from verify.chaos.chaos_reports import GHENT, draw_report, is_odd, moved, somewhere
from verify.chaos.logged_device import DeviceListener, on_signals, run_as_ordered
from verify.oracle.geofence import cell_at
from verify.oracle.observations import (
    MessageSent,
    PresenceSent,
    ReportCreated,
)

ACCEPTING, SPEAKING, LEAVING = 0.1, 0.4, 0.2
ADDING = 0.1  # of the reports, of which their reporter has more to say
SMALL = 0.1  # of the devices, which ask for alerts in short and hear no others
HIDING, BURST = 0.04, 3  # of their steps, at which they mute; and how often they say so at once
IN_FLIGHT = 24  # reports without a receipt, per process, before the next one is made
CONNECTING = 25


class DeviceOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to do. `reports` are spread over `lasts_s` from `starts_at` on."""

    process: str
    directory: str
    journals: str
    broker: str
    users: dict[str, str]
    seed: int
    reports: int
    starts_at: float
    lasts_s: float | None

    @property
    def log(self) -> Path:
        """The evidence."""
        return Path(self.directory) / f"{self.process}.jsonl"

    @property
    def hushed(self) -> Path:
        """Is there as soon as all are to make nothing new: who is just starting hears no signal."""
        return Path(self.directory) / "hushed"


class EvidentJournal(Journal):
    """A journal that tells the log what it holds, and what it is about to forget."""

    def __init__(self, path: Path, log: Log) -> None:
        super().__init__(path)
        self._evidence = log

    async def add(self, entry: UnsentMessage) -> None:
        """Keep `entry`."""
        await super().add(entry)
        if entry.subject is Subject.REPORT:
            self._evidence.write(JournalAdded(t=time.time(), id=entry.id))

    def remove(self, message: UUID) -> None:
        """Forget a message."""
        self._evidence.write(JournalRemoved(t=time.time(), id=message))
        super().remove(message)


class Phone:
    """One device: where it goes, and what it hears."""

    def __init__(self, user: str, process: "Process") -> None:
        orders = process.orders
        random = Random(f"{orders.seed} {user}")
        self.user = user
        self._process = process
        self._log = process.log
        self.heard = DeviceListener(user, process.log)
        self._home = somewhere(random, GHENT)
        self._phase = (random.uniform(0.0, math.tau), random.uniform(0.0, math.tau))
        self._reach_m = random.uniform(100.0, 500.0)
        self._is_small = random.random() < SMALL
        self.journal = EvidentJournal(Path(orders.journals) / f"{user}.journal", process.log)
        self.device = Participant(
            user,
            orders.users[user],
            Broker.from_url(orders.broker),
            deaf_to=(topics.ALERT,) if self._is_small else (),
            journal=self.journal,
            listeners=Listeners(
                on_alert=self._alerted,
                on_brief=self._alerted if self._is_small else None,
                on_group=self.heard.group_event,
                on_question=self._asked,
                on_receipt=self.heard.receipt,
            ),
        )

    def place(self, now: float) -> Position:
        """Where it is: around its home at some 5 m/s, as a cyclist rounds a block."""
        turn = now * 5.0 / self._reach_m
        north = self._reach_m * math.sin(turn + self._phase[0])
        east = self._reach_m * math.sin(turn * 0.7 + self._phase[1])
        return moved(self._home, north, east)

    async def walk(self, random: Random) -> None:
        """Say where it is whenever it comes into another cell."""
        cell: int | None = None
        said_at = -math.inf
        await asyncio.sleep(random.uniform(0.0, 2.0))
        while not self._process.quiet:
            now = time.time()
            place = self.place(now)
            here = cell_at(place.lat, place.lon)
            if random.random() < HIDING:
                cell = None
                await self._say_where(None, None)
            elif here != cell or now - said_at > 60.0:
                cell, said_at = here, now
                await self._say_where(place, here)
            await asyncio.sleep(random.uniform(1.0, 3.0))

    async def _say_where(self, place: Position | None, cell: int | None) -> None:
        """Say where it is; or (None) that it wants no alerts: in a burst, of which one will do."""
        now = time.time()
        sent = PresenceSent(
            t=now, user=self.user, number=int(now * 1e6), cell=cell, short=self._is_small
        )
        self._log.write(sent)
        sending = [
            self.device.presence(
                place,
                Availability.AVAILABLE if place else Availability.MUTED,
                at=datetime.fromtimestamp(now, UTC),
                confirm=Confirm.YES,
                form=Form.SHORT if self._is_small else None,
            )
            for _ in range(1 if place else BURST)
        ]
        try:
            await asyncio.gather(*sending)
        except (NotConfirmed, MessageRejected):
            return
        self._log.write(msgspec.structs.replace(sent, done=time.time()))

    async def connect(self, stack: AsyncExitStack) -> None:
        """Open the journal and go online, or on trying to."""
        await stack.enter_async_context(self.journal)
        await stack.enter_async_context(self.device)

    def _alerted(self, alert: Alert | Brief, received_at: float) -> None:
        self.heard.alert(alert, received_at)
        random = Random(f"{self.user} {alert.incident}")
        if random.random() < ACCEPTING:
            self._process.start(self._help(alert.incident, random))

    def _asked(self, question: Question, received_at: float) -> None:
        self.heard.question(question, received_at)
        self._process.start(self._answer(question))

    async def _help(self, incident: UUID, random: Random) -> None:
        await asyncio.sleep(random.uniform(0.1, 2.0))
        await self._reply(incident, ReplyKind.ACCEPTED, eta_s=random.randint(30, 300))
        if random.random() < SPEAKING:
            await self.speak(incident)
        if random.random() < LEAVING:
            await self._reply(incident, ReplyKind.LEFT)

    async def speak(self, incident: UUID) -> None:
        """Say something to the group, or to the desk alone."""
        text = f"said {new_id()}"
        said = MessageSent(
            t=time.time(), user=self.user, subject=Subject.MESSAGE, incident=incident, text=text
        )
        await self._confirmed(said, self.device.say(incident, text))

    async def _reply(self, incident: UUID, kind: ReplyKind, eta_s: int | None = None) -> None:
        sent = MessageSent(
            t=time.time(), user=self.user, subject=Subject.REPLY, incident=incident, reply=kind
        )
        await self._confirmed(sent, self.device.reply(incident, kind, eta_s=eta_s))

    async def _answer(self, question: Question) -> None:
        sent = MessageSent(
            t=time.time(), user=self.user, subject=Subject.ANSWER, incident=question.incident
        )
        text = f"answer {question.id}"
        await self._confirmed(sent, self.device.answer(question.id, text))

    async def _confirmed(self, sent: MessageSent, sending: Coroutine[Any, Any, Any]) -> None:
        """Await a receipt; one that comes only later goes to `on_receipt`."""
        self._log.write(sent)
        try:
            await sending
        except (NotConfirmed, MessageRejected):
            return
        self._log.write(msgspec.structs.replace(sent, done=time.time()))


class Process:
    """All phones of one process."""

    def __init__(self, orders: DeviceOrders, log: Log) -> None:
        self.orders = orders
        self.log = log
        self.quiet = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._reporting: set[asyncio.Task[None]] = set()
        self._phones = [Phone(user, self) for user in orders.users]

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside everything else; it is waited for before all is quiet."""
        task = asyncio.create_task(work, name="a device's deed")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, *, made: int, hush: asyncio.Event, stop: asyncio.Event) -> None:
        """Connect all phones and let them live; `made` reports were made by an earlier life."""
        async with AsyncExitStack() as stack:
            for first in range(0, len(self._phones), CONNECTING):
                some = self._phones[first : first + CONNECTING]
                await asyncio.gather(*(phone.connect(stack) for phone in some))
            random = Random(f"{self.orders.process} {self.orders.seed} {made}")
            for phone in self._phones:
                self.start(phone.walk(random))
            self.start(self._report_all(made))
            await asyncio.wait(
                [asyncio.ensure_future(hush.wait()), asyncio.ensure_future(stop.wait())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            self.quiet = True
            while self._tasks and not stop.is_set():
                await asyncio.wait(self._tasks, timeout=0.5)
            while await self._has_undelivered() and not stop.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            if not stop.is_set():
                self.log.write(Quiet(t=time.time(), process=self.orders.process))
            await stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _has_undelivered(self) -> bool:
        """Whether something is in a journal that nobody here awaits any more."""
        for phone in self._phones:
            if await phone.journal.entries():
                return True
        return False

    async def _report_all(self, made: int) -> None:
        orders = self.orders
        for number in range(made, orders.reports):
            if orders.lasts_s is not None:
                due = orders.starts_at + orders.lasts_s * (number + 0.5) / orders.reports
                await asyncio.sleep(max(0.0, due - time.time()))
            while len(self._reporting) >= IN_FLIGHT:
                await asyncio.wait(self._reporting, return_when=asyncio.FIRST_COMPLETED)
            random = Random(f"{orders.process} {orders.seed} report {number}")
            phone = random.choice(self._phones)
            report, poison = draw_report(random)
            task = self.start(self._report(phone, report, poison=poison))
            self._reporting.add(task)
            task.add_done_callback(self._reporting.discard)

    async def _report(self, phone: Phone, report: Report, *, poison: bool) -> None:
        created = ReportCreated.of(report, t=time.time(), user=phone.user, odd=is_odd(report))
        self.log.write(msgspec.structs.replace(created, poison=poison))
        while True:
            try:
                receipt = await phone.device.report(report)
                phone.heard.receipt(receipt)
                if receipt.incident and Random(f"{report.id} adds").random() < ADDING:
                    self.start(phone.speak(receipt.incident))
            except MessageRejected as error:
                phone.heard.receipt(error.receipt)
            except NotConfirmed:
                continue
            return


def made_before(log: Path) -> int:
    """Return how many reports an earlier life of this process has made for sure."""
    return len({entry.id for entry in Tail(log).entries() if isinstance(entry, JournalAdded)})


async def live(orders: DeviceOrders) -> None:
    """Live until SIGTERM."""
    hush = asyncio.Event()
    stop = on_signals(hush.set)
    if orders.hushed.exists():
        hush.set()
    made = made_before(orders.log)
    with Log(orders.log) as log:
        log.write(Started(t=time.time(), process=orders.process))
        await Process(orders, log).run(made=made, hush=hush, stop=stop)


if __name__ == "__main__":
    run_as_ordered(sys.argv[1:], DeviceOrders, live)
