"""Judges an MQTT broker by the packets that its clients sent and got, and by nothing else.

One with a journal promises two things, killed or not: what it has acknowledged reaches every
session that was subscribed, and a session that it has granted is there at the next connection.
Sessions are those that outlive their connection; a group that shares a subscription counts as one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import mqtt5

_SHARE = "$share/"
_MARGIN_S = 1.0  # between what a client saw of its last connection, and what the MQTT broker did
_UNDER_WAY_S = 20.0  # what was acknowledged later may still be on its way

_Content = tuple[str, bytes, bytes | None]  # topic, payload, correlation data


@lru_cache(maxsize=100_000)
def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter takes a topic (MQTT 5, 4.7)."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(
        one in ("+", level) for one, level in zip(wanted, levels, strict=True)
    )


@dataclass(eq=False)
class _Owner:
    """A session, or a group that shares a subscription: what has to reach it, and since when."""

    name: str
    due: Counter[_Content] = field(default_factory=Counter)
    due_since: dict[_Content, float] = field(default_factory=dict)


@dataclass(eq=False)
class SeenClient:
    """One network connection, as far as its packets tell."""

    is_open: Callable[[], bool]
    connect: mqtt5.ConnectPacket | None = None
    asked: dict[int, list[str]] = field(default_factory=dict)  # by packet id: filters
    sent: dict[int, tuple[_Content, Sequence[_Owner]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its client id."""
        return self.connect.client_id if self.connect is not None else ""


@dataclass(eq=False, kw_only=True)
class _SeenSession(_Owner):
    """A session that was granted; `client` is its last connection."""

    expiry_s: int
    client: SeenClient
    seen_at: float
    filters: dict[str, None] = field(default_factory=dict)
    had: Counter[_Content] = field(default_factory=Counter)


class WireJudge:
    """What the clients of one MQTT broker saw. `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._forgotten: list[str] = []
        self._sessions: dict[str, _SeenSession] = {}
        self._groups: dict[str, _Owner] = {}
        self._owners: dict[str, Sequence[_Owner]] = {}  # of what is published on a topic now
        self._had: Counter[_Content] = Counter()  # over all clients

    # -- what clients have sent, once it has reached the MQTT broker ------------------------------

    def received(self, client: SeenClient, packet: mqtt5.Packet) -> None:
        """A packet of a client has come."""
        match packet:
            case mqtt5.PublishPacket():
                self._published(client, packet)
            case mqtt5.ConnectPacket():
                client.connect = packet
                if packet.clean_start:
                    self._end(packet.client_id)
            case mqtt5.SubscribePacket():
                client.asked[packet.packet_id] = [one.pattern for one in packet.topic_filters]
            case mqtt5.UnsubscribePacket():
                self._unsubscribed(client.name, packet.patterns)
            case mqtt5.DisconnectPacket() if packet.session_expiry_interval == 0:
                self._end(client.name)

    def _published(self, client: SeenClient, packet: mqtt5.PublishPacket) -> None:
        if packet.packet_id and packet.message_expiry_interval is None:
            content = (packet.topic, packet.payload, packet.correlation_data)
            client.sent[packet.packet_id] = content, self._owners_of(packet.topic)

    def _owners_of(self, topic: str) -> Sequence[_Owner]:
        found = self._owners.get(topic)
        if found is None:
            sessions = [
                one
                for one in self._sessions.values()
                if any(matches(pattern, topic) for pattern in one.filters)
            ]
            groups = [
                one
                for pattern, one in self._groups.items()
                if matches(pattern.split("/", 2)[2], topic)
            ]
            found = self._owners[topic] = [*sessions, *groups]
        return found

    def _unsubscribed(self, name: str, filters: Sequence[str]) -> None:
        self._owners.clear()
        session = self._sessions.get(name)
        if session is None:
            return
        for pattern in filters:
            session.filters.pop(pattern, None)
            if not self._members(pattern):
                self._groups.pop(pattern, None)  # a group without members has ended

    def _members(self, pattern: str) -> list[_SeenSession]:
        return [one for one in self._sessions.values() if pattern in one.filters]

    def _end(self, name: str) -> None:
        session = self._sessions.get(name)
        if session is not None:
            self._unsubscribed(name, list(session.filters))
            del self._sessions[name]

    # -- what clients have got --------------------------------------------------------------------

    def delivered(self, client: SeenClient, packet: mqtt5.Packet) -> None:
        """A packet has reached a client."""
        session = self._sessions.get(client.name)
        if session is not None and session.client is client:
            session.seen_at = self._now()
        match packet:
            case mqtt5.PublishPacket():
                content = (packet.topic, packet.payload, packet.correlation_data)
                self._had[content] += 1
                if session is not None:
                    session.had[content] += 1
            case mqtt5.PubAckPacket():
                self._acknowledged(client, packet)
            case mqtt5.ConnAckPacket() if packet.reason_code.value == 0:
                self._connected(client, present=packet.session_present)
            case mqtt5.SubAckPacket() if session is not None and session.client is client:
                self._subscribed(session, packet)

    def _acknowledged(self, client: SeenClient, packet: mqtt5.PubAckPacket) -> None:
        found = client.sent.pop(packet.packet_id, None)
        if found is not None and packet.reason_code.value == 0:
            content, owners = found
            for owner in owners:
                owner.due[content] += 1
                owner.due_since[content] = self._now()

    def _connected(self, client: SeenClient, *, present: bool) -> None:
        assert client.connect is not None
        name, expiry_s = client.name, client.connect.session_expiry_interval
        before, now = self._sessions.get(name), self._now()
        if before is not None and not present:
            if now < before.seen_at + before.expiry_s - _MARGIN_S:
                self._forgotten.append(f"the session of {name} was forgotten")
            self._end(name)
            before = None
        if before is not None:
            before.expiry_s, before.client, before.seen_at = expiry_s, client, now
        elif expiry_s:
            self._sessions[name] = _SeenSession(name, expiry_s=expiry_s, client=client, seen_at=now)

    def _subscribed(self, session: _SeenSession, packet: mqtt5.SubAckPacket) -> None:
        self._owners.clear()
        asked = session.client.asked.pop(packet.packet_id, [])
        for pattern, code in zip(asked, packet.reason_codes, strict=True):
            if code.value in {1, 2}:  # of QoS 0 nothing is kept
                session.filters[pattern] = None
                if pattern.startswith(_SHARE):
                    self._groups.setdefault(pattern, _Owner(pattern))

    # -- the end ----------------------------------------------------------------------------------

    def violations(self) -> Iterator[str]:
        """Yield what was broken. Whoever is not connected at the end may still get everything."""
        yield from self._forgotten
        for session in self._sessions.values():
            if session.client.is_open():
                yield from self._lacking(session, session.had)
        for pattern, group in self._groups.items():
            if any(one.client.is_open() for one in self._members(pattern)):
                yield from self._lacking(group, self._had)

    def _lacking(self, owner: _Owner, had: Counter[_Content]) -> Iterator[str]:
        for content, count in owner.due.items():
            is_late = owner.due_since[content] < self._now() - _UNDER_WAY_S
            if is_late and had[content] < count:
                yield (
                    f"{owner.name} got {had[content]} of {count} acknowledged messages"
                    f" on {content[0]}"
                )
