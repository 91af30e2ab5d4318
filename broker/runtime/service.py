"""How a service is declared: handlers bound to topics, events and intervals, returning effects.

    service = Service("alerting")

    @service.on(changes.INCIDENT_CHANGED)
    async def alert_nearby(change: IncidentChanged, ctx: Context) -> Effects: ...

A service never holds a connection. Handlers return what is to be published and what to record when
that is done; `broker/runtime/dispatch.py` does both, then acknowledges.
"""

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, overload
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from broker.core.changes import Change, EventKind, IncidentChanged, Interest
from broker.core.policy import Policy
from broker.core.zones import ZoneIndex
from broker.identity.principal import NOBODY, OWN_LEVEL, Principal
from broker.mqtt import Delivery, Message, PubAckReasonCode, ServerStatus
from broker.runtime.clock import Clock
from broker.store import Partitions, Store
from schemas import codec
from schemas.messages import Outcome, Receipt, Subject
from schemas.taxonomy import Desk
from schemas.topics import Topic

T = TypeVar("T")

_LOCKS = 1_021
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Zones:
    """Where a place belongs: to a police zone, and to a municipality."""

    police: ZoneIndex
    municipality: ZoneIndex


_CLOCK = Clock()


class Locks:
    """The locks of one worker by number, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __len__(self) -> int:
        return _LOCKS

    def __getitem__(self, number: int) -> asyncio.Lock:
        return self._made[number]


class Context(Struct, frozen=True, kw_only=True):
    """What a handler may use.

    `store` is the home partition, among `partitions`; `now` is when the message was taken up (UTC).
    `principal` is the sender of `message`, the MQTT message, where one is handled, `notes`
    what was odd in it, for its receipt; `received_at` is when it came in (`clock.monotonic`),
    `broker_index` the number of the MQTT broker that it came by. `servers` tell what the MQTT
    brokers say of themselves; `mqtt` is the one that it is about.
    """

    store: Store
    partitions: Partitions
    policy: Policy
    zones: Zones
    now: datetime
    principal: Principal = NOBODY
    message: Message | None = None
    received_at: float = 0.0
    locks: Locks = Locks()
    servers: Sequence[ServerStatus] = (ServerStatus(),)
    broker_index: int = 0
    notes: tuple[str, ...] = ()
    clock: Clock = _CLOCK

    def about(self, delivery: Delivery, principal: Principal, notes: tuple[str, ...]) -> "Context":
        """Return this context for one of several messages that are handled together."""
        message, received_at = delivery.message, delivery.received_at
        return replace(
            self, principal=principal, message=message, received_at=received_at, notes=notes
        )

    def exclusively(self, what: int) -> asyncio.Lock:
        """Return the lock of this worker for `what`: to queue for what could only fail together."""
        return self.locks[what % len(self.locks)]

    @property
    def mqtt(self) -> ServerStatus:
        """The MQTT broker that this is about."""
        return self.servers[self.broker_index]

    @property
    def user(self) -> str:
        """The sender, from the topic: the MQTT broker has checked it."""
        return self.principal.user

    @property
    def correlation(self) -> bytes | None:
        """What the sender wants back on its receipt (MQTT 5, 3.3.2.3.6)."""
        return self.message.correlation if self.message else None

    @property
    def is_expired(self) -> bool:
        """Whether the sender has said that by now nobody waits any more (MQTT 5, 3.3.2.3.3)."""
        expiry_s = self.message.expiry_s if self.message else None
        return expiry_s is not None and self.waited_s > expiry_s

    @property
    def waited_s(self) -> float:
        """How long ago the message came in."""
        return self.clock.monotonic() - self.received_at

    @property
    def digest(self) -> str:
        """A digest of the payload: tells a repeated message from another under the same id."""
        return hashlib.sha1(
            self.message.payload if self.message else b"", usedforsecurity=False
        ).hexdigest()

    @property
    def now_ms(self) -> int:
        """`now` in Unix milliseconds."""
        return int(self.now.timestamp() * 1000)

    @property
    def commit_ms(self) -> int:
        """The time of this moment in Unix milliseconds: in a burst `now` is long before a commit."""
        return int(self.clock.seconds() * 1000)

    def accepted(
        self, subject: Subject, message: UUID | None = None, incident: UUID | None = None
    ) -> Receipt:
        """Return the receipt of a message that is accepted, with what was odd in it."""
        return Receipt(
            subject=subject,
            outcome=Outcome.ACCEPTED,
            at=self.now,
            id=message,
            incident=incident,
            notes=self.notes,
        )


Record = Callable[[Sequence[PubAckReasonCode]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Effects:
    """What a handler wants done: messages to publish, then what to record of how that went.

    `record` gets the MQTT broker's reason code for each message, in order. `rest` is asked for more
    while they go out: so what is much is not held in hand, nor asked of Redis, all at once.
    """

    messages: Sequence[Message] = ()
    record: Record | None = None
    rest: "Callable[[], Awaitable[Effects]] | None" = None


NOTHING = Effects()


def outgoing(
    topic: Topic[Any],
    payload: Struct,
    *,
    expiry_s: int | None = None,
    correlation: bytes | None = None,
    broker_index: int | None = None,
    **levels: str,
) -> Message:
    """Return `payload` as a message on its topic, by one MQTT broker of several or all."""
    return Message(
        topic.topic(**levels),
        codec.encode(payload),
        qos=topic.qos,
        retain=topic.retain,
        expiry_s=expiry_s,
        correlation=correlation,
        broker_index=broker_index,
    )


Handler = Callable[[T, Context], Awaitable[Effects]]
BatchHandler = Callable[[Sequence[tuple[T, Context]]], Awaitable[Effects]]
Check = Callable[[T, Context], None]
Periodic = Callable[[Context], Awaitable[Effects]]


class Subscription(Struct, frozen=True):
    """A topic and its handler: one message at a time, or all that have come in.

    `moved_to` is the service that subscribes now (see `Service.hand_over`).
    """

    topic: Topic[Any]
    handler: Handler[Any] | None = None
    batch_handler: BatchHandler[Any] | None = None
    check: Check[Any] | None = None
    moved_to: str | None = None


class Service:
    """One microservice: a name and its handlers.

    Of the stream it reads up to `read_count` entries at a time, with so many `readers` a worker.
    With `gather_s` it leaves the processors to others for that long first, and handles what has
    come by then together: where a later entry often makes an earlier one superfluous. `niceness`
    (nice(2)) says who waits where processors are short: what a report and its escalation go through
    has the least.
    """

    def __init__(
        self,
        name: str,
        *,
        read_count: int = 32,
        readers: int = 4,
        gather_s: float = 0.0,
        niceness: int = 0,
    ) -> None:
        self.name = name
        self.read_count = read_count
        self.readers = readers
        self.gather_s = gather_s
        self.niceness = niceness
        self.subscriptions: list[Subscription] = []
        self._by_topic = re.compile("(?!)")  # the n-th group is the n-th subscription
        self.event_handlers: dict[type[Any], Handler[Any]] = {}
        self.interests: list[Interest] = []
        self.newest_of: dict[type[Any], Callable[[Any], Hashable]] = {}
        self.periodic: list[tuple[float, Periodic]] = []
        self.restorers: list[Periodic] = []

    @overload
    def on(self, source: Topic[T]) -> Callable[[Handler[T]], Handler[T]]: ...
    @overload
    def on(
        self, source: EventKind[T], *, newest_of: Callable[[T], Hashable] | None = None
    ) -> Callable[[Handler[T]], Handler[T]]: ...
    @overload
    def on(
        self,
        source: EventKind[IncidentChanged],
        *,
        changes: Collection[Change] = ...,
        desks: Collection[Desk] = ...,
        newest_of: Callable[[IncidentChanged], Hashable] | None = None,
    ) -> Callable[[Handler[IncidentChanged]], Handler[IncidentChanged]]: ...

    def on(
        self,
        source: Topic[T] | EventKind[T],
        *,
        changes: Collection[Change] = tuple(Change),
        desks: Collection[Desk] = tuple(Desk),
        newest_of: Callable[[T], Hashable] | None = None,
    ) -> Callable[[Handler[T]], Handler[T]]:
        """Handle each message on a topic, or each event of a kind.

        Of what happened to incidents a service is told the `changes` of those of these `desks`.
        With `newest_of`, of the events that are read together only the newest of each key is
        handled: for handlers that look at how things stand, not at what has happened.
        """

        def register(handler: Handler[T]) -> Handler[T]:
            if isinstance(source, Topic):
                self._subscribe(Subscription(source, handler=handler))
            else:
                if source.payload in self.event_handlers:
                    raise ValueError(f"{self.name}: two handlers of {source.payload.__name__}")
                self.event_handlers[source.payload] = handler
                self.interests.append(Interest(source.payload, changes, desks))
                if newest_of is not None:
                    self.newest_of[source.payload] = newest_of
            return handler

        return register

    def on_batch(
        self, topic: Topic[T], *, check: Check[T] | None = None
    ) -> Callable[[BatchHandler[T]], BatchHandler[T]]:
        """Handle the messages on a topic in batches of whatever has come in.

        `check`, if given, is asked for each message alone, and raises Rejected for its sender.
        """

        def register(handler: BatchHandler[T]) -> BatchHandler[T]:
            self._subscribe(Subscription(topic, batch_handler=handler, check=check))
            return handler

        return register

    def hand_over(self, topic: Topic[Any], to: "Service") -> None:
        """Leave a topic, which was this service's in an older release, to the service `to`.

        This one goes on handling what its sessions from then still hold
        (`broker/runtime/moved_topics.py`).
        """
        theirs = next(one for one in to.subscriptions if one.topic is topic)
        self._subscribe(replace(theirs, moved_to=to.name))

    def _subscribe(self, new: Subscription) -> None:
        """Add a subscription.

        Raises:
            ValueError: its topic is not for services, is another's too, or is of one partition
                where messages of all are handled together.
        """
        topic = new.topic
        if not topic.is_received:
            raise ValueError(f"{self.name}: {topic.template} is not received from a device or desk")
        if OWN_LEVEL.get(topic.sender) not in topic.levels:
            raise ValueError(
                f"{self.name}: {topic.template} does not say which {topic.sender} it is"
            )
        for other in self.subscriptions:
            if topic.overlaps(other.topic):
                raise ValueError(
                    f"{self.name}: a message on {topic.template} may be one on "
                    f"{other.topic.template}: two handlers would get it"
                )
        if new.batch_handler is not None and topic.partition is not None:
            raise ValueError(
                f"{self.name}: {topic.template} is handled in the partition of its "
                f"{topic.partition}: a batch may have messages of several"
            )
        self.subscriptions.append(new)
        self._by_topic = re.compile(
            "|".join(f"({one.topic.matcher})" for one in self.subscriptions)
        )

    def subscription(self, topic: str) -> Subscription | None:
        """Return the subscription by which a message on this MQTT topic comes, if there is one."""
        match = self._by_topic.fullmatch(topic)  # one for all: it is asked for each message
        return self.subscriptions[match.lastindex - 1] if match and match.lastindex else None

    def every(self, interval_s: float) -> Callable[[Periodic], Periodic]:
        """Run something again and again, `interval_s` after it ended the last time."""

        def register(handler: Periodic) -> Periodic:
            self.periodic.append((interval_s, handler))
            return handler

        return register

    def on_connect(self, handler: Periodic) -> Periodic:
        """Run something after each connection: the MQTT broker may be new, or have lost all."""
        self.restorers.append(handler)
        return handler


def traced(effects: Effects, cause: Message) -> Effects:
    """Pass the cause's `traceparent` on to its effects (W3C Trace Context, 3.2), if it is one."""
    trace = [
        (name, value)
        for name, value in cause.user_properties
        if name == "traceparent" and _TRACEPARENT.fullmatch(value)
    ][:1]
    if not trace:
        return effects
    messages = [replace(one, user_properties=tuple(trace)) for one in effects.messages]
    return Effects(messages, effects.record, effects.rest)
