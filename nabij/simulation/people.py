"""Devices with a journal, and the desk: they say things again until the receipt comes, and log."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from broker.mqtt import Message
from nabij.simulation.clock import EPOCH_S, VirtualLoop, moment
from nabij.simulation.logs import DeskLog, DeviceLog, Placed
from nabij.simulation.mqtt import Client, MqttBroker
from schemas import topics
from schemas.codec import encode
from schemas.messages import (
    Acknowledge,
    Alert,
    Answer,
    Ask,
    Assign,
    Availability,
    Brief,
    Case,
    Close,
    DeliveryReceipt,
    Escalation,
    EscalationKind,
    Form,
    GroupEvent,
    GroupMessage,
    IncidentState,
    Inform,
    Position,
    Presence,
    Question,
    Receipt,
    Rejection,
    Reply,
    ReplyKind,
    Report,
    Reporters,
    Subject,
    Sync,
)
from schemas.topics import Topic

_RETRY_S = (0.8, 2.5)
_BEHIND_S = 60.0  # so far behind is the clock of who mutes
_PRESENT = 0.9  # of the alerted, so many answer
_ADDING = 0.4  # of the reports, of so many their reporter says more
_JSON: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        Alert,
        Brief,
        Case,
        Escalation,
        GroupEvent,
        IncidentState,
        Question,
        Receipt,
        Rejection,
    )
}


@dataclass(frozen=True, slots=True)
class Ground:
    """What everybody stands on."""

    loop: VirtualLoop
    rng: random.Random
    mqtt: MqttBroker
    trace: Callable[[str, str], None]

    def new_id(self) -> UUID:
        """Return a UUIDv7 of this moment and these dice (RFC 9562, 5.7)."""
        ms = int((EPOCH_S + self.loop.now) * 1000)
        bits = (ms << 80) | (7 << 76) | (2 << 62)
        return UUID(int=bits | self.rng.getrandbits(12) << 64 | self.rng.getrandbits(62))


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    message: Message
    key: UUID


class _Sender:
    """A client with a journal: what has no receipt yet is sent again."""

    def __init__(self, ground: Ground, name: str, filters: list[str], response_topic: str) -> None:
        self.ground = ground
        self.journal: dict[UUID, _Unconfirmed] = {}
        self._name = name
        self._filters = filters
        self._response_topic = response_topic
        self.client = self._new_client()

    def _new_client(self) -> Client:
        return Client(
            self.ground.mqtt, self.ground.rng, self._name, filters=self._filters,
            on_message=self._take, on_online=self.on_online,
        )  # fmt: skip

    def start(self) -> None:
        """Connect."""
        self.client.start()

    def restart(self) -> None:
        """Lose the memory; the journal stays, and is sent again."""
        self.client.die()
        self.client = self._new_client()
        self.client.start()
        for key in self.journal:
            self._later(key)

    def on_online(self) -> None:
        """The connection stands (again)."""

    def on_message(self, topic: str, payload: bytes) -> None:
        """A message has come."""

    def _take(self, message: Message, number: int, epoch: int) -> None:
        self.ground.trace(self._name, f"< {message.topic} {message.payload.decode()}")
        self.on_message(message.topic, message.payload)
        self.client.acknowledge(number, epoch)

    def confirmed(self, topic: str, payload: Any, key: UUID) -> None:
        """Send `payload` until its receipt is here."""
        body = encode(payload)
        message = Message(topic, body, correlation=key.bytes, response_topic=self._response_topic)
        self.journal[key] = _Unconfirmed(message, key)
        self._send(key)

    def say_has(self, topic: str, identifier: UUID) -> None:
        """Say once that a message has come: if that is lost, the message comes again."""
        self.client.publish_nowait(
            Message(topic, encode(DeliveryReceipt(ids=frozenset((identifier,)))))
        )

    def _send(self, key: UUID) -> None:
        found = self.journal.get(key)
        if found is None:
            return
        if self.client.online:
            self.ground.trace(
                self._name, f"> {found.message.topic} {found.message.payload.decode()}"
            )
            self.client.publish_nowait(found.message)
        self._later(key)

    def _later(self, key: UUID) -> None:
        self.ground.loop.call_later(self.ground.rng.uniform(*_RETRY_S), self._send, key)

    def settle(self, receipt: Receipt, key: UUID | None) -> None:
        """Strike off what `receipt` confirms."""
        if receipt.id is not None:
            self.journal.pop(receipt.id, None)
        if key is not None:
            self.journal.pop(key, None)


class Person(_Sender):
    """A participant; `p0` has a small device, which subscribes to alerts in short alone."""

    def __init__(self, ground: Ground, user: str) -> None:
        self.log = DeviceLog(user)
        self.user = user
        self.is_small = user == "p0"
        receipt = topics.RECEIPT.topic(user=user)
        alert = topics.BRIEF if self.is_small else topics.ALERT
        self._handlers: Mapping[str, Callable[[bytes], None]] = {
            receipt: self._take_receipt,
            alert.topic(user=user): self._take_alert,
            topics.GROUP.topic(user=user): self._take_event,
            topics.QUESTION.topic(user=user): self._take_question,
        }
        super().__init__(ground, user, [*self._handlers], receipt)
        self._sync: UUID | None = None
        self._presence: tuple[UUID, Placed] | None = None
        self._seen: set[UUID | None] = set()

    def report(
        self, category: str, at: tuple[float, float], text: str, seen_ago_s: float = 0.0
    ) -> None:
        """Witness something, now or before."""
        ground = self.ground
        report = Report(
            id=ground.new_id(), category=category, location=Position(*at),
            seen_at=moment(ground.loop.now - seen_ago_s), text=text,
        )  # fmt: skip
        self.log.reports[report.id] = (ground.loop.now, report)
        self._confirm(topics.REPORT, report, report.id)

    def stand(self, at: tuple[float, float] | None) -> None:
        """Be somewhere, or (None) be told nothing from now on: that counts, however old it looks."""
        presence = Presence(
            at=moment(self.ground.loop.now - (0.0 if at else _BEHIND_S)),
            location=Position(*at) if at else None,
            availability=Availability.AVAILABLE if at else Availability.MUTED,
            form=Form.SHORT if self.is_small else None,
        )
        if self._presence:
            self.journal.pop(self._presence[0], None)
        placed = Placed(at, self.ground.loop.now)
        self.log.presences.append(placed)
        key = self.ground.new_id()
        self._presence = (key, placed)
        self._confirm(topics.PRESENCE, presence, key)

    def _confirm(self, topic: Topic[Any], payload: Any, key: UUID) -> None:
        self.confirmed(topic.topic(user=self.user), payload, key)

    def on_online(self) -> None:
        """Ask for what was missed."""
        if self._sync:
            self.journal.pop(self._sync, None)
        self._sync = self.ground.new_id()
        self._confirm(topics.SYNC, Sync(since=moment(0.0)), self._sync)

    def on_message(self, topic: str, payload: bytes) -> None:
        """Log it, and act on it the first time."""
        self._handlers[topic](payload)

    def _take_receipt(self, payload: bytes) -> None:
        receipt: Receipt = _JSON[Receipt].decode(payload)
        now = self.ground.loop.now
        self.log.receipts.append((now, receipt))
        if receipt.subject is Subject.REPORT and receipt.incident and self._first(receipt.id):
            self._add(receipt.incident)
        key = None
        if receipt.subject is Subject.SYNC and self._sync:
            key, self._sync = self._sync, None
            self.log.synced_at.append(now)
        if receipt.subject is Subject.PRESENCE and self._presence:
            key, placed = self._presence
            # A receipt of an earlier presence confirms nothing about this one.
            if int(receipt.at.timestamp() * 1000) >= int((EPOCH_S + placed.sent_at) * 1000):
                placed.confirmed_at = now
                self._presence = None
            else:
                key = None
        self.settle(receipt, key)

    def _take_alert(self, payload: bytes) -> None:
        alert: Alert | Brief = _JSON[Brief if self.is_small else Alert].decode(payload)
        self.log.alerts.append((self.ground.loop.now, alert))
        rng = self.ground.rng
        if not self._first(alert.id) or rng.random() > _PRESENT:
            return
        kind = rng.choice((ReplyKind.ACCEPTED, ReplyKind.ACCEPTED, ReplyKind.DECLINED))
        reply = Reply(id=self.ground.new_id(), incident=alert.incident, kind=kind)
        self._soon(topics.REPLY, reply)
        if kind is ReplyKind.ACCEPTED and rng.random() < 0.5:
            text = GroupMessage(id=self.ground.new_id(), incident=alert.incident, text="ik kom")
            self._soon(topics.MESSAGE, text)

    def _add(self, incident: UUID) -> None:
        """Say more about what was reported, sometimes."""
        if self.ground.rng.random() < _ADDING:
            identifier = self.ground.new_id()
            text = f"nog iets {identifier.hex[-6:]}"
            message = GroupMessage(id=identifier, incident=incident, text=text)
            self.log.said[identifier] = message
            self._soon(topics.MESSAGE, message)

    def _soon(self, topic: Topic[Any], payload: Any) -> None:
        wait_s = self.ground.rng.uniform(0.05, 1.0)
        self.ground.loop.call_later(wait_s, self._confirm, topic, payload, payload.id)

    def _take_event(self, payload: bytes) -> None:
        self.log.events.append((self.ground.loop.now, _JSON[GroupEvent].decode(payload)))

    def _take_question(self, payload: bytes) -> None:
        question: Question = _JSON[Question].decode(payload)
        self.say_has(topics.DELIVERED.topic(user=self.user), question.id)
        self.log.questions.append((self.ground.loop.now, question))
        if self._first(question.id):
            answer = Answer(id=self.ground.new_id(), question=question.id, text="ja")
            self._soon(topics.ANSWER, answer)

    def _first(self, identifier: UUID | None) -> bool:
        new = identifier not in self._seen
        self._seen.add(identifier)
        return new


class Desk(_Sender):
    """The police of all zones, the city's desk, and the operator who reads dead letters."""

    def __init__(self, ground: Ground, name: str = "desk") -> None:
        self.log = DeskLog()
        root = topics.ROOT
        super().__init__(
            ground, name,
            [f"{root}/police/+/escalation/+", f"{root}/police/+/incident/+",
             f"{root}/police/+/receipt", f"{root}/city/+/case/+", f"{root}/ops/rejected/+"],
            "",
        )  # fmt: skip
        self._acted: set[UUID] = set()

    def on_message(self, topic: str, payload: bytes) -> None:
        """Log it, and act on what is new."""
        now = self.ground.loop.now
        name, level = topic.split("/")[3:5]
        if level == "escalation":
            escalation = _JSON[Escalation].decode(payload)
            self._take_escalation(escalation)
            self.say_has(topics.DESK_DELIVERED.topic(zone=name), escalation.id)
        elif level == "incident" and payload:
            self.log.states.append((now, _JSON[IncidentState].decode(payload)))
        elif level == "incident":
            self.log.cleared.append((now, UUID(topic.rpartition("/")[2])))
        elif level == "case":
            case = _JSON[Case].decode(payload)
            self.log.cases.append((now, case))
            self.say_has(topics.CITY_DELIVERED.topic(municipality=name), case.id)
        elif level == "receipt":
            receipt: Receipt = _JSON[Receipt].decode(payload)
            self.log.receipts.append((now, receipt))
            self.settle(receipt, None)
        else:
            self.log.dead_letters.append((now, _JSON[Rejection].decode(payload).reason))

    def _take_escalation(self, escalation: Escalation) -> None:
        self.log.escalations.append((self.ground.loop.now, escalation))
        if escalation.kind is not EscalationKind.NEW or escalation.incident in self._acted:
            return
        self._acted.add(escalation.incident)
        rng = self.ground.rng
        for number, kind in enumerate((Acknowledge, Assign, Inform, Ask, Close)):
            if rng.random() < 0.4:
                wait_s = number * 0.5 + rng.uniform(0.1, 1.5)
                self.ground.loop.call_later(wait_s, self._command, kind, escalation)

    def _command(self, kind: type[Any], escalation: Escalation) -> None:
        identifier = self.ground.new_id()
        words: dict[type[Any], dict[str, str]] = {
            Assign: {"unit": f"unit-{identifier.hex[-6:]}"},
            Inform: {"text": f"we komen {identifier.hex[-6:]}"},
            Ask: {"text": f"wat ziet u? {identifier.hex[-6:]}", "reporters": Reporters.ALL},
            Close: {"outcome": "opgelost"},
        }
        order = kind(id=identifier, incident=escalation.incident, by="desk", **words.get(kind, {}))
        self.log.commands[identifier] = (self.ground.loop.now, order)
        self.confirmed(topics.COMMAND.topic(zone=escalation.zone), order, identifier)
