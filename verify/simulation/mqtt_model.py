"""The modelled MQTT broker: sessions, QoS 1, shared subscriptions, retained messages, expiry.

It forgets everything when it dies, as Mosquitto may. Each client has one link at a time: it keeps
the order of what it carries, delays it, and loses what is on its way when it is cut.
"""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import lru_cache

from broker.mqtt import Message, PubAckReasonCode
from verify.simulation.virtual_time import VirtualLoop
from verify.world.exercised import Exercised, sent_topics, topic_of

_APART_S = 1e-6
_RETRY_S = 0.3  # a client tries again within so long
_NOTICE_S = 0.2  # and notices within so long that its link was cut

Outcome = asyncio.Future[PubAckReasonCode]


@lru_cache(maxsize=100_000)
def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter takes a topic (MQTT 5, 4.7)."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(
        one in ("+", level) for one, level in zip(wanted, levels, strict=True)
    )


class _Session:
    """What the MQTT broker keeps of a client."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        self.link: ModelLink | None = None
        self.waiting: deque[tuple[Message, float | None]] = deque()
        self.sent: OrderedDict[int, tuple[Message, float | None]] = OrderedDict()
        self.last_id = 0


class ModelLink:
    """One TCP connection: two directions, each in order."""

    def __init__(self, loop: VirtualLoop, delay: Callable[[], float]) -> None:
        self.alive = True
        self._loop = loop
        self._delay = delay
        self._there = [0.0, 0.0]

    def send(self, direction: int, arrive: Callable[[], None]) -> None:
        """Let `arrive` happen at the other end, unless the link is cut before."""
        at = max(self._loop.now + self._delay(), self._there[direction] + _APART_S)
        self._there[direction] = at
        self._loop.call_at(at, self._arrive, arrive)

    def _arrive(self, arrive: Callable[[], None]) -> None:
        if self.alive:
            arrive()


UP, DOWN = 0, 1


class MqttBroker:
    """One MQTT broker."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, delay: Callable[[], float]) -> None:
        self.loop = loop
        self.up = True
        self.retained: dict[str, Message] = {}
        self.deaths = 0
        self.delay = delay
        self.exercised = Exercised()
        self.swallowed: str | None = None  # the template of a topic on which nothing arrives
        self._rng = rng
        self._sessions: dict[str, _Session] = {}

    def kill(self) -> None:
        """Die, and forget everything."""
        self.up = False
        self.deaths += 1
        sessions, self._sessions, self.retained = self._sessions, {}, {}
        for session in sessions.values():
            if session.link:
                session.client.cut()

    def start(self) -> None:
        """Come back empty."""
        self.up = True

    def forget(self, name: str) -> None:
        """Let the session of a client expire."""
        self._sessions.pop(name, None)

    def attach(self, client: "Client", link: ModelLink) -> bool:
        """Take a client in; return whether its session was still known."""
        session = self._sessions.get(client.name)
        present = session is not None
        if session is None:
            session = self._sessions[client.name] = _Session(client)
        if session.link is not None:
            session.client.cut()
        session.client, session.link = client, link
        return present

    def subscribed(self, client: "Client") -> None:
        """Send what is retained, then what has waited."""
        for topic, message in self.retained.items():
            if any(matches(pattern, topic) for pattern in client.plain):
                self._queue(self._sessions[client.name], message)
        self._drain(self._sessions[client.name])

    def detach(self, client: "Client", link: ModelLink) -> None:
        """A link is gone: what was not acknowledged will be delivered again, in order."""
        session = self._sessions.get(client.name)
        if session is None or session.link is not link:
            return
        session.link = None
        session.waiting.extendleft(reversed(session.sent.values()))
        session.sent.clear()

    def publish(self, message: Message) -> PubAckReasonCode:
        """Route a message; return the reason code of its PUBACK (MQTT 5, 3.4.2.1)."""
        topic = topic_of(message.topic)
        if topic in sent_topics():
            self.exercised.take(message.topic, message.payload)
        if topic is not None and topic.template == self.swallowed:
            return PubAckReasonCode.SUCCESS
        if message.clears:
            self.retained.pop(message.topic, None)
        elif message.retain:
            self.retained[message.topic] = message
        return self._route(message)

    def _route(self, message: Message) -> PubAckReasonCode:
        taken = False
        groups: dict[str, list[_Session]] = {}
        for session in self._sessions.values():
            client = session.client
            if any(matches(pattern, message.topic) for pattern in client.plain):
                taken = True
                self._give(session, message)
            for pattern in client.shared:
                if matches(pattern, message.topic):
                    groups.setdefault(pattern, []).append(session)
        for members in groups.values():
            online = [session for session in members if session.link]
            self._give(self._rng.choice(online or members), message)
        if taken or groups:
            return PubAckReasonCode.SUCCESS
        return PubAckReasonCode.NO_MATCHING_SUBSCRIBERS

    def acknowledged(self, client: "Client", number: int) -> None:
        """A client has acknowledged a delivery."""
        session = self._sessions.get(client.name)
        if session is not None:
            session.sent.pop(number, None)

    def _give(self, session: _Session, message: Message) -> None:
        self._queue(session, message)
        if session.link:
            self._drain(session)

    def _queue(self, session: _Session, message: Message) -> None:
        lasts = message.expiry_s
        session.waiting.append((message, None if lasts is None else self.loop.now + lasts))

    def _drain(self, session: _Session) -> None:
        link, client = session.link, session.client
        assert link is not None
        while session.waiting:
            message, expires_at = session.waiting.popleft()
            if expires_at is not None and expires_at <= self.loop.now:
                continue
            session.last_id += 1
            number = session.last_id
            session.sent[number] = (message, expires_at)
            link.send(DOWN, lambda n=number, m=message: client.delivered(link, n, m))  # type: ignore[misc]


class Client:
    """One client over all its links; has what the dispatcher needs of `broker.mqtt.Connection`.

    `on_message` gets each message with what acknowledges it. PUBACKs leave in the order of the
    messages, as `broker/mqtt/session.py` sends them.
    """

    def __init__(
        self,
        broker: MqttBroker,
        rng: random.Random,
        name: str,
        *,
        filters: Sequence[str],
        on_message: Callable[[Message, int, int], None],
        on_online: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.plain = [one for one in filters if not one.startswith("$share/")]
        self.shared = [one.split("/", 2)[2] for one in filters if one.startswith("$share/")]
        self.online = False
        self.tamper: Callable[[Message], Sequence[Message]] = lambda message: (message,)
        self._broker = broker
        self._loop = broker.loop
        self._rng = rng
        self._on_message = on_message
        self._on_online = on_online
        self._link: ModelLink | None = None
        self._epoch = 0
        self._dead = False
        self._number = 0
        self._online_at = 0.0
        self._unsettled: OrderedDict[int, tuple[Message, Outcome]] = OrderedDict()
        self._unacknowledged: OrderedDict[int, bool] = OrderedDict()

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and again whenever the link has gone."""
        if self._dead or self._link is not None:
            return
        if not self._broker.up:
            self._retry()
            return
        link = self._link = ModelLink(self._loop, self._broker.delay)
        self._epoch += 1
        self._unacknowledged.clear()
        link.send(UP, lambda: self._connect(link))

    def die(self) -> None:
        """The process is gone: it says nothing more and hears nothing more."""
        self._dead = True
        self.cut()

    def cut(self) -> None:
        """The network connection breaks."""
        link, self._link = self._link, None
        self.online = False
        if link is None:
            return
        link.alive = False
        self._broker.detach(self, link)
        if not self._dead:
            self._retry()

    def _retry(self) -> None:
        self._loop.call_later(self._rng.uniform(0.01, _NOTICE_S + _RETRY_S), self.start)

    def _connect(self, link: ModelLink) -> None:
        if not self._broker.up:
            self.cut()
            return
        self._broker.attach(self, link)
        link.send(DOWN, self._connected)
        self._broker.subscribed(self)

    def _connected(self) -> None:
        self.online, self._online_at = True, self._loop.unix()
        for number, (message, _) in self._unsettled.items():
            self._send(number, message)
        self._on_online()

    @property
    def heard(self) -> tuple[float, float] | None:
        """As in `broker.mqtt.Connection`; here nothing keeps a loss from being noticed at once."""
        return (self._online_at, self._loop.unix()) if self.online else None

    # -- publishing -------------------------------------------------------------------------------

    def publish_nowait(self, message: Message) -> Outcome:
        """Publish; the future resolves with the PUBACK."""
        outcome: Outcome = self._loop.create_future()
        messages = self.tamper(message)
        for one in messages:
            self._number += 1
            self._unsettled[self._number] = (one, outcome)
            if self.online:
                self._send(self._number, one)
        if not messages:
            outcome.set_result(PubAckReasonCode.SUCCESS)
        return outcome

    async def publish(self, message: Message) -> PubAckReasonCode:
        """`publish_nowait`, awaited."""
        return await self.publish_nowait(message)

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        """Publish many."""
        return [await outcome for outcome in [self.publish_nowait(one) for one in messages]]

    def _send(self, number: int, message: Message) -> None:
        link = self._link
        assert link is not None
        link.send(UP, lambda: self._arrive(link, number, message))

    def _arrive(self, link: ModelLink, number: int, message: Message) -> None:
        reason = self._broker.publish(message)
        link.send(DOWN, lambda: self._settle(number, reason))

    def _settle(self, number: int, reason: PubAckReasonCode) -> None:
        found = self._unsettled.pop(number, None)
        if found is not None and not found[1].done():
            found[1].set_result(reason)

    # -- receiving --------------------------------------------------------------------------------

    def delivered(self, link: ModelLink, number: int, message: Message) -> None:
        """A message has come."""
        if link is self._link:
            self._unacknowledged[number] = False
            self._on_message(message, number, self._epoch)

    def acknowledge(self, number: int, epoch: int) -> None:
        """Send the PUBACK, once those before it are sent."""
        link = self._link
        if epoch != self._epoch or link is None or number not in self._unacknowledged:
            return
        self._unacknowledged[number] = True
        while self._unacknowledged:
            head = next(iter(self._unacknowledged))
            if not self._unacknowledged[head]:
                return
            del self._unacknowledged[head]
            link.send(UP, lambda n=head: self._broker.acknowledged(self, n))  # type: ignore[misc]
