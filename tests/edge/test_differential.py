"""Our MQTT broker and a real Mosquitto: the same sequences have the same outcome, but for a list."""

from collections.abc import Callable, Iterator
from typing import Any

import mqtt5
import pytest
from mqtt5 import DisconnectPacket, PublishPacket, SubscribePacket, TopicFilter

from broker.edge.accounts import Grant
from broker.edge.message import Message
from broker.edge.session import Link, Session
from broker.edge.subscriptions import Route
from broker.edge.sys_topics import sys_topics
from tests.conftest import missing
from tests.edge import differences
from tests.edge.differential import Differential
from tests.edge.differential_clients import (
    QOS,
    V5,
    Answer,
    Delivered,
    Endpoint,
    at_mosquitto,
    at_ours,
)
from tests.edge.differential_run import run, start_mosquitto
from tests.edge.differential_steps import LARGE, MAX_WINDOW, SMALL_PACKET
from tests.edge.shared_differential import SharedDifferential
from tests.edge.wire import PLENTY, Wire
from tests.mqtt.brokers import BrokerProcess

_QOS_0, _QOS_1, _QOS_2 = QOS
_OPEN = {
    "ann": Grant(name="ann", reads=("#", "$SYS/#"), quotas=PLENTY),
    "bob": Grant(name="bob", reads=("b/#",)),
}


class Clients:
    """Opens connections with a client id and what CONNECT says besides."""

    def __init__(self, open_at: Callable[[], Endpoint]) -> None:
        self._open_at = open_at
        self._open: list[Endpoint] = []

    def __call__(self, client_id: str, *, clean_start: bool = True, **options: Any) -> Endpoint:
        client = self._open_at()
        client.connect(mqtt5.ConnectPacket(client_id, clean_start=clean_start, **options))
        self._open.append(client)
        return client

    def leave(self) -> None:
        for client in self._open:
            if client.pipe is not None:
                client.leave(DisconnectPacket(session_expiry_interval=0))


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = start_mosquitto(tmp_path_factory.mktemp("mosquitto"))
    if process is None:
        missing("mosquitto on the PATH")
    yield process
    process.kill()


@pytest.mark.parametrize("sequences", [Differential, SharedDifferential])
def test_random_sequences_have_the_same_outcome(
    sequences: type[Differential], mosquitto: BrokerProcess
) -> None:
    comparison = run(sequences, mosquitto.port, sequences=25)
    assert comparison.used["no-matching-subscribers"] > 0


class BrokenSession(Session):
    """Sabotages, each the method of a session that it replaces."""

    def identifiers(self, message: Message, route: Route, *, retain: bool) -> bool:
        """Only one subscription id."""
        qos = min(message.publish.qos, route.qos)
        keeps_flag = retain and route.as_published
        return self.take(message, qos, retain=keeps_flag, identifiers=route.identifiers[:1])

    def retain_flag(self, message: Message, route: Route, *, retain: bool) -> bool:
        """The RETAIN flag is lost."""
        del retain
        qos = min(message.publish.qos, route.qos)
        return self.take(message, qos, retain=False, identifiers=route.identifiers)

    def resending(self, link: Link) -> None:
        """What was sent and not acknowledged is forgotten (4.4)."""
        ATTACH(self, link)
        self._resend.clear()

    def window(self, link: Link) -> None:
        """Receive Maximum counts for nothing (3.3.4-9)."""
        ATTACH(self, link)
        link.window = MAX_WINDOW

    def order(self, message: Message, qos: int, **options: Any) -> bool:
        """What waits does not wait in order."""
        is_taken = TAKE(self, message, qos, **options)
        self.queue.rotate(1)
        return is_taken


ATTACH, TAKE = Session.attach, Session.take
SABOTAGED = {
    "offer": (BrokenSession.identifiers, BrokenSession.retain_flag),
    "attach": (BrokenSession.resending, BrokenSession.window),
    "take": (BrokenSession.order,),
}


@pytest.mark.parametrize(
    ("method", "sabotage"), [(name, one) for name, some in SABOTAGED.items() for one in some]
)
def test_a_fault_is_seen(
    method: str,
    sabotage: Callable[..., object],
    mosquitto: BrokerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Session, method, sabotage)
    with pytest.raises(AssertionError, match=r"Mosquitto|window"):
        run(Differential, mosquitto.port, sequences=500)


# -- differences, each shown ------------------------------------------------------------------------


def payloads(client: Endpoint) -> list[bytes]:
    client.settle()
    return [one.name[1] for one in client.events if isinstance(one, Delivered)]


def answers(client: Endpoint, kind: str) -> list[tuple[object, ...]]:
    client.settle()
    return [one.says for one in client.events if isinstance(one, Answer) and one.kind == kind]


def publication(topic: str, qos: int = 1, **options: object) -> PublishPacket:
    return PublishPacket(topic, b"x", qos=QOS[qos], packet_id=9 if qos else None, **options)  # type: ignore[arg-type]


def one_copy(connect: Clients) -> object:
    client = connect("ann")
    client.send(SubscribePacket(1, [TopicFilter("a/+"), TopicFilter("a/#", max_qos=_QOS_0)]))
    client.publish(publication("a/b"))
    return len(payloads(client))


def no_matching_subscribers(connect: Clients) -> object:
    client = connect("ann")
    client.send(SubscribePacket(1, [TopicFilter("a", no_local=True)]))
    client.publish(publication("a"))
    client.publish(publication("nobody", qos=2))
    return answers(client, "PUBACK") + answers(client, "PUBREC")


def taken_over_in_silence(connect: Clients) -> object:
    client = connect("ann")
    client.connect(mqtt5.ConnectPacket("ann", clean_start=True))
    return answers(client, "DISCONNECT")


def will_at_takeover(connect: Clients) -> object:
    reader = connect("bob")
    reader.send(SubscribePacket(1, [TopicFilter("will")]))
    will = mqtt5.Will("will", payload=b"gone")
    client = connect("ann", session_expiry_interval=100, will=will)
    client.connect(mqtt5.ConnectPacket("ann"))
    return payloads(reader)


def resubscribed(connect: Clients) -> object:
    client = connect("ann")
    for no_local in (True, False):
        client.send(SubscribePacket(1, [TopicFilter("a", no_local=no_local)]))
    client.publish(publication("a"))
    return payloads(client)


def unknown_root(connect: Clients) -> object:
    client = connect("ann")
    client.send(mqtt5.UnsubscribePacket(1, ["$unknown/x"]))
    return answers(client, "UNSUBACK")


def exactly_once_at_once(connect: Clients) -> object:
    client = connect("ann")
    client.send(SubscribePacket(1, [TopicFilter("a")]))
    client.send(publication("a", qos=2))
    return payloads(client)


def sent_again(connect: Clients) -> object:
    options = {"session_expiry_interval": 100}
    client = connect("ann", **options)
    client.send(SubscribePacket(1, [TopicFilter("a")]))
    for payload in (b"1", b"2", LARGE):
        client.publish(PublishPacket("a", payload, qos=_QOS_1, packet_id=9))
    counts = []
    for more in ({"receive_max": 1, "max_packet_size": SMALL_PACKET}, {}):
        client.leave(None)
        client.events.clear()
        client.connect(mqtt5.ConnectPacket("ann", **options, **more))
        counts.append(len(payloads(client)))
    return counts


def too_large(connect: Clients) -> object:
    client = connect("ann", receive_max=1, max_packet_size=SMALL_PACKET)
    client.send(SubscribePacket(1, [TopicFilter("a")]))
    for payload in (b"1", LARGE, b"3"):
        client.publish(PublishPacket("a", payload, qos=_QOS_1, packet_id=9))
    client.acknowledge(("a", b"1"))
    return payloads(client)


def shared_wait_in_the_group(connect: Clients) -> object:
    away, member = connect("ann", session_expiry_interval=100), connect("bob")
    for client in (away, member):
        client.send(SubscribePacket(1, [TopicFilter("$share/g/a")]))
    away.leave(None)
    for _ in range(4):
        member.publish(publication("a"))
    return len(payloads(member))


def shared_below_dollar(connect: Clients) -> object:
    client = connect("ann")
    client.send(SubscribePacket(1, [TopicFilter("$share/g/$own/a")]))
    client.publish(publication("$own/a"))
    return payloads(client)


def refused_subscribe(connect: Clients) -> object:
    client = connect("bob", username="bob")
    client.send(SubscribePacket(1, [TopicFilter("a")]))
    return answers(client, "SUBACK")


def client_id_of_an_account(connect: Clients) -> object:
    connect("same", username="ann", session_expiry_interval=100)
    return answers(connect("same", username="bob", clean_start=False), "CONNACK")


def named_twice(connect: Clients) -> object:
    client = connect("ann")
    client.publish(publication("twice", retain=True))
    client.send(SubscribePacket(1, [TopicFilter("twice"), TopicFilter("twice")]))
    count = len(payloads(client))
    client.publish(PublishPacket("twice", b"", retain=True))
    return count


def sys_names(connect: Clients) -> object:
    client = connect("ann", username="ann")
    client.send(SubscribePacket(1, [TopicFilter("$SYS/broker/version")]))
    return len(payloads(client))


SHOWN: dict[str, tuple[Callable[[Clients], object], object, object]] = {
    "one-copy": (one_copy, 1, 2),
    "no-matching-subscribers": (no_matching_subscribers, [(16,), (16,)], [(0,), (0,)]),
    "taken-over-in-silence": (taken_over_in_silence, [(142,)], []),
    "will-at-takeover": (will_at_takeover, [b"gone"], []),
    "resubscribed": (resubscribed, [b"x"], []),
    "unknown-root": (unknown_root, [(17,)], [(0,)]),
    "exactly-once-at-once": (exactly_once_at_once, [b"x"], []),
    "too-large": (too_large, [b"1", b"3"], [b"1"]),
    "sent-again": (sent_again, [1, 3], [2, 2]),
    "shared-wait-in-the-group": (shared_wait_in_the_group, 4, 2),
    "shared-below-dollar": (shared_below_dollar, [b"x"], []),
    "refused-subscribe": (refused_subscribe, [(135,)], [(2,)]),
    "named-twice": (named_twice, 1, 2),
    "sys-names": (sys_names, 0, 1),
    "client-id-of-an-account": (client_id_of_an_account, [(False, 0)], [(True, 0)]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_difference_on_purpose_is_as_the_list_says(name: str, mosquitto: BrokerProcess) -> None:
    show, expected_ours, expected_theirs = SHOWN[name]
    wire = Wire(grants=_OPEN)
    for topic, payload in sys_topics(wire.broker, 0.0).items():
        wire.broker.router.publish_own(topic, payload)
    seen = []
    for open_at in (lambda: at_ours(wire, V5), lambda: at_mosquitto(mosquitto.port, V5)):
        clients = Clients(open_at)
        seen.append(show(clients))
        clients.leave()
    assert seen == [expected_ours, expected_theirs]


def test_every_difference_is_shown_and_says_what_where_and_why() -> None:
    listed = differences.listed()
    assert listed.keys() == SHOWN.keys()
    for name, row in listed.items():
        assert row.keys() == {"what", "section", "why", "comparison"}, name
