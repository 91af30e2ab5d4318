"""A group of sessions that share a subscription: each message goes to one of them (section 4.8.2).

Messages wait in the group, not in its members: a member that is connected and has room gets the
next one, in turn, and what a member has not acknowledged when it leaves goes to another.
"""

from collections import deque
from collections.abc import Callable

from broker.edge.message import Message
from broker.edge.recorder import Recorder
from broker.edge.records import Holding, Key
from broker.edge.session import Delivery, Session
from broker.edge.subscriptions import Route, Subscription


class ShareGroup:
    """The sessions that subscribe to `key`, `$share/{name}/{pattern}`, and what waits for them."""

    def __init__(
        self,
        key: Key,
        *,
        max_queued_bytes: int,
        recorder: Recorder,
        on_drop: Callable[[], None],
    ) -> None:
        self.key = key
        self.queue: deque[Delivery] = deque()
        self._members: dict[Session, Subscription] = {}
        self._turns: deque[Session] = deque()
        self._queued_bytes = 0
        self._max_queued_bytes = max_queued_bytes
        self._recorder = recorder
        self._on_drop = on_drop

    def __len__(self) -> int:
        return len(self._members)

    def join(self, session: Session, subscription: Subscription) -> None:
        """Add a member, or change its options."""
        if session not in self._members:
            self._turns.append(session)
        self._members[session] = subscription
        self.pump()

    def leave(self, session: Session) -> None:
        """Remove a member; what it has not acknowledged stays with it.

        The last one gets all that waits, if it is connected: it is still to be delivered (3.10.4).
        """
        subscription = self._members.pop(session)
        for packet_id, lent in session.in_flight.items():
            if lent.group is self:
                session.own(lent, packet_id)
        self._turns.remove(session)
        if self._members or session.link is None:
            return
        waiting, self.queue = self.queue, deque()
        for delivery in waiting:
            _adapt(delivery, subscription)
            if delivery.qos:
                session.own(delivery)
                session.queue.append(delivery)
            else:
                self._drop(delivery.message)

    def offer(self, message: Message, route: Route, *, retain: bool) -> bool:
        """Queue a message for whichever member is next; False if there is no room for it."""
        qos = message.publish.qos
        if self._queued_bytes + message.size > self._max_queued_bytes:
            self._on_drop()
            return False
        if not qos:
            return self._offer_now(Delivery(message, qos, retain, (), group=self))
        self.restore(message, (qos, retain, route.identifiers, 0, False))
        self.pump()
        return True

    def _offer_now(self, delivery: Delivery) -> bool:
        """QoS 0 waits neither here nor for a place in a member's window."""
        member = self._next(Session.has_room)
        if member is None:
            self._on_drop()
            return False
        self._queued_bytes += delivery.message.size
        self._hand_to(member, delivery)
        return True

    def restore(self, message: Message, holding: Holding) -> None:
        """Queue a message; or: the journal has it for the group."""
        qos, retain, identifiers, *_ = holding
        message.holders[self.key] = holding
        self._queued_bytes += message.size
        self.queue.append(Delivery(message, qos, retain, identifiers, group=self))

    def pump(self) -> None:
        """Hand out what waits, to members in turn."""
        while self.queue:
            member = self._next(Session.is_free)
            if member is None:
                return
            delivery = self.queue.popleft()
            if member.is_expired(delivery):
                self.done(delivery.message)
            else:
                self._hand_to(member, delivery)

    def _next(self, is_able: Callable[[Session], bool]) -> Session | None:
        for _ in range(len(self._turns)):
            member = self._turns[0]
            self._turns.rotate(-1)
            if is_able(member):
                return member
        return None

    def _hand_to(self, member: Session, delivery: Delivery) -> None:
        _adapt(delivery, self._members[member])
        if delivery.qos:
            member.put_on_wire(delivery)
            return
        assert member.link is not None
        member.link.send(delivery, 0)
        self.done(delivery.message)

    def give_back(self, delivery: Delivery) -> None:
        """A member left without acknowledging this: it is next, for another."""
        if self._members:
            self.queue.appendleft(delivery)
        else:
            self._drop(delivery.message)

    def done(self, message: Message) -> None:
        """A member has acknowledged it, or it is that member's own now."""
        self._queued_bytes -= message.size
        self._recorder.done(self.key, message)

    def _drop(self, message: Message) -> None:
        self._on_drop()
        self.done(message)

    def clear(self) -> None:
        """The last member has left."""
        while self.queue:
            self._drop(self.queue.popleft().message)


def _adapt(delivery: Delivery, subscription: Subscription) -> None:
    delivery.qos = min(delivery.message.publish.qos, subscription.qos)
    delivery.retain = delivery.retain and subscription.as_published
    delivery.identifiers = subscription.identifiers
