"""Builds the state of an `EdgeBroker` from its journal, and says all of it again for the next one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from broker.edge.accounts import Account, Grant
from broker.edge.edge_broker import EdgeBroker
from broker.edge.message import Message, restored
from broker.edge.records import (
    DoneRecord,
    EndedRecord,
    Key,
    MessageRecord,
    ReceivedRecord,
    Record,
    ReleasedRecord,
    RetainedRecord,
    SentRecord,
    SessionRecord,
    SubscribedRecord,
    UnsubscribedRecord,
)
from broker.edge.router import Retained, subscribed_record
from broker.edge.session import Delivery, Session
from broker.edge.subscriptions import Subscription


@dataclass
class _Kept:
    """What the journal says of one session."""

    session: SessionRecord
    subscriptions: dict[str, SubscribedRecord] = field(default_factory=dict)
    sent: dict[int, SentRecord] = field(default_factory=dict)
    released: set[int] = field(default_factory=set)
    received: set[int] = field(default_factory=set)

    def take(self, record: Record) -> None:
        """Read one record of this session."""
        match record:
            case SubscribedRecord():
                self.subscriptions[record.pattern] = record
            case UnsubscribedRecord():
                self.subscriptions.pop(record.pattern, None)
            case SentRecord():
                self.sent[record.packet_id] = record
                self.released.discard(record.packet_id)
            case ReleasedRecord():
                self.released.add(record.packet_id)
            case ReceivedRecord():
                change = self.received.add if record.is_held else self.received.discard
                change(record.packet_id)

    def done(self, messages: Iterable[int]) -> None:
        """These messages are done."""
        if self.sent:
            gone = set(messages)
            self.sent = {one: sent for one, sent in self.sent.items() if sent.message not in gone}


class _Facts:
    """What the journal comes to, when it is read to its end."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.sessions: dict[Key, _Kept] = {}
        self.messages: dict[int, MessageRecord] = {}
        self.retained: dict[str, RetainedRecord] = {}
        self.last_message = 0
        self.last_session = 0
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        match record:
            case MessageRecord():
                self.messages[record.message] = record
                self.last_message = max(self.last_message, record.message)
            case DoneRecord():
                for number in record.messages:
                    self._done(record.key, number)
                if record.key in self.sessions:
                    self.sessions[record.key].done(record.messages)
            case SessionRecord():
                self.last_session = max(self.last_session, int(record.number))
                self.sessions.setdefault(record.number, _Kept(record)).session = record
            case EndedRecord():
                self.sessions.pop(record.number, None)
            case RetainedRecord():
                self.retained.pop(record.publish.topic, None)
                if record.publish.payload:
                    self.retained[record.publish.topic] = record
            case _:
                self._take_of_session(record)

    def _take_of_session(
        self,
        record: SubscribedRecord
        | UnsubscribedRecord
        | SentRecord
        | ReleasedRecord
        | ReceivedRecord,
    ) -> None:
        kept = self.sessions.get(record.number)
        if kept is not None:
            kept.take(record)
        if isinstance(record, SentRecord) and (message := self.messages.get(record.message)):
            if record.group is not None:
                message.holders.pop(record.group, None)
            message.holders[record.number] = record.holding

    def _done(self, key: Key, number: int) -> None:
        message = self.messages.get(number)
        if message is not None:
            message.holders.pop(key, None)
            if not message.holders:
                del self.messages[number]


def restore(broker: EdgeBroker, records: Iterable[Record]) -> None:
    """Make `broker`, which is new, what its predecessor was; nobody is connected."""
    facts = _Facts(records)
    router, monotonic = broker.router, broker.recorder.monotonic
    broker.last_session, router.last_message = facts.last_session, facts.last_message
    sessions = {number: _session(broker, kept) for number, kept in facts.sessions.items()}
    for number, record in sorted(facts.messages.items()):
        message = Message(number, restored(record.publish), monotonic(record.came_at))
        _queue(broker, sessions, message, record)
    for key, kept in facts.sessions.items():
        _resume_exactly_once(sessions[key], kept)
    for retained in facts.retained.values():
        router.last_message += 1
        came_at = monotonic(retained.came_at)
        message = Message(router.last_message, restored(retained.publish), came_at)
        router.restore_retained(message, _account(broker, retained.account))
    broker.recorder.discard()


def _account(broker: EdgeBroker, name: str) -> Account:
    """Return an account, whose rights are known when it connects."""
    return broker.accounts.setdefault(name, Account(Grant(name=name)))


def _session(broker: EdgeBroker, kept: _Kept) -> Session:
    record, now, monotonic = kept.session, broker.now(), broker.recorder.monotonic
    account = _account(broker, record.account)
    session = broker.new_session(account, record.client_id, int(record.number))
    session.expiry_s = record.expiry_s
    session.received = set(kept.received)
    session.will = None if record.will is None else restored(record.will)
    session.will_delay_s = record.will_delay_s
    if record.expires_at is not None:
        session.expires_at = monotonic(record.expires_at)
        session.will_at = None if record.will_at is None else monotonic(record.will_at)
    else:  # it was connected until now
        session.expires_at = now + record.expiry_s
        if session.will is not None:
            session.will_at = now + min(record.will_delay_s, record.expiry_s)
    for one in kept.subscriptions.values():
        subscription = Subscription(
            session,
            one.qos,
            no_local=one.no_local,
            as_published=one.as_published,
            identifier=one.identifier,
        )
        broker.router.add_subscription(session, one.pattern, subscription)
    session.is_recorded = True
    broker.schedule(session)
    return session


def _queue(
    broker: EdgeBroker, sessions: dict[Key, Session], message: Message, record: MessageRecord
) -> None:
    for key, (qos, retain, identifiers) in record.holders.items():
        receiver = broker.router.groups.get(key) if isinstance(key, str) else sessions.get(key)
        if receiver is not None:
            message.holders[key] = (qos, retain, tuple(identifiers))
            receiver.restore(Delivery(message, qos, retain=retain, identifiers=tuple(identifiers)))
    if message.holders:
        broker.recorder.live[message.number] = message


def _resume_exactly_once(session: Session, kept: _Kept) -> None:
    """What went out with QoS 2 keeps its packet id, and whether the client has it (4.4)."""
    waiting = {delivery.message.number: delivery for delivery in session.queue}
    for packet_id, sent in kept.sent.items():
        delivery = waiting.get(sent.message)
        if delivery is not None:
            session.queue.remove(delivery)
            session.in_flight[packet_id] = delivery
            delivery.was_sent = True
            delivery.is_released = packet_id in kept.released


def snapshot(broker: EdgeBroker) -> Iterator[Record]:
    """Yield the records of all that is live, while it goes on changing: each as it is then."""
    for session in _recorded_sessions(broker):
        yield session.record()
        for pattern, subscription in list(session.subscriptions.items()):
            yield subscribed_record(session, pattern, subscription)
        for packet_id in sorted(session.received):
            yield ReceivedRecord(session.key, packet_id, is_held=True)
    for message in list(broker.recorder.live.values()):
        if message.holders:
            yield broker.recorder.of(message)
    for session in _recorded_sessions(broker):
        yield from _exactly_once_records(session)
    for retained in list(broker.router.retained.values()):
        if retained.account is not None and _is_current(broker, retained):
            yield broker.router.retained_record(retained)


def _recorded_sessions(broker: EdgeBroker) -> Iterator[Session]:
    for session in list(broker.sessions.values()):
        if session.is_recorded and broker.has(session):
            yield session


def _exactly_once_records(session: Session) -> Iterator[Record]:
    for packet_id, delivery in list(session.in_flight.items()):
        if delivery.qos == 2:
            holding = (2, delivery.retain, delivery.identifiers)
            yield SentRecord(session.key, packet_id, delivery.message.number, holding)
            if delivery.is_released:
                yield ReleasedRecord(session.key, packet_id)


def _is_current(broker: EdgeBroker, retained: Retained) -> bool:
    topic = retained.message.publish.topic
    return any(one is retained for one in broker.router.retained.matched_by(topic))
