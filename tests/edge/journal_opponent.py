"""An opponent of the journal: clients that do anything, kills at any moment, and what is owed.

What is owed follows from what clients sent and got, and from nothing else. Time is counted in steps:
a subscription is *sure* from its SUBACK until its UNSUBSCRIBE, and *possible* from its SUBSCRIBE until
its UNSUBACK; a message was *possibly* handled from its PUBLISH until its acknowledgement.
`python -m tests.edge.journal_opponent FIRST LAST` plays many seeds.
"""

# long: every packet of a client, and every promise about it

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import mqtt5
from mqtt5 import QoS, TopicFilter

from broker.edge.accounts import Grant
from broker.edge.topic_filters import covers
from tests.edge.broker_audit import audit, kept
from tests.edge.journal_wire import JournalWire
from tests.edge.wire import PLENTY, WireClient

TOPICS = ("a/1", "a/2", "b/1")
PATTERNS = ("a/1", "a/+", "b/#", "#")
SHARED = "$share/workers/a/+"
SHORT_S, LONG_S = 20, 5000
FOREVER = 1 << 60


@dataclass(eq=False)
class Sent:
    """A message, and what its sender knows of it."""

    payload: bytes
    topic: str
    qos: int
    sender: str
    retain: bool
    lasts_s: int | None
    began: int
    over: int = FOREVER  # acknowledged, or given up
    is_acknowledged: bool = False
    may_repeat: bool = False  # it is sent again in what may be another session
    last_sent_s: float = 0.0


@dataclass
class Span:
    """A subscription: possible from `began` to `over`, sure from `sure` to `doubtful`."""

    pattern: str
    began: int
    epoch: int
    sure: int = FOREVER
    doubtful: int = FOREVER
    over: int = FOREVER

    def matches(self, topic: str) -> bool:
        return covers(self.pattern.removeprefix("$share/workers/"), topic)


@dataclass(eq=False)
class Client:
    """One client and its session; `epoch` counts sessions, as far as it knows."""

    name: str
    qos: int
    patterns: tuple[str, ...]
    wire: WireClient | None = None
    is_welcome: bool = False
    is_deaf: bool = False
    wants_clean: bool = False
    is_sure: bool = False  # its session is there, as of `seen_s`
    seen_s: float = 0.0
    lost_s: float = 0.0
    connected_s: float = 0.0
    expiry_s: int = 0
    expiries_s: set[int] = field(default_factory=set)  # which it may have
    epoch: int = 0
    spans: list[Span] = field(default_factory=list)
    asked: dict[int, tuple[str, list[Span]]] = field(default_factory=dict)
    outgoing: dict[int, tuple[Sent, bool]] = field(default_factory=dict)  # whether PUBREC has come
    held: set[int] = field(default_factory=set)  # packet ids of QoS 2
    unanswered: list[bytes] = field(default_factory=list)
    got: list[tuple[int, Sent, bool, int]] = field(default_factory=list)  # epoch, retained, QoS
    last_id: int = 0

    def next_id(self) -> int:
        self.last_id += 1
        return self.last_id


class Opponent:
    """Plays `steps` random steps, and says what broke."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = Random(seed)
        self.wire = JournalWire(directory, min_bytes=self.random.choice((1000, 4000, 1 << 24)))
        self.wire.grants = {
            name: Grant(name=name, reads=("#",), writes=("#",), is_service=True, quotas=PLENTY)
            for name in ("even", "odd")
        }
        shared_qos = self.random.choice((1, 2))
        self.clients = [
            *(Client(f"plain{n}", 1 + n % 2, PATTERNS) for n in range(3)),
            *(Client(f"share{n}", shared_qos, (SHARED,)) for n in range(2)),
        ]
        self.sent: dict[bytes, Sent] = {}
        self.step = 0
        self.group_spans: list[Span] = []
        self.may_be_late = False
        self.restarted_s = self.wire.time_s
        self.steps_taken: list[str] = []

    # -- what may happen --------------------------------------------------------------------------

    def play(self, steps: int) -> None:
        """Do so many random steps; then let all come back, and judge."""
        moves = {
            self.connect: 6,
            self.clean: 1,
            self.leave: 4,
            self.subscribe: 6,
            self.unsubscribe: 2,
            self.publish: 16,
            self.answer: 8,
            self.hold_writes: 3,
            self.write: 4,
            self.kill: 2,
            self.wait: 2,
        }
        names, weights = list(moves), list(moves.values())
        for _ in range(steps):
            self.step += 1
            self.may_be_late = not self.wire.writes_at_once  # delivery began, and CONNACK waits
            (move,) = self.random.choices(names, weights)
            client = self.random.choice(self.clients)
            self.steps_taken.append(f"{self.step} {move.__name__} {client.name}")
            move(client)
            self.read()
            self.look()
        self.finish()

    def connect(self, client: Client, *, is_clean: bool = False) -> None:
        self.lose(client)
        # A member without a session that lasts may get QoS 2 twice over a kill: nothing is kept of it.
        least_s = 0 if client.patterns != (SHARED,) else SHORT_S
        expiry_s = self.random.choice((least_s, SHORT_S, LONG_S, LONG_S))
        client.expiries_s.add(expiry_s)
        client.expiry_s, client.connected_s = expiry_s, self.wire.time_s
        will = None
        if self.random.random() < 0.3:
            will = mqtt5.Will("b/1", payload=self.new(client, "b/1", 1).payload, qos=QoS(1))
        client.wire = self.wire.raw()
        client.is_welcome, client.wants_clean = False, is_clean
        if is_clean:
            client.is_sure = False
            client.epoch += 1
            self.forget(client)
        client.is_deaf = self.random.random() < 0.1
        client.wire.send(
            mqtt5.ConnectPacket(
                client.name,
                username="odd" if client.name[-1] == "1" else "even",
                clean_start=is_clean,
                session_expiry_interval=expiry_s,
                receive_max=self.random.choice((1, 3, 100)),
                will=will,
            ).write()
        )

    def clean(self, client: Client) -> None:
        self.connect(client, is_clean=True)

    def forget(self, client: Client) -> None:
        """Its session is over, for the client."""
        for sent, _ in client.outgoing.values():
            sent.over = min(sent.over, self.step)
        client.outgoing.clear()
        client.held.clear()

    def lose(self, client: Client) -> None:
        """Whatever connection it had is of no more use."""
        if client.wire is not None and client.is_welcome:
            client.seen_s = self.wire.time_s
        if client.wire is not None:
            client.lost_s = self.wire.time_s
            if not client.is_welcome and self.may_be_over(client):  # it may have a new session
                client.epoch += 1
                client.is_sure = False
                for sent, _ in client.outgoing.values():
                    sent.may_repeat = True
        client.wire, client.is_welcome, client.is_deaf = None, False, False
        client.unanswered.clear()
        for what, spans in client.asked.values():
            for span in spans:
                if what == "unsubscribe":
                    span.doubtful = min(span.doubtful, self.step)
        client.asked.clear()

    def leave(self, client: Client) -> None:
        wire = client.wire
        if wire is None:
            return
        if self.random.random() < 0.3:
            wire.send(mqtt5.DisconnectPacket().write())
        wire.break_off()
        self.lose(client)

    def subscribe(self, client: Client) -> None:
        if client.wire is None or not client.is_welcome:
            return
        packet_id, pattern = client.next_id(), self.random.choice(client.patterns)
        span = Span(pattern, self.step, client.epoch)
        client.spans.append(span)
        if pattern == SHARED:  # what waits in the group comes to another member
            self.group_spans.append(span)
        client.asked[packet_id] = ("subscribe", [span])
        filters = [TopicFilter(pattern, max_qos=QoS(client.qos), retain_as_published=False)]
        client.wire.send(mqtt5.SubscribePacket(packet_id, filters).write())

    def unsubscribe(self, client: Client) -> None:
        patterns = sorted({span.pattern for span in client.spans})
        if client.wire is None or not client.is_welcome or not patterns:
            return
        packet_id, pattern = client.next_id(), self.random.choice(patterns)
        spans = [one for one in client.spans if one.pattern == pattern and one.over == FOREVER]
        for span in spans:
            span.doubtful = min(span.doubtful, self.step)
        client.asked[packet_id] = ("unsubscribe", spans)
        client.wire.send(mqtt5.UnsubscribePacket(packet_id, [pattern]).write())

    def new(self, client: Client, topic: str, qos: int, *, retain: bool = False) -> Sent:
        lasts_s = self.random.choice((None, None, None, 10))
        sent = Sent(b"%d" % len(self.sent), topic, qos, client.name, retain, lasts_s, self.step)
        self.sent[sent.payload] = sent
        return sent

    def publish(self, client: Client) -> None:
        if client.wire is None or not client.is_welcome:
            return
        retain, qos = self.random.random() < 0.2, self.random.choice((0, 1, 1, 2, 2))
        sent = self.new(client, self.random.choice(TOPICS), qos, retain=retain)
        packet_id = client.next_id() if qos else None
        if not qos:
            sent.over = self.step
        if packet_id is not None:
            client.outgoing[packet_id] = (sent, False)
        self.transmit(client, sent, packet_id)

    def transmit(
        self, client: Client, sent: Sent, packet_id: int | None, *, is_again: bool = False
    ) -> None:
        assert client.wire is not None
        sent.last_sent_s = self.wire.time_s
        packet = mqtt5.PublishPacket(
            sent.topic,
            sent.payload,
            qos=QoS(sent.qos),
            packet_id=packet_id,
            retain=sent.retain,
            duplicate=is_again,
            message_expiry_interval=sent.lasts_s,
        )
        client.wire.send(packet.write())

    def answer(self, client: Client) -> None:
        """Acknowledge some of what has come."""
        for _ in range(self.random.randint(1, 5)):
            if client.wire is not None and client.unanswered:
                client.wire.send(client.unanswered.pop(0))

    def hold_writes(self, _: Client) -> None:
        self.wire.writes_at_once = False

    def write(self, _: Client) -> None:
        if self.random.random() < 0.5:
            self.wire.writes_at_once = True
            self.wire.settle()
        else:
            self.wire.write_journal(self.random.randint(0, 3))

    def kill(self, _: Client) -> None:
        self.wire.kill(
            written=self.random.randint(0, self.wire.unwritten),
            torn_bytes=self.random.choice((0, 1, 5, 40)),
            copied=self.random.choice((None, None, 0, 1, 3, 10)),
        )
        self.restarted_s = self.wire.time_s
        for client in self.clients:
            self.lose(client)
        self.wire.writes_at_once = self.random.random() < 0.7

    def wait(self, _: Client) -> None:
        self.wire.wait(self.random.choice((1, 12, 30)))

    # -- what clients get -------------------------------------------------------------------------

    def read(self) -> None:
        for client in self.clients:
            if client.wire is None:
                continue
            while not client.is_deaf and (packets := client.wire.read()):
                for packet in packets:
                    self.take(client, packet)
            if client.wire.is_closed:
                self.lose(client)

    def take(self, client: Client, packet: Any) -> None:
        if isinstance(packet, mqtt5.ConnAckPacket):
            self.welcome(client, packet)
            return
        assert client.is_welcome, f"{type(packet).__name__} before CONNACK"
        if isinstance(packet, mqtt5.PublishPacket | mqtt5.PubRelPacket):
            self.take_message(client, packet)
        else:
            self.take_answer(client, packet)

    def take_answer(self, client: Client, packet: Any) -> None:
        match packet:
            case mqtt5.SubAckPacket():
                for span in client.asked.pop(packet.packet_id)[1]:
                    span.sure = self.step
            case mqtt5.UnsubAckPacket():
                for span in client.asked.pop(packet.packet_id)[1]:
                    span.over = self.step
            case mqtt5.PubAckPacket():
                self.acknowledged(client, packet.packet_id, packet.reason_code.value)
            case mqtt5.PubRecPacket():
                self.acknowledged(client, packet.packet_id, packet.reason_code.value)
                client.unanswered.append(mqtt5.PubRelPacket(packet.packet_id).write())
            case mqtt5.PubCompPacket():
                client.outgoing.pop(packet.packet_id, None)
            case _:
                assert isinstance(packet, mqtt5.DisconnectPacket)

    def take_message(self, client: Client, packet: Any) -> None:
        packet_id, answers = packet.packet_id, client.unanswered
        if isinstance(packet, mqtt5.PubRelPacket):
            client.held.discard(packet_id)
            answers.append(mqtt5.PubCompPacket(packet_id).write())
            return
        qos = packet.qos.value
        if packet_id not in client.held or qos < 2:
            self.deliver(client, packet, qos)
        if qos == 1:
            answers.append(mqtt5.PubAckPacket(packet_id).write())
        elif qos == 2:
            client.held.add(packet_id)
            answers.append(mqtt5.PubRecPacket(packet_id).write())

    def welcome(self, client: Client, packet: mqtt5.ConnAckPacket) -> None:
        assert packet.reason_code.value == 0
        now, is_present = self.wire.time_s, packet.session_present
        over_s = max(client.lost_s, self.restarted_s) + max(client.expiries_s) + 2
        if client.wants_clean or (client.connected_s > over_s and client.lost_s):
            assert not is_present, f"{client.name} has a session that is over"
        elif client.is_sure and not self.may_be_over(client):
            assert is_present, f"the session of {client.name} is forgotten"
        if not is_present:
            if not client.wants_clean:
                client.epoch += 1
                self.forget(client)
            client.spans = []
        client.is_welcome = client.is_sure = True
        client.seen_s = now
        client.expiries_s = {client.expiry_s}
        for packet_id, (sent, is_received) in list(client.outgoing.items()):
            if is_received:
                assert client.wire is not None
                client.wire.send(mqtt5.PubRelPacket(packet_id).write())
            else:
                self.transmit(client, sent, packet_id, is_again=True)

    @staticmethod
    def may_be_over(client: Client) -> bool:
        """Whether its session may have expired before it connected."""
        return client.connected_s > client.seen_s + min(client.expiries_s) - 1

    def acknowledged(self, client: Client, packet_id: int, reason: int) -> None:
        assert reason in {0, 16}, reason
        if packet_id in client.outgoing:
            sent, _ = client.outgoing[packet_id]
            sent.is_acknowledged = True
            sent.over = min(sent.over, self.step)
            client.outgoing[packet_id] = (sent, True)
            if sent.qos == 1:
                del client.outgoing[packet_id]

    def deliver(self, client: Client, packet: mqtt5.PublishPacket, qos: int) -> None:
        sent = self.sent[packet.payload]
        assert packet.topic == sent.topic
        is_due = any(
            one.matches(sent.topic)
            and one.began <= (FOREVER if packet.retain else sent.over)
            and sent.began <= one.over
            for one in (client.spans if client.patterns != (SHARED,) else self.group_spans)
        )
        assert is_due, f"{client.name} gets {sent}, to which it does not subscribe"
        is_timely = not packet.duplicate and not self.may_be_late
        if sent.lasts_s is not None and is_timely and sent.last_sent_s:
            late_s = self.wire.time_s - sent.last_sent_s - sent.lasts_s
            assert late_s <= 1, f"{client.name} gets {sent}, which has expired"
        client.got.append((client.epoch, sent, packet.retain, qos))

    # -- what has to hold -------------------------------------------------------------------------

    def look(self) -> None:
        """Now and then: the counters agree, and a kill at this moment would change nothing."""
        if self.random.random() < 0.3:
            audit(self.wire.broker)
        if self.wire.writes_at_once and self.random.random() < 0.3:
            self.wire.settle()
            twin = self.wire.twin()
            audit(twin)
            ours, its = kept(self.wire.broker), kept(twin)
            for what in ours:
                assert its[what] == ours[what], f"the journal has other {what}"

    def finish(self) -> None:
        """All clients come back and acknowledge everything; then all that was owed must be there."""
        self.wire.writes_at_once = True
        self.wire.settle()
        self.step += 1
        for client in self.clients:
            self.connect(client)
            client.is_deaf = False
        for _ in range(1000):
            self.read()
            if not any(client.unanswered or client.outgoing for client in self.clients):
                break
            for client in self.clients:
                self.answer(client)
        assert not any(client.outgoing for client in self.clients)
        broker = self.wire.broker
        audit(broker)
        assert broker.recorder.live == {}
        retained = [one for one in broker.router.retained.values() if one.account is not None]
        in_use = sum(one.queued_bytes for one in broker.accounts.values())
        assert in_use == sum(one.message.size for one in retained)
        assert not any(one._queued_bytes for one in broker.router.groups.values())
        self.judge()
        self.judge_retained()
        for client in self.clients:
            assert client.wire is not None
            client.wire.send(mqtt5.DisconnectPacket(session_expiry_interval=0).write())
        assert (broker.sessions, broker.router.groups) == ({}, {})
        self.wire.kill()
        assert not self.wire.broker.sessions

    def judge(self) -> None:
        for client in self.clients:
            self.judge_order(client)
            self.judge_once(client)
            for sent in self.sent.values():
                if self.is_owed(client, sent):
                    got = {id(one) for epoch, one, retain, _ in client.got if not retain}
                    assert id(sent) in got, f"{client.name} never got {sent}"
        members = [one for one in self.clients if one.patterns == (SHARED,)]
        for sent in self.sent.values():
            came = [one.name for one in members if any(got is sent for _, got, _, _ in one.got)]
            is_once = min(sent.qos, members[0].qos) == 2 and not sent.may_repeat
            assert not is_once or len(came) <= 1, f"{came} got {sent}"
            if self.is_owed_to_group(members, sent):
                assert came, f"the group never got {sent}"

    def judge_retained(self) -> None:
        """A new client gets the last message that was retained, or one that may have been the last."""
        reader = self.wire.client("reader", username="even")
        reader.subscribe("#")
        got = {one.topic: self.sent[one.payload] for one in reader.messages()}
        reader.break_off()
        for topic in TOPICS:
            some = [one for one in self.sent.values() if one.retain and one.topic == topic]
            known = [one for one in some if one.is_acknowledged]
            last = [one for one in some if not any(one.over < each.began for each in known)]
            if topic in got:
                assert got[topic] in last, f"{got[topic]} is retained, and not one of {last}"
            else:
                lasting = all(one.lasts_s is None for one in last)
                assert not (known and lasting), f"nothing is retained, and not one of {last}"

    @staticmethod
    def judge_order(client: Client) -> None:
        last: dict[tuple[int, str, str, int], int] = {}
        seen: set[int] = set()
        if client.patterns == (SHARED,):
            return
        for epoch, sent, retain, qos in client.got:
            if retain or id(sent) in seen or not sent.last_sent_s or sent.lasts_s is not None:
                continue
            seen.add(id(sent))
            if not any(one.matches(sent.topic) and one.sure < sent.began for one in client.spans):
                continue  # it may come for its second sending
            key = (epoch, sent.sender, sent.topic, qos)
            number = int(sent.payload)
            assert number > last.get(key, -1), f"{client.name} gets {sent} out of order"
            last[key] = number

    @staticmethod
    def judge_once(client: Client) -> None:
        came: set[tuple[int, int]] = set()
        for epoch, sent, retain, qos in client.got:
            if qos == 2 and not retain and not sent.may_repeat:
                assert (epoch, id(sent)) not in came, f"{client.name} gets {sent} twice"
                came.add((epoch, id(sent)))

    def is_owed(self, client: Client, sent: Sent) -> bool:
        """Whether the client's present session surely had a subscription all the while."""
        return (
            sent.is_acknowledged
            and sent.lasts_s is None
            and client.patterns != (SHARED,)
            and any(
                one.matches(sent.topic) and one.sure < sent.began and sent.over < one.doubtful
                for one in client.spans
                if one.epoch == client.epoch
            )
        )

    def is_owed_to_group(self, members: list[Client], sent: Sent) -> bool:
        """Whether a member was there all the while, and none left its session or the group since."""
        return (
            sent.is_acknowledged
            and sent.lasts_s is None
            and not any(one.epoch > 1 for one in members)
            and any(
                one.matches(sent.topic) and one.sure < sent.began
                for member in members
                for one in member.spans
            )
            and all(one.doubtful == FOREVER for member in members for one in member.spans)
        )


def play(seed: int, steps: int = 120) -> None:
    """Play one seed; the error says which steps led to it."""
    with tempfile.TemporaryDirectory() as directory:
        opponent = Opponent(Path(directory), seed)
        try:
            opponent.play(steps)
        except Exception as error:
            error.add_note(f"seed {seed}\n" + "\n".join(opponent.steps_taken[-40:]))
            raise
        finally:
            opponent.wire.kept.close()


if __name__ == "__main__":
    for each in range(int(sys.argv[1]), int(sys.argv[2])):
        play(each)
