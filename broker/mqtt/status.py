"""The status of the MQTT broker: since when it holds our connection, and what it reports.

It publishes under `$SYS` how many messages it has dropped and since when it runs
(mosquitto(8), "Broker status"), retained, each `sys_interval`. It is read on a short connection of
its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

from broker.mqtt.connection import Connection
from broker.mqtt.connection_options import ConnectionOptions
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError
from broker.mqtt.open_mqtt import OpenMqtt
from schemas.codec import encode
from schemas.messages import Probe
from schemas.topics import PROBE

_DROPPED = "$SYS/broker/publish/messages/dropped"
_UPTIME = "$SYS/broker/uptime"
_TIMEOUT_S = 2.0
_SCAN_S = 10.0
_AT_ONCE = 200


class Told(NamedTuple):
    """What a server says of itself: each is None if it does not.

    How many messages it has dropped since its start, for want of a reader; and when that was (Unix
    ms), at most a `sys_interval` too late.
    """

    dropped: int | None
    started_at_ms: int | None


class ServerStatus:
    """The status of the MQTT broker that `connection` is with, asked at `endpoint`, if it answers.

    `number` is its number among several. `open_mqtt` makes the connection to ask by, `wall_s` tells
    Unix time.
    """

    def __init__(
        self,
        endpoint: Endpoint | None = None,
        connection: Connection | None = None,
        *,
        number: int = 0,
        open_mqtt: OpenMqtt = Connection,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.number = number
        self._endpoint = endpoint
        self._connection = connection
        self._open_mqtt = open_mqtt
        self._wall_s = wall_s

    def heard_ms(self) -> tuple[int, int] | None:
        """Return since and until when our connection heard the same server (Unix ms)."""
        heard = self._connection.heard if self._connection else None
        return heard and (int(heard[0] * 1000), int(heard[1] * 1000))

    async def told(self) -> Told:
        """Ask the server about itself."""
        numbers = await self._numbers(_DROPPED, _UPTIME)
        uptime_s = numbers.get(_UPTIME)
        started_at_ms = None if uptime_s is None else int((self._wall_s() - uptime_s) * 1000)
        return Told(numbers.get(_DROPPED), started_at_ms)

    async def retained(self, filters: Sequence[str]) -> list[Message]:
        """Return what is retained on these topics, or is being published retained.

        Our own message marks the end: it comes after all that was retained at the SUBSCRIBE.
        """
        if self._endpoint is None:
            return []
        end = PROBE.topic(name="retained", instance=str(uuid4()))
        found: list[Message] = []
        try:
            async with self._asking([*filters, end]) as connection, asyncio.timeout(_SCAN_S):
                await connection.publish(Message(end, encode(Probe(number=0, nonce=""))))
                while True:
                    for delivery in await connection.receive(_AT_ONCE):
                        delivery.acknowledge()
                        if delivery.message.topic == end:
                            return found
                        if delivery.message.retain and delivery.message.payload:
                            found.append(delivery.message)
        except (MqttError, TimeoutError):
            return found

    def _asking(self, filters: Sequence[str]) -> Connection:
        assert self._endpoint is not None
        return self._open_mqtt(
            self._endpoint,
            client_id=f"nabij-status-{uuid4().hex[:12]}",
            subscriptions=filters,
            options=ConnectionOptions(session_expiry_s=0, connect_timeout_s=_TIMEOUT_S),
        )

    async def _numbers(self, *topics: str) -> dict[str, int]:
        """Return the number at the start of the payload on each of `topics` that has one."""
        found: dict[str, int] = {}
        if self._endpoint is None:
            return found
        with contextlib.suppress(MqttError, TimeoutError, ValueError, IndexError):
            async with self._asking(topics) as connection, asyncio.timeout(_TIMEOUT_S):
                while len(found) < len(topics):
                    for delivery in await connection.receive(len(topics)):
                        delivery.acknowledge()
                        number = int(delivery.message.payload.split()[0])
                        found[delivery.message.topic] = number
        return found
