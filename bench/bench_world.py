"""What every benchmark stands on: the whole of Nabij, recipients, a desk, and reports on a schedule.

Real processes: an MQTT broker and a Redis with `appendfsync always`, a worker of each service,
recipients in a process of their own. The load is open: a report goes out when its time has come,
whatever became of those before it, and its latency counts from then (no coordinated omission).
"""

# long: what every benchmark shares is one context, with its processes in the order of their start

import asyncio
import enum
import itertools
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self
from uuid import UUID

import msgspec

from bench import peer_protocol
from bench.receivers import CountAnswer, CountQuestion, ReceiverOrders
from broker.core.grid import place_of
from broker.mqtt import Connection, ConnectionOptions, Endpoint, Message
from broker.runtime.config import Settings
from broker.store import Store, Update
from nabij.local.data_directory import SERVICES_ACCOUNT
from nabij.local.parent_death import raise_open_files
from nabij.local.stack import Stack
from nabij.local.temporary import PREFIX, temporary_directory
from schemas import topics
from schemas.codec import encode
from schemas.ids import new_id
from schemas.messages import Availability, DeliveryReceipt, Mode, Position, Report
from schemas.taxonomy import default_policy_text
from schemas.topics import ROOT

REPORTER = "reporter"
CENTRE = Position(51.0543, 3.7217)
ZONE = "gent"
_METRES_PER_DEGREE = 111_320.0
_BETWEEN_GROUPS_M = 6_000.0
_RADIUS_M, _REACH_M, _APART_M = 500, 380, 25
_CATEGORIES = ("medical", "fight", "robbery")
_PLACED_AT_ONCE = 5_000
_CONFIRM_TOGETHER_S = 0.02
_SERVERS = ("mosquitto", "redis-server", "valkey-server")


def policy_text() -> str:
    """Return the shipped policy with which each report is an incident of its own, and stays so.

    Reports merge within a second and a metre only, every radius is the same, and no deadline
    fires during a measurement.
    """
    replaced = {
        "merge_m": 1,
        "merge_s": 1,
        "accept_s": 80_000,
        "acknowledge_s": 80_000,
        "silence_s": 86_400,
        "presence_s": 86_400,
    }
    lines = []
    for line in default_policy_text().splitlines():
        name = line.partition(" ")[0]
        if name == "radius_m" and not line.startswith("radius_m = 0"):
            lines.append(f"radius_m = {_RADIUS_M}")
        else:
            lines.append(f"{name} = {replaced[name]}" if name in replaced else line)
    return "\n".join(lines)


class RecipientGroup(NamedTuple):
    """Recipients at one place, whom a report there reaches, and nobody else."""

    users: Sequence[str]
    place: Position
    spots: Iterator[tuple[Position, Mode, str]]


class Way(enum.Enum):
    """What a report goes through: ours, a bare relay that alerts nobody, or a peer."""

    NABIJ = "nabij"
    RELAY = "relay"
    PEER = "peer"


@dataclass
class TimedReport:
    """One report, with when it was due and what came of it (s on `time.perf_counter`)."""

    due: float
    wanted: int
    receipt: float = math.nan
    police: float = math.nan
    incident: str = ""
    size: int = 0
    alerts: int = 0
    first: float = math.nan
    last: float = math.nan


@dataclass
class BenchWorld:
    """A running system with its clients; entered by `world`."""

    stack: Stack
    sent: dict[str, TimedReport] = field(default_factory=dict)
    groups: dict[int, RecipientGroup] = field(default_factory=dict)
    _clients: AsyncExitStack = field(default_factory=AsyncExitStack)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    recipients: dict[int, "Recipients"] = field(default_factory=dict)
    _reporter: Connection = field(init=False)
    _aside: Connection = field(init=False)
    _desk: Connection = field(init=False)
    _unconfirmed: set[UUID] = field(default_factory=set)

    async def open(self) -> None:
        """Connect the reporter and the desk."""
        filters = f"u/{REPORTER}/down/receipt"
        self._reporter = await self.connect(REPORTER, filters, on=self._receipted)
        escalations = f"police/{ZONE}/escalation/#"
        self._desk = await self.connect(f"desk-{ZONE}", escalations, on=self._escalated_to_desk)

    async def connect(
        self, user: str, *filters: str, on: Callable[[Message], None] | None = None
    ) -> Connection:
        """Return a connection of `user`; `on` gets what comes by its subscriptions."""
        connection = await self._clients.enter_async_context(
            Connection(
                Endpoint.from_url(self.stack.mqtt_url_for(user)),
                client_id=f"bench-{user}-{next(self._numbers)}",
                subscriptions=[f"{ROOT}/{one}" for one in filters],
                options=ConnectionOptions(session_expiry_s=0),
            )
        )
        if on is not None:
            await self._clients.enter_async_context(_task(_collect(connection, on)))
        return connection

    async def open_aside(self) -> None:
        """Connect who sends to another program than ours, and who waits for its answers."""
        self._aside = await self.connect(SERVICES_ACCOUNT)
        for topic, note in (
            (peer_protocol.RECEIPT, self._receipted),
            (peer_protocol.POLICE, self._escalated),
        ):
            await self.connect(SERVICES_ACCOUNT, topic.removeprefix(f"{ROOT}/"), on=note)

    async def send(
        self, count: int, rate: float, group: int, *, by: Way | None = None, within_s: float = 20.0
    ) -> list[TimedReport]:
        """Send `count` reports at `rate` a second to `group`; wait for all that is to come of them."""
        some = await self.start(count, rate, group, by=by)
        await self.settle(some, within_s)
        return some

    async def start(
        self, count: int, rate: float, group: int, *, by: Way | None = None
    ) -> list[TimedReport]:
        """Send `count` reports at `rate` a second that reach `group`; return when they are sent."""
        chosen, way = self.groups[group], by or Way.NABIJ
        began = time.perf_counter() + 0.05
        some = []
        for number in range(count):
            due = began + number / rate
            if (wait_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            report = _report(*next(chosen.spots))
            wanted = 0 if way is Way.RELAY else len(chosen.users)
            self.sent[str(report.id)] = sent = TimedReport(due, wanted, size=group)
            some.append(sent)
            if way is Way.NABIJ:
                message = Message(topics.REPORT.topic(user=REPORTER), encode(report))
                self._reporter.publish_nowait(message)
            else:
                sent.incident = str(report.id)
                self._aside.publish_nowait(
                    Message(peer_protocol.REPORT, peer_protocol.report(report))
                )
        return some

    async def settle(self, some: Sequence[TimedReport], within_s: float = 20.0) -> None:
        """Wait until each of these has its receipt, its escalation and its alerts.

        Raises:
            TimeoutError: something has not come.
        """
        async with asyncio.timeout(within_s):
            while any(math.isnan(one.receipt) or math.isnan(one.police) for one in some):
                self._news.clear()
                await self._news.wait()
        by_incident = {one.incident: one for one in some}
        for size, recipients in self.recipients.items():
            wanted = sum(one.wanted for one in some if one.size == size)
            if not wanted:
                continue  # nor take what another waits for
            answer = await recipients.ask(wanted, within_s)
            for incident, group in answer.groups.items():
                if one := by_incident.get(incident):
                    one.alerts, one.first, one.last = group.count, group.first, group.last
        if missing := sum(one.wanted - one.alerts for one in some):
            raise TimeoutError(f"{missing} alerts have not come within {within_s:g} s")

    def _receipted(self, message: Message) -> None:
        now = time.perf_counter()
        receipt = msgspec.json.decode(message.payload)
        if sent := self.sent.get(receipt.get("id")):
            sent.receipt, sent.incident = now, receipt["incident"]
            self._news.set()

    def _escalated_to_desk(self, message: Message) -> None:
        self._escalated(message)
        if not self._unconfirmed:
            asyncio.get_running_loop().call_later(_CONFIRM_TOGETHER_S, self._confirm)
        self._unconfirmed.add(UUID(msgspec.json.decode(message.payload)["id"]))

    def _confirm(self) -> None:
        """Say what the desk has, as `devices/delivery_receipts.py` does."""
        identifiers = list(self._unconfirmed)
        self._unconfirmed.clear()
        for first in range(0, len(identifiers), 200):
            some = identifiers[first : first + 200]
            topic = topics.DESK_DELIVERED.topic(zone=ZONE)
            self._desk.publish_nowait(Message(topic, encode(DeliveryReceipt(ids=frozenset(some)))))

    def _escalated(self, message: Message) -> None:
        now = time.perf_counter()
        escalation = msgspec.json.decode(message.payload)
        if sent := self.sent.get(escalation.get("report")):
            sent.police = now
            self._news.set()


class Recipients:
    """The process of one group of recipients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def started(cls, urls: Sequence[str], topic: str, *, expiry_s: int = 0) -> Self:
        """Start a process that connects to each URL, and return when it has subscribed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.receivers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        self = cls(process)
        await self._say(ReceiverOrders(list(urls), topic, expiry_s))
        return self

    async def ask(self, count: int, within_s: float) -> CountAnswer:
        """Return what has come since the last time, when it is `count` messages."""
        return await self._say(CountQuestion(count, within_s))

    async def _say(self, order: ReceiverOrders | CountQuestion) -> CountAnswer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the recipients' process has ended; its error is above")
        return msgspec.json.decode(line, type=CountAnswer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def world(
    sizes: Sequence[int], *, workers: Mapping[str, int] | None = None
) -> AsyncIterator[BenchWorld]:
    """Start everything, with a group of recipients of each of these sizes, at places of their own."""
    raise_open_files()  # a recipient is a connection, at both ends
    groups = {size: _group(size, number) for number, size in enumerate(sizes)}
    users = [REPORTER, *(user for group in groups.values() for user in group.users)]
    with temporary_directory(f"{PREFIX}bench-") as directory:
        policy = directory / "policy.toml"
        policy.write_text(policy_text(), encoding="utf-8")
        settings = Settings(mqtt="mosquitto", data_dir=directory, policy=policy, log_level="error")
        async with (
            Stack(settings, participants=users, workers=workers) as stack,
            AsyncExitStack() as clients,
        ):
            await stack.wait_ready()
            here = BenchWorld(stack, groups=groups, _clients=clients)
            await here.open()
            for size, group in groups.items():
                await place_all(stack, [(user, group.place) for user in group.users])
                urls = [stack.mqtt_url_for(user) for user in group.users]
                here.recipients[size] = await clients.enter_async_context(
                    await Recipients.started(urls, f"{ROOT}/u/{{user}}/down/alert")
                )
            yield here


def pid_of(stack: Stack, service: str) -> int:
    """Return the process of the first worker of `service`."""
    worker = next(one for one in stack.supervisor.workers if one.service == service)
    assert worker.pid is not None
    return worker.pid


def server_pids() -> dict[str, int]:
    """Return the processes of our own Redis and MQTT broker, by name."""
    pids = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text(encoding="utf-8").partition(")")
        except OSError:
            continue
        name, parent = name.partition("(")[2], int(rest.split()[1])
        if name in _SERVERS and parent == os.getpid():
            pids[name] = int(path.parent.name)
    return pids


@asynccontextmanager
async def beside(here: BenchWorld, module: str) -> AsyncIterator[None]:
    """Run `python -m module` while this lasts, from when it says that it is ready.

    Raises:
        RuntimeError: it has ended instead.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{here.stack.mqtt_url}\n{here.stack.redis_url}\n".encode())
        if (await process.stdout.readline()).decode().strip() != peer_protocol.READY:
            raise RuntimeError(f"{module} has ended; its error is above")
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def place_all(stack: Stack, people: Sequence[tuple[str, Position]]) -> None:
    """Put people into the index, as the presence service would."""
    now_ms = int(time.time() * 1000)
    async with Store(stack.redis_url) as store:
        for first in range(0, len(people), _PLACED_AT_ONCE):
            updates = [
                Update(user, place_of(place.lat, place.lon), Availability.AVAILABLE, now_ms)
                for user, place in people[first : first + _PLACED_AT_ONCE]
            ]
            await store.presence.update(updates, now_ms=now_ms, presence_s=86_400)


def _group(size: int, number: int) -> RecipientGroup:
    place = moved(CENTRE, number % 2 * _BETWEEN_GROUPS_M, number // 2 * _BETWEEN_GROUPS_M)
    return RecipientGroup([f"r{size}-{one}" for one in range(size)], place, _spots(place))


def moved(place: Position, north_m: float, east_m: float) -> Position:
    """Return where one is so far north and east of `place`."""
    east = east_m / (_METRES_PER_DEGREE * math.cos(math.radians(place.lat)))
    return Position(place.lat + north_m / _METRES_PER_DEGREE, place.lon + east)


def _spots(place: Position) -> Iterator[tuple[Position, Mode, str]]:
    """Yield, round and round, where and of what reports reach the place and do not merge."""
    steps = range(-_REACH_M, _REACH_M + 1, _APART_M)
    spots = [
        (moved(place, north, east), mode, category)
        for category in _CATEGORIES
        for mode in Mode
        for north, east in itertools.product(steps, steps)
        if math.hypot(north, east) <= _REACH_M
    ]
    return itertools.cycle(spots)


def _report(location: Position, mode: Mode, category: str) -> Report:
    return Report(
        id=new_id(),
        category=category,
        location=location,
        seen_at=datetime.now(UTC),
        text="measured",
        mode=mode,
    )


async def _collect(connection: Connection, on: Callable[[Message], None]) -> None:
    async for delivery in connection:
        on(delivery.message)
        delivery.acknowledge()


@asynccontextmanager
async def _task(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
