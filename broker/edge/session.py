"""One client's session: what it subscribes to, and what is on its way to it (section 4.1)."""

# long: the states of a session, and what each packet changes in it

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from broker.edge.accounts import Account
from broker.edge.message import Message
from broker.edge.packets import Publish
from broker.edge.recorder import Recorder
from broker.edge.records import HeldRecord, Holding, Key, SessionRecord
from broker.edge.subscriptions import Route, Subscription

_MAX_PACKET_ID = 65535


class Lender(Protocol):
    """A group that shares a subscription, as far as a member knows it."""

    key: Key

    def pump(self) -> None:
        """Hand out what waits."""

    def done(self, message: Message) -> None:
        """A member has acknowledged it, or it is that member's own now."""

    def give_back(self, delivery: "Delivery") -> None:
        """A member left without acknowledging this."""


class Delivery(msgspec.Struct, eq=False):
    """A message on its way to one client; `group` lends it if it comes of a shared subscription.

    `is_released`, of QoS 2: PUBREC has come.
    """

    message: Message
    qos: int
    retain: bool
    identifiers: tuple[int, ...]
    group: Lender | None = None
    was_sent: bool = False
    is_released: bool = False


class Link(Protocol):
    """What a session needs of its network connection, which the simulation has too."""

    window: int
    has_room: bool  # more may be written now

    def send(self, delivery: Delivery, packet_id: int) -> bool:
        """Send a PUBLISH; False if it is larger than the client takes."""

    def release(self, packet_id: int) -> None:
        """Send a PUBREL."""


class Session:
    """A session over any number of network connections."""

    def __init__(
        self,
        number: int,
        account: Account,
        client_id: str,
        *,
        recorder: Recorder,
        clock: Callable[[], float],
        on_drop: Callable[[], None],
    ) -> None:
        self.key: Key = number
        self.account = account
        self.client_id = client_id
        self.expiry_s = 0
        self.expires_at: float | None = None
        self.due_at = math.inf  # when the MQTT broker looks at it next
        self.will: Publish | None = None
        self.will_delay_s = 0
        self.will_at: float | None = None
        self.link: Link | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.groups: dict[str, Lender] = {}
        self.queue: deque[Delivery] = deque()
        self.in_flight: dict[int, Delivery] = {}
        self.received: set[int] = set()  # packet ids of QoS 2 that the client has not released
        self.is_recorded = False  # the journal knows of it
        self._recorder = recorder
        self._clock = clock
        self._on_drop = on_drop
        self._resend: list[int] = []  # the last first
        self._on_wire = 0
        self._last_id = 0

    @property
    def is_kept(self) -> bool:
        """Whether the journal keeps it: it outlives its network connection."""
        return self.expiry_s > 0 and self._recorder.is_on

    def has_room(self) -> bool:
        """Whether QoS 0 can be sent right now, which takes no place in the window."""
        return self.link is not None and self.link.has_room

    def is_free(self) -> bool:
        """Whether it can be sent another message right now, and nothing waits before that."""
        link = self.link
        return (
            link is not None
            and self._on_wire < link.window
            and link.has_room
            and not self.queue
            and not self._resend
        )

    def record(self) -> SessionRecord:
        """Return what has to be known of it."""
        expires_at, will_at = (
            None if at is None else self._recorder.unix(at)
            for at in (self.expires_at, self.will_at)
        )
        return SessionRecord(
            self.key,
            self.account.grant.name,
            self.client_id,
            self.expiry_s,
            expires_at,
            self.will,
            self.will_delay_s,
            will_at,
        )

    # -- messages for this session ----------------------------------------------------------------

    def offer(self, message: Message, route: Route, *, retain: bool) -> bool:
        """Take a message; False if its queue is full, or QoS 0 cannot be sent at once."""
        qos = message.publish.qos and min(message.publish.qos, route.qos)
        keeps_flag = retain and route.as_published
        return self.take(message, qos, retain=keeps_flag, identifiers=route.identifiers)

    def take(
        self, message: Message, qos: int, *, retain: bool, identifiers: tuple[int, ...]
    ) -> bool:
        """Send a message, or queue it."""
        delivery = Delivery(message, qos, retain, identifiers)
        if not qos:
            if self.link is None:
                return False
            if not self.link.has_room:
                self._on_drop()
                return False
            if not self.link.send(delivery, 0):  # too large for the client: as if sent (3.1.2-25)
                self._on_drop()
            return True
        account, size = self.account, message.size
        if account.queued_bytes + size > account.grant.quotas.queued_bytes:
            self._drop_expired()
            if account.queued_bytes + size > account.grant.quotas.queued_bytes:
                self._on_drop()
                return False
        account.queued_bytes += size
        if self.expiry_s:
            message.holders[self.key] = (qos, retain, identifiers, 0, False)
        if self.is_free():
            self.put_on_wire(delivery)
        else:
            self.queue.append(delivery)
        return True

    def _drop_expired(self) -> None:
        """What waits longest, and is of no use any more, makes room."""
        while self.queue and self.is_expired(self.queue[0]):
            self._done(self.queue.popleft())

    def restore(self, message: Message, holding: Holding) -> None:
        """Take a message as the journal says: what went out with QoS 2 keeps its packet id (4.4)."""
        qos, retain, identifiers, packet_id, is_released = holding
        delivery = Delivery(message, qos, retain, identifiers)
        delivery.was_sent, delivery.is_released = packet_id > 0, is_released
        self.account.queued_bytes += message.size
        message.holders[self.key] = holding
        if packet_id:
            self.in_flight[packet_id] = delivery
        else:
            self.queue.append(delivery)

    def put_on_wire(self, delivery: Delivery) -> None:
        """Send it, and keep it until it is acknowledged."""
        packet_id = self._last_id + 1
        if packet_id > _MAX_PACKET_ID or packet_id in self.in_flight:
            packet_id = self._free_id()
        self._last_id = packet_id
        self.in_flight[packet_id] = delivery
        self._on_wire += 1
        if delivery.qos == 2 and self.expiry_s:
            self.own(delivery, packet_id)
        self._send(packet_id, delivery)

    def _free_id(self) -> int:
        packet_id = self._last_id
        while True:
            packet_id = packet_id % _MAX_PACKET_ID + 1
            if packet_id not in self.in_flight:
                return packet_id

    def own(self, delivery: Delivery, packet_id: int = 0) -> None:
        """No other session of its group may get it any more, also after a restart (4.8.2)."""
        group, delivery.group = delivery.group, None
        if self.expiry_s:
            self._hold(delivery, packet_id)
        if group is not None:
            self.account.queued_bytes += delivery.message.size
            group.done(delivery.message)

    def _hold(self, delivery: Delivery, packet_id: int) -> None:
        message, qos, identifiers = delivery.message, delivery.qos, delivery.identifiers
        sent_as = packet_id if qos == 2 else 0
        holding = (qos, delivery.retain, identifiers, sent_as, delivery.is_released)
        message.holders[self.key] = holding
        self._recorder.add(HeldRecord(self.key, message.number, holding))

    def _send(self, packet_id: int, delivery: Delivery) -> None:
        assert self.link is not None
        if self.link.send(delivery, packet_id):
            delivery.was_sent = True
        else:  # larger than the client takes: as if it were sent and acknowledged (3.1.2-25)
            self._on_drop()
            self._completed(packet_id)

    def pump(self) -> None:
        """Send what waits, as far as the window and the network connection allow."""
        link = self.link
        while link is not None and link.has_room:
            is_open = self._on_wire < link.window
            if self._resend and (is_open or self.in_flight[self._resend[-1]].is_released):
                self._send_again(link, self._resend.pop())
            elif is_open and self.queue:
                delivery = self.queue.popleft()
                if self.is_expired(delivery):
                    self._done(delivery)
                else:
                    self.put_on_wire(delivery)
            else:
                break
        for group in self.groups.values():
            group.pump()

    def _send_again(self, link: Link, packet_id: int) -> None:
        self._on_wire += 1
        delivery = self.in_flight[packet_id]
        if delivery.is_released:
            link.release(packet_id)
        else:
            self._send(packet_id, delivery)

    def is_expired(self, delivery: Delivery) -> bool:
        """Whether the message is of no use any more (3.3.2-5)."""
        expires_at = delivery.message.expires_at
        return expires_at is not None and expires_at <= self._clock()

    # -- what the client says about them ----------------------------------------------------------

    def acknowledged(self, packet_id: int, *, complete: bool = False) -> None:
        """Handle PUBACK, PUBCOMP (`complete`), or a PUBREC that refuses; ignore it if unexpected."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or packet_id in self._resend:
            return
        if complete == delivery.is_released:
            self._completed(packet_id)
            if self.queue or self._resend or self.groups:
                self.pump()

    def _completed(self, packet_id: int) -> None:
        self._on_wire -= 1
        self._done(self.in_flight.pop(packet_id))

    def _done(self, delivery: Delivery) -> None:
        if delivery.group is not None:
            delivery.group.done(delivery.message)
        else:
            self.account.queued_bytes -= delivery.message.size
            self._recorder.done(self.key, delivery.message)

    def qos_of(self, packet_id: int) -> int | None:
        """Return the QoS of what has this packet id; None if nothing has."""
        delivery = self.in_flight.get(packet_id)
        return None if delivery is None else delivery.qos

    def release(self, packet_id: int) -> None:
        """PUBREC has come: from now on only PUBREL is sent (4.3.3)."""
        delivery = self.in_flight[packet_id]
        if not delivery.is_released:
            delivery.is_released = True
            if self.expiry_s:
                self._hold(delivery, packet_id)

    # -- its network connection -------------------------------------------------------------------

    def attach(self, link: Link) -> None:
        """It has a network connection: what was sent and not acknowledged is sent again (4.4).

        PUBRELs first: they do not wait for the window (3.3.4-10).
        """
        self.link = link
        self.expires_at = self.will_at = None
        self._on_wire = 0
        ids = sorted(self.in_flight, key=lambda one: not self.in_flight[one].is_released)
        self._resend = ids[::-1]

    def detach(self) -> None:
        """It has none any more: others of the group get what was not acknowledged."""
        self.link = None
        now = self._clock()
        self.expires_at = now + self.expiry_s
        if self.will is not None:
            self.will_at = now + min(self.will_delay_s, self.expiry_s)
        self._on_wire = 0
        self._resend.clear()
        for packet_id, delivery in reversed([*self.in_flight.items()]):
            if delivery.group is not None and delivery.qos < 2:
                del self.in_flight[packet_id]
                delivery.group.give_back(delivery)
        for group in self.groups.values():
            group.pump()

    def clear(self) -> None:
        """The session ends: what is on its way to it is dropped."""
        for delivery in (*self.queue, *self.in_flight.values()):
            self._done(delivery)
        self.queue.clear()
        self.in_flight.clear()
