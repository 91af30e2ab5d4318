"""Who a client is, what it may read and write, and how much of the MQTT broker it may use."""

from collections.abc import Callable
from dataclasses import dataclass, field

from broker.edge.topic_filters import covers

_KNOWN_TOPICS = 1000  # whose rights are remembered for each account …
_KNOWN_TOPICS_OF_SERVICES = 20_000  # … which write to everybody
KNOWN_TOPIC_CHARS = 200  # of a longer topic nothing is remembered


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """The bounds of one account, over all its clients.

    `connections` bounds its sessions, too: of more, the one that was disconnected first ends. In
    `queued_bytes` count what waits for its clients, and what it has had retained; in
    `publishes_per_s` PUBLISH packets, pings, and filters subscribed to and unsubscribed from.
    `turn_packets` is its share of a turn.
    """

    connections: int = 20
    subscriptions: int = 100
    retained: int = 100
    queued_bytes: int = 4 << 20
    publishes_per_s: float = 100.0
    turn_packets: int = 16


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The rights of an account: the filters that it may read and write. Services may share."""

    name: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    is_service: bool = False
    quotas: Quotas = field(default_factory=Quotas)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a client's CONNECT says about who it is."""

    client_id: str
    username: str | None
    password: bytes | None


Answer = Callable[[Grant | None], None]
Authenticate = Callable[[Credentials, Answer], None]  # answers at once or later; None: refused


class Account:
    """An account that has a session: its rights, and what it uses now."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.connections = 0
        self.subscriptions = 0
        self.sessions = 0
        self.retained = 0
        self.queued_bytes = 0  # and retained
        self.credit = grant.quotas.publishes_per_s  # PUBLISH packets; below 0 it has to wait
        self.known_topics: dict[str, bool] = {}  # whether it may write them
        self._credited_at = 0.0

    def renew(self, grant: Grant) -> None:
        """The account is authenticated again, perhaps with other rights."""
        if grant != self.grant:
            self.grant = grant
            self.known_topics.clear()

    def may_write(self, topic: str) -> bool:
        """Whether it may publish on this topic."""
        known = self.known_topics.get(topic)
        if known is None:
            known = any(covers(right, topic) for right in self.grant.writes)
            is_service = self.grant.is_service
            most = _KNOWN_TOPICS_OF_SERVICES if is_service else _KNOWN_TOPICS
            if len(self.known_topics) >= most:
                self.known_topics.clear()
            if len(topic) <= KNOWN_TOPIC_CHARS:
                self.known_topics[topic] = known
        return known

    def may_read(self, pattern: str) -> bool:
        """Whether it may read every topic that this filter matches."""
        return any(covers(right, pattern) for right in self.grant.reads)

    def may_retain(self, size: int) -> bool:
        """Whether it may have another message of this size retained."""
        quotas = self.grant.quotas
        return self.retained < quotas.retained and self.queued_bytes + size <= quotas.queued_bytes

    def wait_s(self, now: float) -> float:
        """Return for how long (s) the account, whose credit is used up, has to wait; 0: it has more.

        It saves what it does not use for a second.
        """
        rate = self.grant.quotas.publishes_per_s
        self.credit += min(1.0, now - self._credited_at) * rate
        wait_s = max(0.0, -self.credit / rate)
        self.credit = max(0.0, self.credit)
        self._credited_at = now + wait_s
        return wait_s
