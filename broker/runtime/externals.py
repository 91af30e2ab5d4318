"""What a worker gets from outside: time, dice and connections, which a simulation replaces."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from broker.mqtt import Connection, OpenMqtt
from broker.runtime.clock import Clock
from broker.store.kernel.nodes import OpenRedis
from broker.store.kernel.pipeline import RedisPipeline

Pause = Callable[[str, float], Awaitable[None]]


async def sleep(_loop: str, seconds: float) -> None:
    """Let a worker's loop of that name rest until its next turn."""
    await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Externals:
    """One worker's. `pause` is awaited between two turns of what goes on at an interval.

    All other waiting is by the running event loop, which has the time.
    """

    clock: Clock = field(default_factory=Clock)
    dice: random.Random = field(default_factory=random.Random)
    open_mqtt: OpenMqtt = Connection
    open_redis: OpenRedis = RedisPipeline
    pause: Pause = sleep
