"""The modelled MQTT broker: sessions, QoS 1, shared subscriptions, retained messages, expiry.

It forgets everything when it dies, as Mosquitto may. Each client has one link at a time: it keeps
the order of what it carries, delays it, and loses what is on its way when it is cut.
"""

# long: one MQTT broker and its clients, which share what a session is

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from broker.mqtt import Message, PubAckReasonCode
from verify.simulation.virtual_time import VirtualLoop
from verify.world.exercised import Exercised, sent_topics, topic_of

_SHARE = "$share/"
_UPTIME, _DROPPED = "$SYS/broker/uptime", "$SYS/broker/publish/messages/dropped"
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
    """What the MQTT broker keeps of a client; `client` is who has it now, or had it last."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        self.link: ModelLink | None = None
        self.plain: dict[str, None] = {}
        self.shared: dict[str, None] = {}
        self.waiting: deque[tuple[Message, float | None]] = deque()
        self.sent: OrderedDict[int, tuple[Message, float | None]] = OrderedDict()
        self.last_id = 0

    def subscribe(self, filters: Iterable[str]) -> None:
        """Add subscriptions, shared ones apart, without what says that they are."""
        for one in filters:
            if one.startswith(_SHARE):
                self.shared[one.split("/", 2)[2]] = None
            else:
                self.plain[one] = None

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Remove subscriptions."""
        for one in filters:
            if one.startswith(_SHARE):
                self.shared.pop(one.split("/", 2)[2], None)
            else:
                self.plain.pop(one, None)


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

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        delay: Callable[[], float],
        exercised: Exercised,
    ) -> None:
        self.loop = loop
        self.up = True
        self.retained: dict[str, Message] = {}
        self.deaths = 0
        self.delay = delay
        self.exercised = exercised
        self.swallowed: str | None = None  # the template of a topic on which nothing arrives
        self._rng = rng
        self._started_at = 0.0
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
        self.up, self._started_at = True, self.loop.now

    def forget(self, name: str) -> None:
        """Let the session of a client expire."""
        self._sessions.pop(name, None)

    def attach(self, client: "Client", link: ModelLink) -> bool:
        """Take a client in; return whether its session was still known."""
        session = self._sessions.get(client.name)
        if session is not None and session.link is not None:
            session.client.taken_over()
            session = self._sessions.get(client.name)
        if client.clean_start:
            session = None
        present = session is not None
        if session is None:
            session = self._sessions[client.name] = _Session(client)
        session.client, session.link = client, link
        return present

    def subscribe(self, client: "Client", filters: Sequence[str]) -> None:
        """Add subscriptions; send what is retained, then what has waited."""
        session = self._sessions[client.name]
        session.subscribe(filters)
        plain = [one for one in filters if not one.startswith(_SHARE)]
        for topic, message in self._told().items() if plain else ():
            if any(matches(pattern, topic) for pattern in plain):
                self._queue(session, message)
        self._drain(session)

    def unsubscribe(self, client: "Client", filters: Sequence[str]) -> None:
        """Remove subscriptions; what is queued stays."""
        self._sessions[client.name].unsubscribe(filters)

    def _told(self) -> dict[str, Message]:
        """Return what is retained, and what it tells of itself; it drops nothing that it tells of."""
        uptime_s = int(self.loop.now - self._started_at)
        told = {_UPTIME: f"{uptime_s} seconds", _DROPPED: "0"}
        tells = {topic: Message(topic, what.encode(), retain=True) for topic, what in told.items()}
        return tells | self.retained

    def leave(self, client: "Client", link: ModelLink) -> None:
        """A client says goodbye (DISCONNECT): its will is discarded."""
        session = self._sessions.get(client.name)
        if session is None or session.link is not link:
            return
        client.will = None
        self.detach(client, link)

    def detach(self, client: "Client", link: ModelLink) -> None:
        """A link is gone: what was not acknowledged will be delivered again, in order."""
        session = self._sessions.get(client.name)
        if session is None or session.link is not link:
            return
        session.link = None
        if not client.keeps_session:
            del self._sessions[client.name]
        if client.will is not None:
            self.publish(client.will)
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
        for session in list(self._sessions.values()):
            if any(matches(pattern, message.topic) for pattern in session.plain):
                taken = True
                self._give(session, message)
            for pattern in session.shared:
                if matches(pattern, message.topic):
                    groups.setdefault(pattern, []).append(session)
        for members in groups.values():
            # As Mosquitto: also to one without a connection, whose share waits for it.
            self._give(self._rng.choice(members), message)
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
    """One client over all its links.

    `on_message` gets each message with what acknowledges it. PUBACKs leave in the order of the
    messages, as `broker/mqtt/session.py` sends them.
    """

    will: Message | None = None
    clean_start = False
    keeps_session = True

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
        self.online = False
        self._broker = broker
        self._filters = filters
        self._loop = broker.loop
        self._rng = rng
        self._on_message = on_message
        self._on_online = on_online
        self._link: ModelLink | None = None
        self._epoch = 0
        self._dead = False
        self._number = 0
        self._online_at = 0.0
        self.session_present = False
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

    def taken_over(self) -> None:
        """Another client has connected under the same id."""
        self.cut()

    def _retry(self) -> None:
        self._loop.call_later(self._rng.uniform(0.01, _NOTICE_S + _RETRY_S), self._again)

    def _again(self) -> None:
        """Try again."""
        self.start()

    def _connect(self, link: ModelLink) -> None:
        if not self._broker.up:
            self.cut()
            return
        present = self._broker.attach(self, link)
        link.send(DOWN, lambda: self._connected(present))
        self._broker.subscribe(self, self._filters)

    def _connected(self, present: bool) -> None:  # noqa: FBT001 - as CONNACK has it
        self.session_present = present
        self.online, self._online_at = True, self._loop.unix()
        for number, (message, _) in self._unsettled.items():
            self._send(number, message)
        self._on_online()

    @property
    def heard(self) -> tuple[float, float] | None:
        """As in `broker.mqtt.Connection`; here nothing keeps a loss from being noticed at once."""
        return (self._online_at, self._loop.unix()) if self.online else None

    # -- publishing -------------------------------------------------------------------------------

    @staticmethod
    def tamper(message: Message) -> Sequence[Message]:
        """Return what is sent in the place of `message`: itself, but where a promise is broken."""
        return (message,)

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

    @property
    def unacknowledged(self) -> int:
        """Deliveries that are not all acknowledged."""
        return len(self._unacknowledged)

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
