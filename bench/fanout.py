"""One report to 10, 100, 1,000 and 5,000 recipients, beside as many packets written in one go."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

import mqtt5

from bench.bench_world import Recipients, world
from bench.results import BenchResult, Histogram, Plot, Ratio, Row
from broker.mqtt import Endpoint, Message
from broker.mqtt.crowd import packets_for
from schemas import topics
from schemas.ids import new_id
from schemas.topics import Topic

SIZES = (10, 100, 1_000, 5_000)
GOALS = {1_000: "≤ 1.3", 5_000: "≤ 1.2"}
_ALERT_BYTES = 700
_PAUSE_S = 0.05


class Volley(asyncio.Protocol):
    """A connection that writes packets made before, as one: nothing is faster to the same broker."""

    def __init__(self, url: str) -> None:
        endpoint = Endpoint.from_url(url)
        self._connect = mqtt5.ConnectPacket(
            f"bench-volley-{new_id().hex[-8:]}",
            username=endpoint.username,
            password=(endpoint.password or "").encode(),
            clean_start=True,
            keep_alive=0,
        ).write()
        self._transport: asyncio.Transport
        self._rest = b""
        self._acknowledged, self._wanted = 0, sys.maxsize
        self._enough: asyncio.Future[None] | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        """CONNACK comes first, then PUBACKs: four bytes each, or with a reason code five, or six."""
        if not self.ready.done():
            self.ready.set_result(None)
            return
        data, at = self._rest + data, 0
        while at + 1 < len(data) and at + 2 + data[at + 1] <= len(data):
            at += 2 + data[at + 1]
            self._acknowledged += 1
        self._rest = data[at:]
        if self._acknowledged >= self._wanted and self._enough and not self._enough.done():
            self._enough.set_result(None)

    async def acknowledged(self, count: int) -> None:
        """Wait until so many PUBACKs have come since the last wait."""
        self._wanted, self._enough = count, asyncio.get_running_loop().create_future()
        if self._acknowledged < count:
            async with asyncio.timeout(60.0):
                await self._enough
        self._acknowledged, self._wanted = self._acknowledged - count, sys.maxsize

    def fire(self, packets: bytes) -> float:
        """Write them; return when that began."""
        began = time.perf_counter()
        self._transport.write(packets)
        return began


async def volley_at(url: str) -> Volley:
    """Connect there."""
    endpoint = Endpoint.from_url(url)
    _, volley = await asyncio.get_running_loop().create_connection(
        lambda: Volley(url), endpoint.host, endpoint.port
    )
    await volley.ready
    return volley


def packets_to(users: Sequence[str], key: str, topic: Topic[Any] = topics.ALERT) -> bytes:
    """Return one PUBLISH of QoS 1 to each of `users`, of an alert's size."""
    payload = _payload(key)
    return b"".join(
        mqtt5.PublishPacket(
            topic.topic(user=user), payload, qos=mqtt5.QoS(1), packet_id=number % 65_535 + 1
        ).write()
        for number, user in enumerate(users)
    )


def crowd_to(users: Sequence[str], key: str, topic: Topic[Any]) -> list[bytes]:
    """Return the same for an MQTT broker that takes one payload for many topics in a packet."""
    message = Message(topic.topic(user=users[0]), _payload(key))
    packets = packets_for(message, [topic.topic(user=user) for user in users])
    return [
        mqtt5.PublishPacket(one.topic, one.payload, qos=mqtt5.QoS(1), packet_id=number + 1).write()
        for number, (one, _) in enumerate(packets)
    ]


def _payload(key: str) -> bytes:
    return f'{{"incident":"{key}",'.encode().ljust(_ALERT_BYTES, b"x")


async def floor_of(
    volley: Volley, recipients: Recipients, users: Sequence[str], topic: Topic[Any] = topics.ALERT
) -> float:
    """Return how long until the last of the packets to `users`, written in one go, has come (s)."""
    key = str(new_id())
    packets = packets_to(users, key, topic)
    return await last_of(volley.fire(packets), key, recipients, len(users))


async def last_of(began: float, key: str, recipients: Recipients, count: int) -> float:
    """Return how long after `began` the last of so many messages has come (s)."""
    answer = await recipients.ask(count, 20.0)
    group = answer.groups[key]
    if group.count != count:
        raise RuntimeError(f"{group.count} of {count} messages came")
    return group.last - began


# long: one measurement, told in its order
async def measure(*, quick: bool) -> BenchResult:
    """Measure each size in rounds of one report and one volley."""
    rounds = (
        {10: 30, 100: 30, 1_000: 15, 5_000: 5}
        if quick
        else {
            10: 200,
            100: 200,
            1_000: 60,
            5_000: 20,
        }
    )
    keys: dict[str, object] = {}
    rows = []
    curves: dict[str, list[tuple[float, float]]] = {"last alert": [], "floor": []}
    async with world(SIZES) as here:
        volley = await volley_at(here.stack.mqtt_url)
        for size in SIZES:
            ours, floors = [], []
            for number in range(rounds[size] + 3):
                floor = await floor_of(volley, here.recipients[size], here.groups[size].users)
                await asyncio.sleep(_PAUSE_S)
                (sent,) = await here.send(1, 1.0, size)
                await asyncio.sleep(_PAUSE_S)
                if number >= 3:
                    ours.append(sent.last - sent.due)
                    floors.append(floor)
            ratio = Ratio.of(ours, floors)
            last, bare = Histogram(ours).ms(50), Histogram(floors).ms(50)
            keys |= {
                f"ratio_last_{size}": ratio.median,
                f"last_{size}_ms": last,
                f"floor_last_{size}_ms": bare,
            }
            rows.append(
                Row(
                    f"last of {size:,} alerts, p50",
                    f"{last:.1f} ms",
                    f"{bare:.1f} ms",
                    str(ratio),
                    GOALS.get(size, ""),
                )
            )
            curves["last alert"].append((size, last))
            curves["floor"].append((size, bare))
    return BenchResult("fanout", keys, rows, [Plot("Last alert", "recipients", "ms", curves)])
