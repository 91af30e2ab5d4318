"""A process of the simulated city, and its network connections: it may be killed, or cut off."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from broker.mqtt import Endpoint
from broker.mqtt.connection_options import ConnectionExternals
from verify.simulation.mqtt_network import Link, Server
from verify.simulation.virtual_time import VirtualLoop


class Listener(Server, Protocol):
    """A server that takes connections while it is up."""

    up: bool

    def accept(self, link: Link) -> None:
        """A client has connected."""


@dataclass(slots=True)
class Process:
    """What the connections of one process share: time, dice, and whether it is dead.

    `on_take` is called when the process takes something up, from MQTT or a stream. An endpoint's
    host is the number of an MQTT broker.
    """

    loop: VirtualLoop
    rng: random.Random
    delay: Callable[[], float]
    brokers: Sequence[Listener]
    on_take: Callable[[], None] = lambda: None
    dead: bool = False
    _links: list[Link] = field(default_factory=list)

    def externals(self) -> ConnectionExternals:
        """Return what a connection of this process gets from outside."""
        loop = self.loop
        return ConnectionExternals(
            wall_s=loop.unix,
            monotonic_s=loop.time,
            dice=self.rng,
            open_network=self._open_network,
        )

    async def _open_network(self, endpoint: Endpoint, protocol: asyncio.Protocol) -> None:
        await asyncio.sleep(self.delay())
        if self.dead:
            await self.loop.create_future()  # nothing of it goes on
        broker = self.brokers[int(endpoint.host)]
        if not broker.up:
            raise ConnectionRefusedError("nobody answers")
        link = Link(
            self.loop,
            dice=self.rng,
            delay=self.delay,
            server=broker,
            protocol=protocol,
            on_take=self.on_take,
        )
        self._links = [one for one in self._links if one.is_open]
        self._links.append(link)
        broker.accept(link)
        protocol.connection_made(link)

    def cut(self) -> None:
        """Lose the network for a moment."""
        for link in self._links:
            link.cut()

    def die(self) -> None:
        """Die without a word: nothing goes out or comes in any more."""
        self.dead = True
        for link in self._links:
            link.client_died()
