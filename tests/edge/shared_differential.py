"""The random sequences with subscriptions that are shared."""

from collections import Counter
from collections.abc import Callable

import mqtt5
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from mqtt5 import PublishPacket, TopicFilter

from tests.edge.differential import Differential, held_by, is_shared
from tests.edge.differential_clients import Answer, Delivered, Endpoint, Event, Name, Pair
from tests.edge.differential_steps import JOBS, NARROWER, SHARED, qualities, whom


class SharedDifferential(Differential):
    """With subscriptions that are shared, which at first two clients have."""

    instead_of = NARROWER
    has_windows = False  # test_queues.py has shares with windows

    def __init__(self) -> None:
        super().__init__()
        self.is_calm = True  # every member was there all the time: then all comes to the same
        self.came: dict[bool, list[Delivered]] = {True: [], False: []}  # whether at ours
        self.members: set[str] = set()
        self.are_members_kept = True  # none has unsubscribed, or a session that has ended

    def _begin_with(self, some: list[Pair]) -> None:
        for pair in some:
            self._share(pair, [SHARED[0]])

    @precondition(lambda self: self.connected())
    @rule(who=whom, patterns=st.lists(st.sampled_from(SHARED), min_size=1, max_size=2))
    def share(self, who: int, patterns: list[str]) -> None:
        self._share(self._connected(who), patterns)

    def _share(self, pair: Pair, patterns: list[str]) -> None:
        self.members.add(pair.client_id)
        filters = [TopicFilter(one, retain_as_published=False) for one in patterns]
        packet = mqtt5.SubscribePacket(pair.next_id(), filters)
        self._step(pair, lambda one: one.send(packet))

    @precondition(lambda self: self.connected())
    @rule(who=whom, pattern=st.sampled_from(SHARED))
    def leave_share(self, who: int, pattern: str) -> None:
        pair = self._connected(who)
        self.are_members_kept = False
        packet = mqtt5.UnsubscribePacket(pair.next_id(), [pattern])
        self._step(pair, lambda one: one.send(packet))

    @precondition(lambda self: self.connected())
    @rule(
        who=whom, sent=st.lists(st.tuples(st.sampled_from(JOBS), qualities), min_size=1, max_size=5)
    )
    def publish_jobs(self, who: int, sent: list[tuple[str, mqtt5.QoS]]) -> None:
        pair = self._connected(who)
        for topic, qos in sent:
            packet_id = pair.next_id() if qos.value else None
            self.published = (topic, self._payload())
            packet = PublishPacket(*self.published, qos=qos, packet_id=packet_id)
            self._step(pair, lambda one, packet=packet: one.publish(packet))

    @rule(which=st.integers(0, 5), is_partial=st.booleans())
    def acknowledge_job(self, which: int, is_partial: bool) -> None:  # noqa: FBT001 - drawn by name
        names = [name for pair in self.pairs for name in held_by(pair.ours) if is_shared(name)]
        if names:
            name = names[which % len(names)]
            self._step_of(self.pairs, lambda one: one.acknowledge(name, is_partial=is_partial))

    def _disturb(self, pair: Pair, *, is_kept: bool) -> None:
        if pair.client_id in self.members:
            self.is_calm = False
            self.are_members_kept &= is_kept

    def _own_events(self, endpoint: Endpoint) -> list[Event]:
        is_ours = any(endpoint is pair.ours for pair in self.pairs)
        own: list[Event] = []
        for event in super()._own_events(endpoint):
            if isinstance(event, Answer) or not is_shared(event.name):
                own.append(event)
            elif isinstance(event, Delivered):
                self.came[is_ours].append(event)
        return own

    def _step_of(
        self, actors: list[Pair], act: Callable[[Endpoint], None], *, is_queued: bool = False
    ) -> None:
        super()._step_of(actors, act, is_queued=is_queued)
        if self.is_calm:
            ours, theirs = (Counter(self.came[is_ours]) for is_ours in (True, False))
            assert ours == theirs, f"shares: {ours - theirs}, Mosquitto {theirs - ours}"

    def teardown(self) -> None:
        super().teardown()
        if not self.has_failed:
            self._compare_all(
                "delivered", *({one.name for one in self.came[at]} for at in (True, False))
            )
            if self.are_members_kept:
                self._compare_all(
                    "acknowledged", *(self._acknowledged(at) for at in ("ours", "theirs"))
                )

    def _acknowledged(self, side: str) -> set[Name]:
        done = (getattr(pair, side).done for pair in self.pairs)
        return {name for names in done for name in names if is_shared(name)}

    def _compare_all(self, what: str, ours: set[Name], theirs: set[Name]) -> None:
        assert ours >= theirs, f"not {what} of shares: {theirs - ours}"
        self.comparison.used[f"shared-wait-in-the-group, {what}"] += len(ours - theirs)
