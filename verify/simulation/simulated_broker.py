"""An MQTT broker in virtual time: our own state machine, on simulated connections.

This plays the part of `broker/edge/server.py`. A batch of the journal takes some milliseconds to
write, and what waits for it is told then: a kill may fall in between. Without a journal everything
is forgotten in a kill, as Mosquitto may.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import mqtt5

from broker.edge.accounts import Answer, Credentials, Grant, Quotas
from broker.edge.connection import Connection
from broker.edge.edge_broker import EdgeBroker
from broker.edge.limits import Limits
from broker.edge.recorder import Recorder
from broker.edge.records import MessageRecord, decode_batch
from broker.edge.sys_topics import sys_topics
from broker.identity.acl import rights
from schemas import topics
from schemas.roles import Role
from verify.simulation.memory_journal import Files, MemoryJournal
from verify.simulation.mqtt_network import Link
from verify.simulation.virtual_time import VirtualLoop
from verify.simulation.wire_judge import SeenClient, WireJudge
from verify.world.exercised import Exercised, sent_topics, topic_of

_LIMITS = Limits()
_SERVICE_QUOTAS = Quotas(connections=1_000, subscriptions=10_000, retained=10_000, publishes_per_s=1e6)  # fmt: skip
_COMMIT_S = (0.001, 0.008)
_LAZY_COMMIT_S = 0.2  # as in `broker/edge/server.py`, whose part this plays
_TURN_PACKETS = 1_000
_TICK_S, _SLOW_TICK_S, _CALM_S = 1.0, 10.0, 60.0  # it ticks slowly once nothing goes wrong any more
_PROBES = topics.PROBE.filter().partition("+")[0]


def grant(name: str, *owners: tuple[Role, str | None]) -> Grant:
    """Return the rights of an account: those of each role, with its own level of the topics."""
    rows = [row.split(" ", 1) for role, own in owners for row in rights(role, own)]
    is_service = any(role is Role.SERVICE for role, _ in owners)
    return Grant(
        name=name,
        reads=tuple(pattern for verb, pattern in rows if verb.startswith("read")),
        writes=tuple(pattern for verb, pattern in rows if verb.endswith("write")),
        is_service=is_service,
        quotas=_SERVICE_QUOTAS if is_service else Quotas(),
    )


class SimulatedBroker:
    """One MQTT broker. `accounts` are who may connect, by user name; `keeps` it has a journal."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        accounts: Mapping[str, Grant],
        exercised: Exercised,
        *,
        keeps: bool,
    ) -> None:
        self.up = True
        self.deaths = 0
        self.keeps = keeps
        self.swallowed: str | None = None  # the template of a topic on which nothing arrives
        self.trap: Callable[[], None] | None = None  # what strikes while it writes a message
        self.judge = WireJudge(loop.time)
        self._loop = loop
        self._rng = rng
        self._accounts = accounts
        self._exercised = exercised
        self._files: Files = []
        self._clients: dict[Link, tuple[Connection, SeenClient]] = {}
        self._begin()
        self._tick(self.deaths)

    # -- life -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._started_at = self._told_at = self._loop.now
        self._links: dict[Connection, Link] = {}
        self._is_committing = self._is_lazy = False
        self._edge = EdgeBroker(
            authenticate=self._authenticate,
            clock=self._loop.time,
            name=lambda: f"auto-{self._rng.getrandbits(32)}",
            limits=_LIMITS,
            recorder=Recorder(0.0 if self.keeps else None),
        )
        self._journal = MemoryJournal(self._edge, self._files)
        if self.keeps:
            self._journal.recover()

    def kill(self) -> None:
        """Die: what is not committed is lost."""
        if not self.up:
            return
        self.up = False
        self.deaths += 1
        for link in self._links.values():
            link.server_died()

    def start(self) -> None:
        """Come back with what was committed."""
        if self.up:
            return
        self.up = True
        self._begin()
        self._tick(self.deaths)

    def _tick(self, deaths: int) -> None:
        """Look at the clock now and then, until the next death."""
        now = self._loop.now
        if deaths != self.deaths:
            return
        self._edge.tick()
        if now >= self._told_at:
            self._told_at = now + _LIMITS.sys_interval_s
            for topic, payload in sys_topics(self._edge, now - self._started_at).items():
                self._edge.router.publish_own(topic, payload)
        self._flush()
        self._loop.call_later(_TICK_S if now < _CALM_S else _SLOW_TICK_S, self._tick, deaths)

    def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
        answer(self._accounts.get(credentials.username or ""))

    def retained_topics(self) -> Iterator[str]:
        """Yield the topics on which a subscriber would get what is retained, but its own."""
        for one in self._edge.router.retained.values():
            expires_at = one.message.expires_at
            if one.account is not None and (expires_at is None or expires_at > self._loop.now):
                yield one.message.publish.topic

    # -- its network connections ------------------------------------------------------------------

    def accept(self, link: Link) -> None:
        """A client has connected."""
        connection = self._edge.open()
        self._links[connection] = link
        self._clients[link] = connection, SeenClient(lambda: link.is_open)

    def received(self, link: Link, data: bytes) -> None:
        """Bytes have come."""
        connection, client = self._clients[link]
        for packet, raw in _packets(data):
            self.judge.received(client, packet)
            if not isinstance(packet, mqtt5.PublishPacket):
                connection.feed(raw)
            elif self._is_swallowed(packet):
                link.send(mqtt5.PubAckPacket(packet.packet_id or 0).write())
            else:
                connection.feed(raw)
        self._turn(connection)

    def _is_swallowed(self, packet: mqtt5.PublishPacket) -> bool:
        if _is_sent(packet.topic):
            self._exercised.take(packet.topic, packet.payload)
        topic = topic_of(packet.topic)
        return topic is not None and topic.template == self.swallowed

    def _turn(self, connection: Connection) -> None:
        if connection not in self._links:
            return
        connection.turn(_TURN_PACKETS)
        wait_s = connection.paused_until - self._loop.now
        if wait_s > 0:
            self._loop.call_later(wait_s, self._turn, connection)
        self._flush()

    def lost(self, link: Link) -> None:
        """A client has gone."""
        connection, _ = self._clients[link]
        connection.lost()
        self._flush()

    def delivered(self, link: Link, data: bytes) -> None:
        """Bytes have reached a client."""
        _, client = self._clients[link]
        for packet, _ in _packets(data):
            self.judge.delivered(client, packet)
            if isinstance(packet, mqtt5.PublishPacket):
                if not _is_sent(packet.topic):
                    self._exercised.take(packet.topic, packet.payload)
                if not packet.topic.startswith(_PROBES):
                    link.on_take()

    # -- what it writes ---------------------------------------------------------------------------

    def _flush(self) -> None:
        while dirty := self._edge.take_dirty():
            for connection in dirty:
                if (link := self._links.get(connection)) is not None:
                    self._write(connection, link)
        records = self._edge.recorder
        if records.is_empty or self._is_committing:
            return
        if records.is_urgent:
            self._commit(self._rng.uniform(*_COMMIT_S))
        elif not self._is_lazy:
            self._is_lazy = True
            self._loop.call_later(_LAZY_COMMIT_S, self._commit_lazily, self.deaths)

    def _write(self, connection: Connection, link: Link) -> None:
        if data := connection.take():
            link.send(data)
        if connection.is_closed:
            link.end()
            del self._links[connection]
            return
        if not connection.has_room:
            connection.drained()
        if connection.is_stopped:
            self._loop.call_soon(self._turn, connection)

    def _commit(self, lasts_s: float) -> None:
        self._is_committing = True
        number, batch = self._edge.recorder.number, self._edge.recorder.take()
        self._loop.call_later(lasts_s, self._committed, self.deaths, number, batch)
        strike = self.trap
        if strike is not None and any(
            isinstance(one, MessageRecord) for one in decode_batch(batch)
        ):
            self.trap = None
            self._loop.call_later(lasts_s * self._rng.choice((0.0, self._rng.random())), strike)

    def _commit_lazily(self, deaths: int) -> None:
        if deaths == self.deaths:
            self._is_lazy = False
            self._edge.recorder.is_urgent = not self._edge.recorder.is_empty
            self._flush()

    def _committed(self, deaths: int, number: int, batch: bytes) -> None:
        if deaths == self.deaths:  # else it was not on the disk yet
            self._is_committing = False
            self._journal.append(batch)
            self._edge.committed(number)
            self._journal.copy()
            self._flush()


@cache
def _is_sent(topic: str) -> bool:
    return topic_of(topic) in sent_topics()


def _packets(data: bytes) -> Iterator[tuple[mqtt5.Packet, bytes]]:
    """Yield each packet, and its bytes: here they come whole."""
    at = 0
    while at < len(data):
        packet, size = mqtt5.read(memoryview(data)[at:])
        yield packet, data[at : at + size]
        at += size
