"""Our own MQTT broker beside Mosquitto, in one run: round trips, rates, crowds, memory, a flood."""

# long: one measurement after another, each of both MQTT brokers in turn

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.bench_world import Recipients
from bench.broker_clients import BlockingClient, Publisher, Subscriber, rate, round_trips
from bench.fanout import crowd_to, floor_of, last_of, volley_at
from bench.receivers import ArrivalCounts, ReceiverOrders, Recipient, connect
from bench.results import BenchResult, Histogram, Ratio, Row
from nabij.local.embedded import Account, EmbeddedMqtt, MqttEngine
from nabij.local.parent_death import raise_open_files
from nabij.local.temporary import PREFIX, temporary_directory
from schemas import topics
from schemas.ids import new_id
from schemas.roles import Role
from schemas.topics import ROOT, Topic

_CROWD = 5_000
_FEW = 1_000
_PUBLISHERS = 4
_FLOOD_CONNECTIONS = 10
_EXPIRY_S = 3_600
_PAUSE_S = 0.05
_PAUSE_AFTER_CUT_S = 1.0
_AT_ONCE = 500  # connections that the storm opens together: more wait in the listener's queue
_PLAIN, _KEPT, _STORM = topics.ALERT, topics.BRIEF, topics.QUESTION


class _Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    trips: int
    messages: int  # of each publisher in a round
    volleys: int
    storms: int


_LONG, _QUICK = _Plan(15, 1_000, 5_000, 20, 3), _Plan(5, 400, 2_500, 5, 1)


@dataclass(frozen=True)
class _Side:
    """One of the two MQTT brokers, and who connects to it."""

    mqtt: EmbeddedMqtt
    service: Account
    flooder: Account
    users: tuple[Account, ...]

    @property
    def url(self) -> str:
        """Where the services connect."""
        return self.mqtt.url_for(self.service)

    def url_of(self, number: int = 0) -> str:
        """Where a participant connects."""
        return self.mqtt.url_for(self.users[number])

    def names(self, count: int) -> list[str]:
        """Return the first participants."""
        return [one.username for one in self.users[:count]]

    async def recipients(self, count: int, topic: Topic[Any], expiry_s: int = 0) -> Recipients:
        """Start a process in which so many have subscribed, on a connection each."""
        urls = [self.url_of(number) for number in range(count)]
        return await Recipients.started(urls, _filter(topic), expiry_s=expiry_s)


class _Pair(NamedTuple):
    """Both of them."""

    ours: _Side
    mosquitto: _Side

    async def rounds(
        self, count: int, measured: Callable[[_Side], Awaitable[float]]
    ) -> "tuple[list[float], list[float]]":
        """Measure each in turn, in so many rounds, the first of which does not count."""
        found: tuple[list[float], list[float]] = ([], [])
        for number in range(count + 1):
            for side, figures in zip(self, found, strict=True):
                figure = await measured(side)
                await asyncio.sleep(_PAUSE_S)
                if number:
                    figures.append(figure)
        return found


class _Table:
    """The result as it grows."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.keys: dict[str, object] = {}

    def add(  # noqa: PLR0917 - a line of the table, in its order
        self,
        key: str,
        what: str,
        figures: tuple[list[float], list[float]],
        unit: str,
        goal: str = "",
    ) -> None:
        """Add the medians of both, and of the ratios of their rounds."""
        ours, floors = (sorted(some)[len(some) // 2] for some in figures)
        ratio = Ratio.of(*figures)
        self.keys |= {key: ours, f"mosquitto_{key}": floors, f"ratio_{key}": ratio.median}
        digits = 0 if ours >= 1_000 else 2
        our_text, floor_text = (f"{one:,.{digits}f} {unit}" for one in (ours, floors))
        self.rows.append(Row(what, our_text, floor_text, str(ratio), goal))


async def measure(*, quick: bool) -> BenchResult:
    """Measure ours with its journal on and Mosquitto on the shipped configuration, in turn.

    In the table the floor is Mosquitto.
    """
    plan, table = (_QUICK if quick else _LONG), _Table()
    raise_open_files()  # a recipient is a connection, at both ends
    with temporary_directory(f"{PREFIX}bench-") as directory:
        async with _both(directory) as pair:
            for expiry_s in (0, _EXPIRY_S):
                await _between_two(pair, plan, table, expiry_s)
            await _crowd(pair, plan, table)
            await _kept_crowd(pair, plan, table)
            await _flood(pair, plan, table)
            await _storm(pair, plan, table)
    return BenchResult("broker", table.keys, table.rows, [])


@asynccontextmanager
async def _both(directory: Path) -> AsyncIterator[_Pair]:
    """Start both, with the same accounts."""
    users = tuple(Account(f"r{one}", f"secret-{one}", Role.PARTICIPANT) for one in range(_CROWD))
    service = Account("nabij", "secret", Role.SERVICE)
    flooder = Account("flooder", "secret", Role.PARTICIPANT)
    async with AsyncExitStack() as stack:
        sides = []
        for engine in (MqttEngine.EDGE, MqttEngine.MOSQUITTO):
            accounts = [service, flooder, *users]
            mqtt = EmbeddedMqtt(directory / engine.value, accounts, engine=engine)
            sides.append(_Side(await stack.enter_async_context(mqtt), service, flooder, users))
        yield _Pair(*sides)


def _filter(topic: Topic[Any]) -> str:
    return f"{ROOT}/{topic.template}"


def _suffix(expiry_s: int) -> tuple[str, str]:
    return ("_kept", ", to a session that is kept") if expiry_s else ("", "")


# -- two clients ------------------------------------------------------------------------------------


async def _between_two(pair: _Pair, plan: _Plan, table: _Table, expiry_s: int) -> None:
    """Measure round trips, and how many messages go from some publishers to one subscriber."""
    key, text = _suffix(expiry_s)
    with ExitStack() as clients:
        trips = {side: clients.enter_context(_two(side, expiry_s)) for side in pair}

        async def trip(side: _Side) -> float:
            return Histogram(round_trips(*trips[side], _topic(side), plan.trips)).ms(50)

        figures = await pair.rounds(plan.rounds, trip)
    table.add(
        f"round_trip{key}_ms",
        f"round trip of QoS 1{text}, p50",
        figures,
        "ms",
        "" if key else "≤ 1.2",
    )
    lines = {side: await _line(side, expiry_s) for side in pair}

    async def messages(side: _Side) -> float:
        return await rate(*lines[side], _topic(side), plan.messages)

    figures = await pair.rounds(plan.rounds, messages)
    table.add(
        f"publishes_s{key}", f"QoS 1 publishes a second{text}", figures, "", "" if key else "≥ 1"
    )
    for publishers, subscriber in lines.values():
        for client in (*publishers, subscriber):
            client.abort()


def _topic(side: _Side) -> str:
    return _KEPT.topic(user=side.users[0].username)


@contextmanager
def _two(side: _Side, expiry_s: int = 0) -> Iterator[tuple[BlockingClient, BlockingClient]]:
    """Connect one that sends, and one that receives."""
    topic = _topic(side)
    with (
        BlockingClient(side.url, "bench-sender") as sender,
        BlockingClient(side.url_of(), "bench-one", topic=topic, expiry_s=expiry_s) as receiver,
    ):
        yield sender, receiver


async def _line(side: _Side, expiry_s: int) -> tuple[list[Publisher], Subscriber]:
    """Connect some that publish, and one that has subscribed."""
    url, topic = side.url_of(), _topic(side)
    subscriber = await Subscriber(url, "bench-one", topic=topic, expiry_s=expiry_s).open(url)
    names = [f"bench-publisher-{number}" for number in range(_PUBLISHERS)]
    return [await Publisher(side.url, name).open(side.url) for name in names], subscriber


# -- a crowd ----------------------------------------------------------------------------------------


async def _crowd(pair: _Pair, plan: _Plan, table: _Table) -> None:
    """Measure what 5,000 idle connections take, and messages to each of a crowd."""
    before = [_resident_mb(side) for side in pair]
    async with AsyncExitStack() as stack:
        crowds = {
            side: await stack.enter_async_context(await side.recipients(_CROWD, _PLAIN))
            for side in pair
        }
        after = [_resident_mb(side) for side in pair]
        table.add(
            "idle_mb",
            f"memory with {_CROWD:,} idle connections",
            ([after[0]], [after[1]]),
            "MB",
            "≤ 100 MB",
        )
        table.keys |= {"empty_mb": before[0], "mosquitto_empty_mb": before[1]}
        await _volleys(pair, plan, table, crowds, (_FEW, _CROWD))


async def _kept_crowd(pair: _Pair, plan: _Plan, table: _Table) -> None:
    """Measure messages to sessions that are kept: ours writes each to its journal."""
    async with AsyncExitStack() as stack:
        crowds = {
            side: await stack.enter_async_context(await side.recipients(_FEW, _KEPT, _EXPIRY_S))
            for side in pair
        }
        await _volleys(pair, plan, table, crowds, (_FEW,), _EXPIRY_S)


async def _volleys(  # noqa: PLR0917 - of two callers
    pair: _Pair,
    plan: _Plan,
    table: _Table,
    crowds: dict[_Side, Recipients],
    sizes: tuple[int, ...],
    expiry_s: int = 0,
) -> None:
    key, text = _suffix(expiry_s)
    volleys = {side: await volley_at(side.url) for side in pair}
    for size in sizes:

        async def last(side: _Side, size: int = size) -> float:
            topic = _KEPT if expiry_s else _PLAIN
            took = await floor_of(volleys[side], crowds[side], side.names(size), topic)
            await volleys[side].acknowledged(size)
            return took * 1_000

        async def last_of_crowd(side: _Side, size: int = size) -> float:
            if side is pair.mosquitto:
                return await last(side, size)
            incident = str(new_id())
            packets = crowd_to(side.names(size), incident, _KEPT if expiry_s else _PLAIN)
            began = volleys[side].fire(b"".join(packets))
            took = await last_of(began, incident, crowds[side], size)
            await volleys[side].acknowledged(len(packets))
            return took * 1_000

        what = f"last of {size:,} recipients{text}, p50"
        figures = await pair.rounds(plan.volleys, last)
        table.add(f"last_{size}{key}_ms", what, figures, "ms")
        figures = await pair.rounds(plan.volleys, last_of_crowd)
        goal = "" if key else "≤ 0.7"
        table.add(f"crowd_{size}{key}_ms", f"{what}, in a packet for all", figures, "ms", goal)


def _resident_mb(side: _Side) -> float:
    """Return the memory of its process (MB)."""
    status = Path(f"/proc/{side.mqtt.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1_000


# -- a flood, and a storm ---------------------------------------------------------------------------


async def _flood(pair: _Pair, plan: _Plan, table: _Table) -> None:
    """Measure the round trip of others while one account publishes without end."""
    for side, whose in zip(pair, ("ours", "Mosquitto"), strict=True):
        idle, flooded = [], []
        with _two(side) as clients:
            for _ in range(plan.rounds):
                idle += round_trips(*clients, _topic(side), plan.trips)
                async with _flooding(side):
                    flooded += round_trips(*clients, _topic(side), plan.trips)
        ours, floor = Histogram(flooded).ms(99), Histogram(idle).ms(99)
        prefix = "" if side is pair.ours else "mosquitto_"
        table.keys |= {f"{prefix}flooded_p99_ms": ours, f"{prefix}idle_p99_ms": floor}
        table.keys[f"{prefix}ratio_flooded"] = ratio = round(ours / floor, 2)
        what = f"others' p99 during a flood, beside idle: {whose}"
        goal = "≤ 2" if side is pair.ours else ""
        table.rows.append(Row(what, f"{ours:.2f} ms", f"{floor:.2f} ms", f"{ratio:.2f}", goal))


@asynccontextmanager
async def _flooding(side: _Side) -> AsyncIterator[None]:
    """Run a process of one account that publishes on some connections as fast as it can."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.broker_clients",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        topic = topics.PRESENCE.topic(user=side.flooder.username)
        orders = (side.mqtt.url_for(side.flooder), topic, str(_FLOOD_CONNECTIONS))
        process.stdin.write("".join(f"{one}\n" for one in orders).encode())
        if not await process.stdout.readline():
            raise RuntimeError("the flood has ended; its error is above")
        await asyncio.sleep(_PAUSE_S * 4)  # what an account may send at once has been sent
        yield
    finally:
        process.kill()
        await process.wait()


async def _storm(pair: _Pair, plan: _Plan, table: _Table) -> None:
    """Measure how long 5,000 clients with sessions take to come back after all were cut off."""
    for side in pair:
        await _cut(await _all_in(side))
    await asyncio.sleep(_PAUSE_AFTER_CUT_S)

    async def storm(side: _Side) -> float:
        began = time.perf_counter()
        everybody = await _all_in(side)
        took = time.perf_counter() - began
        if not all(one.is_resumed for one in everybody):
            raise RuntimeError("a session was lost")
        await _cut(everybody)
        return took

    figures = await pair.rounds(plan.storms, storm)
    table.add("storm_s", f"{_CROWD:,} clients come back to their sessions", figures, "s", "≤ 5 s")


async def _all_in(side: _Side) -> list[Recipient]:
    orders = ReceiverOrders([], _filter(_STORM), _EXPIRY_S + 1)
    counts, slots = ArrivalCounts(), asyncio.Semaphore(_AT_ONCE)

    async def come(number: int) -> Recipient:
        async with slots:
            return await connect(side.url_of(number), orders, counts)

    return await asyncio.gather(*(come(number) for number in range(_CROWD)))


async def _cut(everybody: list[Recipient]) -> None:
    for one in everybody:
        one.abort()
    await asyncio.sleep(_PAUSE_AFTER_CUT_S)
