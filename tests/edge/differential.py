"""Random legal sequences of two to five clients, at our MQTT broker and at a real Mosquitto.

Run many with `python -m tests.edge.differential_run --sequences 5000`.
"""

# long: each step of a client, and what is compared after it

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import mqtt5
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from mqtt5 import PublishPacket, TopicFilter

from tests.edge.differences import Comparison
from tests.edge.differential_clients import (
    QOS,
    V5,
    V311,
    Answer,
    Delivered,
    Endpoint,
    Event,
    Name,
    Pair,
    at_mosquitto,
    at_ours,
)
from tests.edge.differential_steps import (
    CLIENTS,
    FILTERS,
    JOBS,
    KEPT_S,
    LARGE,
    MAX_WINDOW,
    OPTIONS_OF_311,
    TOPICS,
    max_packets,
    publications,
    rarely,
    subscriptions,
    topics,
    whom,
    wills,
    windows,
)
from tests.edge.wire import Wire

_NOBODY = 16


class Differential(RuleBasedStateMachine):
    """The sequences. `port` is Mosquitto's; `comparison` goes on over all of them."""

    port: int
    comparison = Comparison()
    used = len(CLIENTS)  # of which the last sequence may have left something
    instead_of: Mapping[str, str] = {}  # filters
    has_windows = True

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire()
        self.pairs: list[Pair] = []
        self.messages = 0
        self.has_failed = False
        self.published: Name = ("", b"")
        self.unheard: set[Name] = set()  # of which PUBACK said that nobody gets it

    @initialize(
        versions=st.lists(st.sampled_from([V5, V5, V311]), min_size=2, max_size=5),
        first=st.lists(subscriptions, min_size=5, max_size=5),
    )
    def begin(self, versions: list[int], first: list[list[dict[str, Any]]]) -> None:
        """Connect all clients, with sessions that are kept and some subscriptions."""
        clean_up(self.port, CLIENTS[: Differential.used])
        self.comparison.sequences += 1
        Differential.used = len(versions)
        self.pairs = [
            Pair(name, version, at_ours(self.wire, version), at_mosquitto(self.port, version))
            for name, version in zip(CLIENTS, versions, strict=False)
        ]
        for pair, asked in zip(self.pairs, first, strict=False):
            pair.is_kept = True
            self._come_back(pair)
            for identifier, one in enumerate(asked, 1):
                self._subscribe(pair, [one], identifier)
        self._begin_with(self.pairs[:2])

    def _begin_with(self, some: list[Pair]) -> None:
        """Do what all sequences of a kind begin with."""

    # -- steps ------------------------------------------------------------------------------------

    @rule(
        who=whom,
        clean_start=rarely,
        kept_s=st.sampled_from([KEPT_S, KEPT_S, KEPT_S, 0]),
        will=wills,
        window=windows,
        max_bytes=max_packets,
    )
    def connect(  # noqa: PLR0917 - what CONNECT says
        self,
        who: int,
        clean_start: bool,  # noqa: FBT001 - drawn by name
        kept_s: int,
        will: dict[str, Any] | None,
        window: int,
        max_bytes: int | None,
    ) -> None:
        pair = self.pairs[who % len(self.pairs)]
        if clean_start or not pair.is_kept:
            pair.collected.clear()
        options: dict[str, Any] = {}
        window = window if self.has_windows else MAX_WINDOW
        if pair.version == V5:
            options = {
                "session_expiry_interval": kept_s,
                "receive_max": window,
                "max_packet_size": max_bytes,
            }
        if pair.is_connected and pair.has_will:
            self._leave(pair, None)  # differences.toml, will-at-takeover
        packet = mqtt5.ConnectPacket(
            pair.client_id,
            clean_start=clean_start,
            will=None if will is None else self._will(pair, will),
            **options,
        )
        pair.is_kept = bool(kept_s) if pair.version == V5 else not clean_start
        pair.has_will = will is not None
        pair.aliases.clear()
        if pair.version == V5 and window < MAX_WINDOW:
            pair.is_windowed = True
            pair.dropped |= _larger(pair.theirs.unacknowledged(), max_bytes)
        self._connect(pair, packet)

    @precondition(lambda self: self.connected())
    @rule(who=whom, sent=st.lists(publications, min_size=1, max_size=4))
    def publish(self, who: int, sent: list[dict[str, Any]]) -> None:
        pair = self._connected(who)
        for one in sent:
            packet = self._publication(pair, **one)
            self.published = (one["topic"], packet.payload)
            self._step(pair, lambda one, packet=packet: one.publish(packet))

    @precondition(lambda self: self._that_stay())
    @rule(who=whom, topic=topics)
    def publish_twice(self, who: int, topic: str) -> None:
        """Break off between PUBLISH and PUBREL, and send it again (4.4)."""
        some = self._that_stay()
        pair = some[who % len(some)]
        first, again = (
            PublishPacket(topic, payload, qos=QOS[2], packet_id=packet_id, duplicate=duplicate)
            for payload, packet_id in [(self._payload(), pair.next_id())]
            for duplicate in (False, True)
        )
        options = {"session_expiry_interval": KEPT_S} if pair.version == V5 else {}

        def act(one: Endpoint) -> None:
            acknowledge_all(one)
            one.send(first)
            acknowledge_all(
                one
            )  # ours may have delivered it: differences.toml, exactly-once-at-once
            one.leave(None)
            one.connect(mqtt5.ConnectPacket(pair.client_id, **options))
            one.publish(again)
            acknowledge_all(one)

        pair.has_will = False
        pair.aliases.clear()
        self.published = (topic, first.payload)
        self._disturb(pair, is_kept=pair.is_kept)
        self._step(pair, act, is_queued=True)

    def _that_stay(self) -> list[Pair]:
        some = [pair for pair in self.connected() if pair.is_kept and not pair.is_windowed]
        return [pair for pair in some if not pair.has_will]

    @precondition(lambda self: self.connected())
    @rule(who=whom, asked=subscriptions, identifier=st.sampled_from([None, 1, 2, 300]))
    def subscribe(self, who: int, asked: list[dict[str, Any]], identifier: int | None) -> None:
        self._subscribe(self._connected(who), asked, identifier)

    def _subscribe(self, pair: Pair, asked: list[dict[str, Any]], identifier: int | None) -> None:
        if pair.version == V311:
            identifier = None
            asked = [{**one, **OPTIONS_OF_311} for one in asked]
        asked = [self._allowed(pair, **one) for one in asked]
        asked = list(
            {one["pattern"]: one for one in asked}.values()
        )  # differences.toml, named-twice
        packet = mqtt5.SubscribePacket(
            pair.next_id(), [TopicFilter(**one) for one in asked], subscription_id=identifier
        )
        self._step(pair, lambda one: one.send(packet))

    def _allowed(self, pair: Pair, *, pattern: str, **options: Any) -> dict[str, Any]:
        """Return a subscription that the differences leave in."""
        pattern = self.instead_of.get(pattern, pattern)
        always = {name: options[name] for name in ("no_local", "retain_as_published")}
        fixed = pair.options.setdefault(pattern, always)  # differences.toml, resubscribed
        return {"pattern": pattern, **options, **fixed}

    @precondition(lambda self: self.connected())
    @rule(who=whom, patterns=st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3))
    def unsubscribe(self, who: int, patterns: list[str]) -> None:
        pair = self._connected(who)
        packet = mqtt5.UnsubscribePacket(pair.next_id(), patterns)
        self._step(pair, lambda one: one.send(packet))

    @precondition(lambda self: self.connected())
    @rule(who=whom, which=st.integers(0, 5), is_partial=st.booleans())
    def acknowledge(self, who: int, which: int, is_partial: bool) -> None:  # noqa: FBT001 - drawn by name
        pair = self._connected(who)
        others = held_by(pair.theirs)
        names = [name for name in held_by(pair.ours) if name in others and not is_shared(name)]
        if names:
            name = names[which % len(names)]
            self._step(pair, lambda one: one.acknowledge(name, is_partial=is_partial))

    @precondition(lambda self: self.connected())
    @rule(who=whom, has_will=st.booleans(), kept_s=st.sampled_from([None, None, KEPT_S, 0]))
    def disconnect(self, who: int, has_will: bool, kept_s: int | None) -> None:  # noqa: FBT001 - drawn by name
        pair = self._connected(who)
        if pair.version == V311 or (kept_s and not pair.is_kept):
            kept_s = None
        reasons = mqtt5.DisconnectReasonCode
        reason = (
            reasons.DISCONNECT_WITH_WILL_MESSAGE
            if has_will and pair.version == V5
            else reasons.NORMAL_DISCONNECTION
        )
        if kept_s is not None:
            pair.is_kept = bool(kept_s)
        self._leave(
            pair, mqtt5.DisconnectPacket(reason_code=reason, session_expiry_interval=kept_s)
        )

    @precondition(lambda self: self.connected())
    @rule(who=whom)
    def break_off(self, who: int) -> None:
        self._leave(self._connected(who), None)

    # -- how ----------------------------------------------------------------------------------------

    def connected(self) -> list[Pair]:
        """Return the clients that are connected."""
        return [pair for pair in self.pairs if pair.is_connected]

    def _disturb(self, pair: Pair, *, is_kept: bool) -> None:
        """Its connection begins or ends, and its session goes on or not."""

    def _connect(self, pair: Pair, packet: mqtt5.ConnectPacket) -> None:
        self._disturb(pair, is_kept=not packet.clean_start)
        pair.is_connected = True
        self._step(pair, lambda one: one.connect(packet), is_queued=True)

    def _come_back(self, pair: Pair) -> None:
        options = {"session_expiry_interval": KEPT_S} if pair.version == V5 else {}
        self._connect(pair, mqtt5.ConnectPacket(pair.client_id, **options))

    def _connected(self, who: int) -> Pair:
        some = self.connected()
        return some[who % len(some)]

    def _publication(
        self, pair: Pair, *, alias: int | None, properties: dict[str, Any], **options: Any
    ) -> PublishPacket:
        topic, qos = options.pop("topic"), options["qos"]
        is_empty, is_large = options.pop("is_empty"), options.pop("is_large")
        if pair.version == V311:
            properties = {}
        elif alias is not None:
            properties = {**properties, "topic_alias": alias}
            if pair.aliases.get(alias) == topic:
                topic = ""
            else:
                pair.aliases[alias] = topic
        return PublishPacket(
            topic,
            b"" if is_empty else self._payload(is_large=is_large),
            packet_id=pair.next_id() if qos.value else None,
            **properties,
            **options,
        )

    def _payload(self, *, is_large: bool = False) -> bytes:
        self.messages += 1
        return str(self.messages).encode() + (LARGE if is_large else b"")

    def _will(self, pair: Pair, will: dict[str, Any]) -> mqtt5.Will:
        options = dict(will)
        properties = options.pop("properties") if pair.version == V5 else {}
        options.pop("properties", None)
        return mqtt5.Will(payload=self._payload(), **options, **properties)

    def _leave(self, pair: Pair, packet: mqtt5.DisconnectPacket | None) -> None:
        self._disturb(pair, is_kept=pair.is_kept)
        pair.is_connected = False
        if not pair.is_kept:
            pair.collected.clear()  # what its window kept back is gone
        self._step(pair, lambda one: one.leave(packet))

    def _step(
        self, actor: Pair, act: Callable[[Endpoint], None], *, is_queued: bool = False
    ) -> None:
        """Have one client do the same at both, wait until all of it has come, and compare."""
        self._step_of([actor], act, is_queued=is_queued)

    def _step_of(
        self, actors: list[Pair], act: Callable[[Endpoint], None], *, is_queued: bool = False
    ) -> None:
        self.has_failed = True
        self.comparison.steps += 1
        for of in (attrgetter("ours"), attrgetter("theirs")):
            for pair in actors:
                act(of(pair))
            for pair in self.pairs:
                of(pair).ping()
            for pair in self.pairs:
                of(pair).pong()
        for pair in self.pairs:
            self._compare(pair, is_queued=is_queued and pair in actors)
        self.has_failed = False

    def _compare(self, pair: Pair, *, is_queued: bool) -> None:
        on_its_way, window = pair.ours.on_its_way(), pair.ours.window  # at Mosquitto: sent-again
        assert on_its_way <= window, f"{on_its_way} messages in a window of {window}"
        ours, theirs = (self._own_events(one) for one in (pair.ours, pair.theirs))
        if pair.is_windowed:
            for name, events in (("ours", ours), ("theirs", theirs)):
                kept = pair.collected.setdefault(name, [])
                kept += [event for event in events if isinstance(event, Delivered)]
            ours, theirs = (
                [event for event in events if not isinstance(event, Delivered)]
                for events in (ours, theirs)
            )
        try:
            self.comparison.compare(ours, theirs, is_queued=is_queued, is_windowed=pair.is_windowed)
        except AssertionError as error:
            error.add_note(
                f"{pair.client_id}: ours\n  {_lines(ours)}\nMosquitto\n  {_lines(theirs)}"
            )
            raise

    def _own_events(self, endpoint: Endpoint) -> list[Event]:
        """Return what has come since the last step, and is to be compared for this client."""
        events, endpoint.events = endpoint.events, []
        for event in events:
            if isinstance(event, Answer) and event.says == (_NOBODY,) and event.kind != "UNSUBACK":
                self.unheard.add(self.published)
            if isinstance(event, Delivered) and event.name[1] and not event.retain:
                assert event.name not in self.unheard, f"{event} came, but PUBACK denied it"
        return events

    # -- the end ------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.pairs and not self.has_failed:
            self._drain()
        for pair in self.pairs:
            if pair.theirs.pipe is not None:
                pair.theirs.leave(None)

    def _drain(self) -> None:
        """Have all sessions come back, and acknowledge everything: nothing may be left over."""
        for pair in self.pairs:
            if not pair.is_connected and pair.is_kept:
                self._come_back(pair)
        for pair in self.connected():
            self._step(pair, acknowledge_all)
            if pair.is_windowed:
                if pair.theirs.max_bytes is not None and pair.is_kept:
                    self._come_back_at_mosquitto(pair)
                ours, theirs = (pair.collected.get(name, []) for name in ("ours", "theirs"))
                self.comparison.compare(
                    ours, theirs, is_queued=True, is_windowed=True, dropped=pair.dropped
                )

    def _come_back_at_mosquitto(self, pair: Pair) -> None:
        """Have Mosquitto send what waits behind a message that was too large: too-large."""
        client = pair.theirs
        client.leave(mqtt5.DisconnectPacket())  # else its will would come, at Mosquitto alone
        client.connect(mqtt5.ConnectPacket(pair.client_id, max_packet_size=client.max_bytes))
        acknowledge_all(client)
        rest = [event for event in self._own_events(client) if isinstance(event, Delivered)]
        pair.collected.setdefault("theirs", []).extend(rest)
        self.comparison.used["too-large"] += len(rest)


def clean_up(port: int, clients: Sequence[str] = CLIENTS) -> None:
    """Leave neither sessions nor retained messages in Mosquitto."""
    for name in clients:
        client = at_mosquitto(port, V5)
        client.connect(mqtt5.ConnectPacket(name, clean_start=True))
        if name == clients[-1]:
            # differences.toml, unknown-root
            client.send(mqtt5.SubscribePacket(1, [TopicFilter("$own/x")]))
            for topic in TOPICS:
                client.publish(PublishPacket(topic, b"", retain=True))
        client.leave(mqtt5.DisconnectPacket())


def _larger(messages: set[Name], max_bytes: int | None) -> set[Name]:
    return {name for name in messages if max_bytes is not None and len(name[1]) > max_bytes}


def _lines(events: list[Event]) -> str:
    return "\n  ".join(map(str, events)) or "nothing"


def acknowledge_all(endpoint: Endpoint) -> None:
    while endpoint.held:
        endpoint.acknowledge(next(iter(endpoint.held.values())).name)


def held_by(endpoint: Endpoint) -> list[Name]:
    return [held.name for held in endpoint.held.values()]


def is_shared(name: Name) -> bool:
    return name[0] in JOBS
