"""Who is subscribed to what: plain subscriptions of sessions, and groups that share one."""

from collections.abc import Sequence
from typing import Protocol

from broker.edge.accounts import KNOWN_TOPIC_CHARS
from broker.edge.message import Message
from broker.edge.records import Key
from broker.edge.topic_tree import TopicTree

_KNOWN_TOPICS = 20_000  # whose routes are remembered

Options = tuple[int, bool, bool, int | None]  # maximum QoS, No Local, Retain As Published, id


class Receiver(Protocol):
    """A session, or a group that shares a subscription."""

    key: Key

    def offer(self, message: Message, route: "Route", *, retain: bool) -> bool:
        """Take a message to deliver; False if there is no room for it, or nobody to send it to."""


class Subscription:
    """One subscription with its options (section 3.8.3.1)."""

    __slots__ = ("as_published", "identifiers", "no_local", "owner", "qos")

    def __init__(
        self,
        owner: Receiver,
        qos: int,
        *,
        no_local: bool = False,
        as_published: bool = True,
        identifier: int | None = None,
    ) -> None:
        self.owner = owner
        self.qos = qos
        self.no_local = no_local
        self.as_published = as_published
        self.identifiers = () if identifier is None else (identifier,)

    @property
    def options(self) -> Options:
        """Return what has to be known of it."""
        return self.qos, self.no_local, self.as_published, next(iter(self.identifiers), None)


class Route:
    """All subscriptions of one receiver that match a topic: it gets one copy (3.3.4-2).

    With `no_local`, `of_own` is the route of what the receiver publishes itself, if it has any.
    """

    __slots__ = ("as_published", "identifiers", "no_local", "of_own", "owner", "qos")

    def __init__(self, owner: Receiver, subscriptions: Sequence[Subscription]) -> None:
        self.owner = owner
        self.qos = max(one.qos for one in subscriptions)
        heard = [one for one in subscriptions if not one.no_local]
        self.no_local = len(heard) < len(subscriptions)
        self.of_own = Route(owner, heard) if self.no_local and heard else None
        self.as_published = any(one.as_published for one in subscriptions)
        self.identifiers = tuple(sorted({id_ for one in subscriptions for id_ in one.identifiers}))


class SubscriptionTable:
    """All subscriptions; the routes of a topic are remembered until a subscription changes."""

    def __init__(self) -> None:
        self._tree: TopicTree[Subscription] = TopicTree()
        self._routes: dict[str, tuple[Route, ...]] = {}

    def __len__(self) -> int:
        return len(self._tree)

    def add(self, pattern: str, subscription: Subscription) -> None:
        """Add a subscription, or replace that of the same owner and pattern."""
        self._tree.put(pattern, subscription.owner.key, subscription)
        self._routes.clear()

    def remove(self, pattern: str, owner: Receiver) -> None:
        """Remove it."""
        self._tree.remove(pattern, owner.key)
        self._routes.clear()

    def routes(self, topic: str) -> tuple[Route, ...]:
        """Return who gets what is published on this topic."""
        found = self._routes.get(topic)
        if found is None:
            found = self._find(topic)
            if len(self._routes) >= _KNOWN_TOPICS:
                self._routes.clear()
            if len(topic) <= KNOWN_TOPIC_CHARS:
                self._routes[topic] = found
        return found

    def _find(self, topic: str) -> tuple[Route, ...]:
        by_owner: dict[Key, list[Subscription]] = {}
        for one in self._tree.matching(topic):
            by_owner.setdefault(one.owner.key, []).append(one)
        return tuple(Route(some[0].owner, some) for some in by_owner.values())
