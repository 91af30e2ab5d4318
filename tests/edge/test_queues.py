"""What waits for clients, under any order of events and kills: nothing is lost, late or too much."""

from collections import Counter

import mqtt5
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from mqtt5 import SubscribePacket, TopicFilter

from tests.edge.differential import acknowledge_all, held_by
from tests.edge.differential_clients import V5, Delivered, Endpoint, Name, at_ours
from tests.edge.wire import Wire, WireClient

KEPT_S = 1000
WIDE = 65535
windows = st.sampled_from([1, 2, 3, WIDE])


class Client:
    """A client with a session that is kept, and what it has seen."""

    def __init__(self, wire: Wire, client_id: str, pattern: str) -> None:
        self.client_id = client_id
        self.pattern = pattern
        self.endpoint: Endpoint = at_ours(wire, V5)
        self.seen: list[Name] = []
        self.connect(WIDE)
        self.subscribe()

    @property
    def is_connected(self) -> bool:
        return self.endpoint.pipe is not None

    def connect(self, window: int) -> None:
        self.endpoint.connect(
            mqtt5.ConnectPacket(self.client_id, session_expiry_interval=KEPT_S, receive_max=window)
        )

    def subscribe(self) -> None:
        self.endpoint.send(SubscribePacket(1, [TopicFilter(self.pattern)]))

    def acknowledge(self, which: int, *, is_partial: bool) -> set[Name]:
        """Acknowledge one of the messages that it has, in part or whole; return which are done."""
        before = set(names := held_by(self.endpoint))
        if names:
            self.endpoint.acknowledge(names[which % len(names)], is_partial=is_partial)
        return before - set(held_by(self.endpoint))

    def killed(self) -> None:
        """The MQTT broker has been killed."""
        if self.is_connected:
            self.endpoint.lost()

    def look(self) -> list[Delivered]:
        """Return what came since the last look."""
        self.endpoint.settle()
        events, self.endpoint.events = self.endpoint.events, []
        return [one for one in events if isinstance(one, Delivered)]


class Queues(RuleBasedStateMachine):
    """A sender, clients, and an MQTT broker that may be killed."""

    topics = ("a/1", "a/2")

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire(is_durable=True)
        self.sender: WireClient = self.wire.client("sender")
        self.clients = self.begin()
        self.numbers: dict[Name, int] = {}
        self.promised: dict[Name, int] = {}  # its QoS; above 0
        self.done: set[Name] = set()

    def begin(self) -> list[Client]:
        """Return the clients."""
        return [Client(self.wire, "reader", "a/#")]

    @rule(topic=st.integers(0, 1), qos=st.integers(0, 2), count=st.integers(1, 4))
    def publish(self, topic: int, qos: int, count: int) -> None:
        for _ in range(count):
            name = (self.topics[topic], b"%d" % len(self.numbers))
            self.numbers[name] = len(self.numbers)
            if qos:
                self.promised[name] = qos
            self.sender.publish(*name, qos=qos)
            if qos == 2:
                self.sender.send(mqtt5.PubRelPacket(1).write())
            self.look()

    @rule(who=st.integers(0, 2), which=st.integers(0, 9), is_partial=st.booleans())
    def acknowledge(self, who: int, which: int, *, is_partial: bool) -> None:
        client = self.clients[who % len(self.clients)]
        if client.is_connected:
            self.done |= client.acknowledge(which, is_partial=is_partial)
            self.look()

    @rule(who=st.integers(0, 2))
    def break_off(self, who: int) -> None:
        client = self.clients[who % len(self.clients)]
        if client.is_connected:
            client.endpoint.leave(None)
            self.look()

    @rule(who=st.integers(0, 2), window=windows)
    def come_back(self, who: int, window: int) -> None:
        client = self.clients[who % len(self.clients)]
        if not client.is_connected:
            client.connect(window)
            self.connected()
            self.look()

    @rule()
    def kill(self) -> None:
        self.wire.kill()
        self.sender = self.wire.client("sender")
        for client in self.clients:
            client.killed()

    def teardown(self) -> None:
        for client in self.clients:
            if not client.is_connected:
                client.connect(WIDE)
                self.connected()
        self.look()
        for client in self.clients * 2:
            acknowledge_all(client.endpoint)
            self.look()
        assert not any(client.endpoint.held for client in self.clients)
        seen = {name for client in self.clients for name in client.seen}
        assert seen >= self.promised.keys(), f"lost: {self.promised.keys() - seen}"
        assert self.wire.broker.recorder.live == {}

    # -- what has to hold ---------------------------------------------------------------------------

    def connected(self) -> None:
        """A network connection begins."""

    def look(self) -> None:
        """Look at what has come after a step."""
        for client in self.clients:
            if client.is_connected:
                for delivered in client.look():
                    assert delivered.name not in self.done, "it was acknowledged"
                    self.check(client, delivered)
                    client.seen.append(delivered.name)
                assert client.endpoint.on_its_way() <= client.endpoint.window  # 3.3.4-9

    def check(self, client: Client, delivered: Delivered) -> None:
        """Look at one message that has come."""
        raise NotImplementedError


class SessionQueue(Queues):
    """Of one client: whatever it is sent on a connection comes in order, and once it is done, never."""

    last: dict[tuple[str, int], int]

    def connected(self) -> None:
        self.last = {}

    def begin(self) -> list[Client]:
        self.last = {}
        return super().begin()

    def check(self, client: Client, delivered: Delivered) -> None:
        name, number = delivered.name, self.numbers[delivered.name]
        queue = (name[0], delivered.qos)
        assert self.last.get(queue, -1) < number, "not in order, or twice"  # 4.6.0-1, 4.6.0-6
        self.last[queue] = number
        if name in client.seen:
            assert delivered.qos, "QoS 0 twice"
            assert delivered.qos == 1 or delivered.duplicate, "QoS 2 twice without DUP"
        elif delivered.qos:
            assert not delivered.duplicate, "DUP of what has not come before"


class SharedQueue(Queues):
    """Of three members of a share, of which the first never unsubscribes."""

    topics = ("job/1", "job/2")
    shared = "$share/g/job/+"

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[tuple[str, str, int], int] = {}  # the last that nobody had had before
        self.owners: dict[Name, str] = {}  # of QoS 2

    def begin(self) -> list[Client]:
        return [Client(self.wire, name, self.shared) for name in ("m1", "m2", "m3")]

    @rule(who=st.integers(1, 2), is_member=st.booleans())
    def change(self, who: int, *, is_member: bool) -> None:
        client = self.clients[who]
        if client.is_connected:
            if is_member:
                client.subscribe()
            else:
                client.endpoint.send(mqtt5.UnsubscribePacket(1, [self.shared]))
            self.look()

    def check(self, client: Client, delivered: Delivered) -> None:
        name, number = delivered.name, self.numbers[delivered.name]
        others = [one for one in self.clients if one is not client]
        if not any(name in one.seen for one in self.clients):
            queue = (client.client_id, name[0], delivered.qos)
            assert number > self.first.get(queue, -1), "not in order"
            self.first[queue] = number
        else:
            assert delivered.qos, "QoS 0 twice"
        for one in others:
            assert name not in held_by(one.endpoint), "two members have it"
        if delivered.qos == 2:
            assert self.owners.setdefault(name, client.client_id) == client.client_id


@pytest.mark.parametrize("queues", [SessionQueue, SharedQueue])
def test_nothing_is_lost_or_out_of_order_or_beyond_the_window(queues: type[Queues]) -> None:
    how = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # making it shorter would take minutes
    )
    run_state_machine_as_test(queues, settings=how)


@pytest.mark.parametrize("members", [1, 2, 3, 7])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_members_of_a_share_who_are_all_free_get_the_same_number_within_one(
    members: int, qos: int
) -> None:
    wire = Wire()
    clients = [wire.client(f"m{number}", receive_max=3) for number in range(members)]
    for client in clients:
        client.subscribe("$share/g/job/+", qos=2)
    counts = Counter(dict.fromkeys(clients, 0))
    sender = wire.client("sender")
    for number in range(50):
        sender.publish(f"job/{number}", qos=qos, packet_id=number + 1 if qos else None)
        for client in clients:
            messages = client.messages()
            counts[client] += len(messages)
            for message in messages:
                if qos == 1:
                    client.puback(message.packet_id)
                elif qos == 2:
                    client.send(mqtt5.PubRecPacket(message.packet_id).write())
                    client.send(mqtt5.PubCompPacket(message.packet_id).write())
    assert counts.total() == 50
    assert max(counts.values()) - min(counts.values()) <= 1
