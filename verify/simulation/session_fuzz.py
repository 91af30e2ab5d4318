"""The lower simulation: a real MQTT session and our own MQTT broker, byte by byte.

Between them a pipe that cuts the bytes into chunks, delays them, and breaks at any moment, also in
the middle of a packet; the broker is killed, with its journal or without, and changes its Receive
Maximum. Judged from what went in and came out: every message reaches the other side, its outcome is
told exactly once, and nothing is acknowledged before the application has acknowledged it.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator

import mqtt5
from mqtt5 import ConnectPacket, PubAckPacket, PublishPacket, QoS, SubscribePacket, TopicFilter

from broker.edge.accounts import Grant, Quotas
from broker.edge.connection import Connection
from broker.edge.edge_broker import EdgeBroker
from broker.edge.limits import Limits
from broker.edge.recorder import Recorder
from broker.mqtt import Message
from broker.mqtt.framing import PacketDecoder
from broker.mqtt.outbound import Outcome, Publication
from broker.mqtt.session import Session
from broker.mqtt.session_events import Closed, PublishReceived, SessionConfig
from verify.simulation.memory_journal import Files, MemoryJournal

_MESSAGES = 12  # each way
_STEPS = 160
_TURN = 1_000  # packets
_MOST_BYTES = 65_536
_AGES_S = 86_400
_ALL = Grant(name="all", reads=("#",), writes=("#",), quotas=Quotas(publishes_per_s=1e6))


def simulate_wires(seeds: Iterable[int], session: type[Session] = Session) -> list[str]:
    """Return what was broken, with its seed."""
    return [f"wire seed {seed}: {what}" for seed in seeds for what in _Wire(seed, session).run()]


class _Pipe:
    """One direction: chunks in order, handed over in pieces of any size."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bytes = bytearray()

    def write(self, data: bytes) -> None:
        self._bytes += data

    def read(self) -> bytes:
        size = self._rng.choice((1, 3, 17, 400, _MOST_BYTES))
        data = bytes(self._bytes[:size])
        del self._bytes[:size]
        return data

    def __len__(self) -> int:
        return len(self._bytes)


class _Server:
    """The MQTT broker, a peer who publishes on `down` and hears `up`, and a look at the wire."""

    def __init__(self, rng: random.Random, now: Callable[[], float]) -> None:
        self.accepted: Counter[bytes] = Counter()  # of what came up to the peer
        self.acknowledged: list[bytes] = []  # of what went down
        self.trouble: list[str] = []
        self.handled: set[bytes] = set()  # what the application has acknowledged
        self._rng = rng
        self._now = now
        self._files: Files = []
        self._left = deque(b"down %d" % number for number in range(_MESSAGES))
        self._taken: list[bytes] = []  # the MQTT broker has acknowledged them to the peer
        self._begin()

    # -- its lives --------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._window = self._rng.randint(1, 6)
        self._edge = EdgeBroker(
            authenticate=lambda _, answer: answer(_ALL),
            clock=self._now,
            name=lambda: "unnamed",
            limits=Limits(receive_maximum=self._window),
            recorder=Recorder(0.0),
        )
        self._journal = MemoryJournal(self._edge, self._files)
        self._journal.recover()
        self._peer = self._edge.open()
        self._publishing: bytes | None = None
        self._say(ConnectPacket("peer", session_expiry_interval=_AGES_S))
        self._say(SubscribePacket(1, [TopicFilter("up", max_qos=QoS.AT_LEAST_ONCE)]))
        self.connect()

    def connect(self) -> None:
        """The client has a connection."""
        self._connection: Connection = self._edge.open()
        self._up, self._down = PacketDecoder(_MOST_BYTES), PacketDecoder(_MOST_BYTES)
        self._in_flight: set[int] = set()
        self._sent: dict[int, bytes] = {}
        self._is_subscribed = False

    def lose(self) -> None:
        """The client's connection has broken."""
        self._connection.lost()
        self.connect()

    def kill(self) -> None:
        """Die, and come back with what was committed: what the peer was told is not lost."""
        if self._publishing is not None:
            self._left.appendleft(self._publishing)
        self._begin()

    def forget(self) -> None:
        """Die, and come back without a journal: the peer knows what the client has not confirmed."""
        self._left.extendleft(one for one in self._taken if one not in self.acknowledged)
        self._taken.clear()
        self._files.clear()
        self.kill()

    def commit(self) -> None:
        """All that has happened is in the journal."""
        number, batch = self._edge.recorder.number, self._edge.recorder.take()
        if batch:
            self._journal.append(batch)
            self._edge.committed(number)
            self._journal.copy()
        self._listen()

    # -- the peer ---------------------------------------------------------------------------------

    def _say(self, packet: mqtt5.Packet) -> None:
        self._peer.feed(packet.write())
        self._peer.turn(_TURN)

    def _listen(self) -> None:
        data = _written_by(self._peer)
        for packet in PacketDecoder(_MOST_BYTES).packets(data):
            if isinstance(packet, PublishPacket):
                self.accepted[packet.payload] += 1
                self._say(PubAckPacket(packet.packet_id or 0))
            elif isinstance(packet, int) and self._publishing is not None:
                self._taken.append(self._publishing)
                self._publishing = None
        if self._is_subscribed and self._publishing is None and self._left:
            self._publishing = self._left.popleft()
            self._say(PublishPacket("down", self._publishing, qos=QoS.AT_LEAST_ONCE, packet_id=1))

    # -- the wire ---------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes of the client have come."""
        for packet in self._up.packets(data):
            if isinstance(packet, int):
                self._settle(packet)
            elif isinstance(packet, PublishPacket):
                self._take(packet)
            elif isinstance(packet, mqtt5.DisconnectPacket):
                self.trouble.append(f"the session has left: {packet.reason_code.name}")
        self._connection.feed(data)
        self._connection.turn(_TURN)
        self._listen()

    def _take(self, packet: PublishPacket) -> None:
        number = packet.packet_id or 0
        if number in self._in_flight:
            self.trouble.append(f"packet id {number} was used twice")
        self._in_flight.add(number)
        if len(self._in_flight) > self._window:
            self.trouble.append(f"more than {self._window} messages in flight")

    def _settle(self, number: int) -> None:
        payload = self._sent.pop(number, None)
        if payload is None:
            self.trouble.append(f"PUBACK of {number}, which is not open")
        elif payload not in self.handled:
            self.trouble.append(f"{payload!r} was acknowledged unasked")
        else:
            self.acknowledged.append(payload)

    def send(self) -> bytes:
        """Return what goes to the client."""
        self._listen()
        data = _written_by(self._connection)
        for packet in self._down.packets(data):
            if isinstance(packet, int):
                self._in_flight.discard(packet)
            elif isinstance(packet, PubAckPacket):
                self._in_flight.discard(packet.packet_id)
            elif isinstance(packet, PublishPacket):
                self._sent[packet.packet_id or 0] = packet.payload
            elif isinstance(packet, mqtt5.SubAckPacket):
                self._is_subscribed = True
        return data


def _written_by(connection: Connection) -> bytes:
    """Return what the MQTT broker has written; then it reads on, where it had stopped."""
    data = connection.take()
    connection.drained()
    connection.turn(_TURN)
    return data


class _Wire:
    """One seed: a session, a server, and the pipe between them."""

    def __init__(self, seed: int, session: type[Session]) -> None:
        self._rng = random.Random(seed)
        self._now = 0.0
        self._server = _Server(self._rng, lambda: self._now)
        self._session = session(
            SessionConfig(
                client_id="c",
                subscriptions=("down",),
                window=self._rng.randint(1, 5),
                receive_maximum=self._rng.randint(1, 5),
                keep_alive_s=0,
            )
        )
        self._up, self._down = _Pipe(self._rng), _Pipe(self._rng)
        self._outcomes: dict[bytes, list[Outcome]] = {}
        self._received: Counter[bytes] = Counter()
        self._in_hand: list[PublishReceived] = []
        self._trouble: list[str] = []
        self._published = 0

    def run(self) -> list[str]:
        """Live it through; return what was broken."""
        self._session.connect(self._now)
        for _ in range(_STEPS):
            self._step(self._rng.random())
        self._settle()
        return [*self._trouble, *self._server.trouble, *self._judge()]

    def _step(self, dice: float) -> None:
        self._now += 0.01
        if dice < 0.03:
            self._break()
        elif dice < 0.25:
            self._publish()
        elif dice < 0.45:
            self._carry_up()
        elif dice < 0.6:
            self._server.commit()
        elif dice < 0.8:
            self._carry_down()
        elif self._in_hand:
            self._acknowledge(self._rng.randrange(len(self._in_hand)))

    def _publish(self) -> None:
        some = []
        for _ in range(min(self._rng.randint(1, 3), _MESSAGES - self._published)):
            payload = b"up %d" % self._published
            self._published += 1
            told = self._outcomes[payload] = []
            some.append(Publication(Message("up", payload), told.append))
        if self._rng.random() < 0.5:
            self._session.publish_batch(iter(some))
        else:
            for publication in some:
                self._session.publish(publication)

    def _carry_up(self) -> None:
        while data := self._session.take(self._now):
            self._up.write(data)
        self._server.receive(self._up.read())

    def _carry_down(self) -> None:
        self._down.write(self._server.send())
        if not self._down:
            return
        for event in self._session.receive(self._down.read(), self._now):
            if isinstance(event, PublishReceived):
                self._received[event.message.payload] += 1
                self._in_hand.append(event)
            elif isinstance(event, Closed):
                self._trouble.append(f"the session gave up: {event.error}")

    def _acknowledge(self, position: int) -> None:
        event = self._in_hand.pop(position)
        self._server.handled.add(event.message.payload)
        self._session.acknowledge(event.packet_id, event.epoch)

    def _break(self) -> None:
        """Whatever is on its way is lost, on both sides."""
        self._session.lost()
        self._up, self._down = _Pipe(self._rng), _Pipe(self._rng)
        server = self._server
        self._rng.choice((server.lose, server.lose, server.kill, server.forget))()
        self._session.connect(self._now)

    def _settle(self) -> None:
        """No more breaks: everything comes to its end."""
        while self._published < _MESSAGES:
            self._publish()
        for _ in range(4_000):
            self._carry_up()
            self._server.commit()
            self._carry_down()
            while self._in_hand:
                self._acknowledge(0)
            if self._session.is_idle and len(set(self._server.acknowledged)) == _MESSAGES:
                return

    def _judge(self) -> Iterator[str]:
        for payload, told in self._outcomes.items():
            if len(told) != 1:
                yield f"{payload!r} has {len(told)} outcomes"
            if not self._server.accepted[payload]:
                yield f"{payload!r} never reached the peer"
        acknowledged = set(self._server.acknowledged)
        if missing := _MESSAGES - len(acknowledged):
            yield f"{missing} deliveries were never acknowledged"
        if unknown := set(self._received) - {b"down %d" % n for n in range(_MESSAGES)}:
            yield f"came from nowhere: {sorted(unknown)}"
