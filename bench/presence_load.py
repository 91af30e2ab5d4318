"""Position updates a second into the index, beside what the MQTT broker takes of them."""

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Self

import mqtt5

from bench.bench_world import CENTRE, REPORTER, BenchWorld, moved, world
from bench.fanout import Volley, volley_at
from bench.results import BenchResult, Histogram, Plot, Ratio, Row
from broker.mqtt import Connection, Message
from schemas import topics
from schemas.codec import encode
from schemas.messages import Position, Presence
from schemas.topics import ROOT

PEOPLE = 20_000
FINDABLE_MS = 100.0
_ELSEWHERE = f"{ROOT}/ops/bench/presence"
_SPREAD_M = 10_000.0
_AWAY_M = 40_000.0  # from the recipients' incidents: walking into one is another matter
_PROBE_EVERY_S = 0.02
_SLICE_S = 0.01
_FIRST_RATE, _GROWTH = 4_000.0, 1.3


def updates(count: int, random: Random, *, elsewhere: bool = False) -> list[bytes]:
    """Return PUBLISH packets of QoS 1, each the position of one of `PEOPLE`."""
    packets = []
    for number in range(count):
        north, east = (random.uniform(-_SPREAD_M, _SPREAD_M) for _ in range(2))
        place = moved(CENTRE, north - _AWAY_M, east)
        presence = Presence(at=datetime.now(UTC), location=place)
        user = f"p{random.randrange(PEOPLE)}"
        topic = _ELSEWHERE if elsewhere else topics.PRESENCE.topic(user=user)
        packet = mqtt5.PublishPacket(
            topic, encode(presence), qos=mqtt5.QoS(1), packet_id=number % 65_535 + 1
        )
        packets.append(packet.write())
    return packets


class PositionProbe:
    """A person who asks for a receipt with a position: it comes when the place can be found."""

    def __init__(self) -> None:
        self._connection: Connection
        self._sent: dict[bytes, float] = {}
        self._news = asyncio.Event()
        self.times: list[float] = []

    @classmethod
    async def at(cls, here: BenchWorld) -> Self:
        """Connect it."""
        probe = cls()
        filters = f"u/{REPORTER}/down/receipt"
        probe._connection = await here.connect(REPORTER, filters, on=probe._came)
        return probe

    def _came(self, message: Message) -> None:
        if message.correlation in self._sent:
            self.times.append(time.perf_counter() - self._sent.pop(message.correlation))
            self._news.set()

    def say(self, place: Position = CENTRE) -> None:
        """Publish it now."""
        key = b"%016d" % len(self._sent) + b"%d" % time.perf_counter_ns()
        self._sent[key] = time.perf_counter()
        presence = Presence(at=datetime.now(UTC), location=place)
        self._connection.publish_nowait(
            Message(
                topics.PRESENCE.topic(user=REPORTER),
                encode(presence),
                response_topic=topics.RECEIPT.topic(user=REPORTER),
                correlation=key,
            )
        )

    async def all(self) -> list[float]:
        """Return how long each took (s), when the last has come."""
        async with asyncio.timeout(60.0):
            while self._sent:
                self._news.clear()
                await self._news.wait()
        times, self.times = self.times, []
        return times


async def in_one_go(probe: PositionProbe, volley: Volley, packets: Sequence[bytes]) -> float:
    """Return the updates a second, when all are written at once and the last can be found."""
    began = volley.fire(b"".join(packets))
    await volley.acknowledged(len(packets))
    probe.say()
    await probe.all()
    return len(packets) / (time.perf_counter() - began)


async def taken(volley: Volley, packets: Sequence[bytes]) -> float:
    """Return the same messages a second, as the MQTT broker alone takes them."""
    began = volley.fire(b"".join(packets))
    await volley.acknowledged(len(packets))
    return len(packets) / (time.perf_counter() - began)


async def at_rate(
    probe: PositionProbe, volley: Volley, packets: Sequence[bytes], rate: float
) -> list[float]:
    """Send `packets` at `rate` a second; return how long positions took to be findable (s)."""
    began = time.perf_counter()
    sent, probed_at = 0, began
    while sent < len(packets):
        now = time.perf_counter()
        due = min(len(packets), math.ceil((now - began) * rate))
        if due > sent:
            volley.fire(b"".join(packets[sent:due]))
            sent = due
        if now - probed_at > _PROBE_EVERY_S:
            probe.say()
            probed_at = now
        await asyncio.sleep(_SLICE_S)
    return await probe.all()


# long: one measurement, told in its order
async def measure(*, quick: bool) -> BenchResult:
    """Measure the ingest in one go, then the staleness at growing rates."""
    rounds, count, lasts_s = (3, 30_000, 2.0) if quick else (9, 60_000, 5.0)
    random = Random(7)
    ours, floors = [], []
    curve: list[tuple[float, float]] = []
    knee = 0.0
    async with world([]) as here:
        probe = await PositionProbe.at(here)
        volley = await volley_at(here.stack.mqtt_url)
        await in_one_go(probe, volley, updates(count, random))  # warm-up
        for _ in range(rounds):
            floors.append(await taken(volley, updates(count, random, elsewhere=True)))
            ours.append(await in_one_go(probe, volley, updates(count, random)))
        rate = _FIRST_RATE
        while True:
            late = Histogram(
                await at_rate(probe, volley, updates(int(rate * lasts_s), random), rate)
            )
            curve.append((rate, late.ms(99)))
            if late.ms(99) > FINDABLE_MS:
                break
            knee = rate
            rate *= _GROWTH
    ratio = Ratio.of(ours, floors)
    middle = sorted(ours)[len(ours) // 2]
    keys: dict[str, object] = {
        "ratio_ingest": ratio.median,
        "updates_per_s": middle,
        "findable_updates_per_s": knee,
    }
    rows = [
        Row(
            "updates a second, in one go",
            f"{middle:,.0f}",
            f"{sorted(floors)[len(floors) // 2]:,.0f}",
            str(ratio),
            "≥ 0.6, ≥ 30,000 a second",
        ),
        Row("updates a second with p99 findable within 100 ms", f"{knee:,.0f}"),
    ]
    plot = Plot("p99 until findable", "updates a second", "ms", {"Nabij": curve})
    return BenchResult("presence", keys, rows, [plot])
