"""The lower simulation: the real MQTT session against a model of the broker, byte by byte.

Between them a pipe that cuts the bytes into chunks, delays them, and breaks at any moment, also in
the middle of a packet; the broker may forget the session, and shrinks its Receive Maximum. Judged
from what went in and came out: every message reaches the other side, its outcome is told exactly
once, and nothing is acknowledged before the application has acknowledged it.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator

import mqtt5
from mqtt5 import PublishPacket, QoS

from broker.mqtt import Message
from broker.mqtt.framing import PacketDecoder
from broker.mqtt.outbound import Outcome, Publication
from broker.mqtt.session import Session
from broker.mqtt.session_events import Closed, PublishReceived, SessionConfig

_MESSAGES = 12  # each way
_STEPS = 160
_MOST_BYTES = 65_536


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
    """What an MQTT broker does with one client, and no more than that."""

    def __init__(self, rng: random.Random) -> None:
        self.accepted: Counter[bytes] = Counter()
        self.queue: deque[bytes] = deque()
        self.sent: dict[int, bytes] = {}
        self.acknowledged: list[bytes] = []
        self.trouble: list[str] = []
        self.handled: set[bytes] = set()  # what the application has acknowledged
        self._rng = rng
        self._last_id = 0
        self._knows_session = False
        self._connect()

    def _connect(self) -> None:
        self.subscribed = False
        self._decoder = PacketDecoder(1_048_576)
        self._window = self._rng.randint(1, 6)
        self._receive_maximum = 0
        self._in_flight: set[int] = set()

    def lose(self) -> None:
        """The connection has gone; what was sent will be sent again, in order."""
        self.queue.extendleft(reversed(self.sent.values()))
        self.sent.clear()
        self._connect()

    def forget(self) -> None:
        """Die, and come back without the session.

        What waits for the client stays: that it is asked for again is another layer's promise.
        """
        self._knows_session = False

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Yield the answers to these bytes."""
        for packet in self._decoder.packets(data):
            yield from self._answer(packet)

    def _answer(self, packet: mqtt5.Packet | int) -> Iterator[bytes]:
        if isinstance(packet, int):
            self._settle(packet)
        elif isinstance(packet, mqtt5.ConnectPacket):
            self._receive_maximum = packet.receive_max
            present, self._knows_session = self._knows_session, True
            yield mqtt5.ConnAckPacket(session_present=present, receive_max=self._window).write()
        elif isinstance(packet, mqtt5.SubscribePacket):
            self.subscribed = True
            granted = [mqtt5.SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE]
            yield mqtt5.SubAckPacket(packet.packet_id, granted).write()
        elif isinstance(packet, PublishPacket):
            yield from self._take(packet)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self.trouble.append(f"the session has left: {packet.reason_code.name}")

    def _take(self, packet: PublishPacket) -> Iterator[bytes]:
        number = packet.packet_id or 0
        if number in self._in_flight:
            self.trouble.append(f"packet id {number} was used twice")
        self._in_flight.add(number)
        if len(self._in_flight) > self._window:
            self.trouble.append(f"more than {self._window} messages in flight")
        self.accepted[packet.payload] += 1
        # The answer leaves at once: it is the pipe that may lose it.
        self._in_flight.discard(number)
        yield mqtt5.PubAckPacket(number).write()

    def _settle(self, number: int) -> None:
        payload = self.sent.pop(number, None)
        if payload is None:
            self.trouble.append(f"PUBACK of {number}, which is not open")
        elif payload not in self.handled:
            self.trouble.append(f"{payload!r} was acknowledged unasked")
        else:
            self.acknowledged.append(payload)

    def send(self) -> Iterator[bytes]:
        """Yield what may go out now."""
        while self.subscribed and self.queue and len(self.sent) < self._receive_maximum:
            self._last_id = self._last_id % 65_535 + 1
            payload = self.sent[self._last_id] = self.queue.popleft()
            packet = PublishPacket("t", payload, qos=QoS.AT_LEAST_ONCE, packet_id=self._last_id)
            yield packet.write()


class _Wire:
    """One seed: a session, a server, and the pipe between them."""

    def __init__(self, seed: int, session: type[Session]) -> None:
        self._rng = random.Random(seed)
        self._now = 0.0
        self._server = _Server(self._rng)
        self._session = session(
            SessionConfig(
                client_id="c",
                subscriptions=("t",),
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
        self._server.queue.extend(b"down %d" % number for number in range(_MESSAGES))
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
        elif dice < 0.5:
            self._carry_up()
        elif dice < 0.75:
            self._carry_down()
        elif self._in_hand:
            self._acknowledge(self._rng.randrange(len(self._in_hand)))

    def _publish(self) -> None:
        some = []
        for _ in range(min(self._rng.randint(1, 3), _MESSAGES - self._published)):
            payload = b"up %d" % self._published
            self._published += 1
            told = self._outcomes[payload] = []
            some.append(Publication(Message("t", payload), told.append))
        if self._rng.random() < 0.5:
            self._session.publish_batch(iter(some))
        else:
            for publication in some:
                self._session.publish(publication)

    def _carry_up(self) -> None:
        while data := self._session.take(self._now):
            self._up.write(data)
        for answer in self._server.receive(self._up.read()):
            self._down.write(answer)

    def _carry_down(self) -> None:
        for packet in self._server.send():
            self._down.write(packet)
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
        self._server.lose()
        self._up, self._down = _Pipe(self._rng), _Pipe(self._rng)
        if self._rng.random() < 0.3:
            self._server.forget()
        self._session.connect(self._now)

    def _settle(self) -> None:
        """No more breaks: everything comes to its end."""
        while self._published < _MESSAGES:
            self._publish()
        for _ in range(4_000):
            self._carry_up()
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
                yield f"{payload!r} never reached the MQTT broker"
        acknowledged = set(self._server.acknowledged)
        if missing := _MESSAGES - len(acknowledged):
            yield f"{missing} deliveries were never acknowledged"
        if unknown := set(self._received) - {b"down %d" % n for n in range(_MESSAGES)}:
            yield f"came from nowhere: {sorted(unknown)}"
