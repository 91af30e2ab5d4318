"""Builds the state of an `EdgeBroker` from its journal, and says all of it again for the next file."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from broker.edge.accounts import Account, Grant, Quotas
from broker.edge.edge_broker import EdgeBroker
from broker.edge.journal import Journal
from broker.edge.message import Message
from broker.edge.records import (
    DoneRecord,
    EndedRecord,
    HeldRecord,
    Key,
    MessageRecord,
    ReceivedRecord,
    Record,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
    encode_batch,
)
from broker.edge.session import Session
from broker.edge.subscriptions import Subscription

# Of an account that was not authenticated since the start: what it has is within its own quotas.
_UNKNOWN = Quotas(queued_bytes=256 << 20, retained=1_000_000)


class BrokerJournal(Journal):
    """The journal of a broker, which recovers from it.

    A file that has grown is rewritten: so many records are copied `at_once` between two batches.
    """

    def __init__(
        self, broker: EdgeBroker, directory: Path, *, min_bytes: int = 16 << 20, at_once: int = 500
    ) -> None:
        super().__init__(directory, min_bytes)
        self._broker = broker
        self._at_once = at_once
        self._copy: Iterator[list[Record]] | None = None
        self._copied_in = 0  # the batch that has what was copied last

    def recover(self) -> None:
        """Make the broker, which is new, what its predecessor was; blocks.

        Raises:
            JournalError: the journal is damaged, in use, or cannot be written.
        """
        self.open()
        restore(self._broker, self.read())
        self.rewrite()
        for records in snapshot(self._broker, self._at_once):
            self.append(encode_batch(records))
        self.rewritten()

    def copy(self) -> None:
        """A batch was written: copy some of what is live to the next file, if one has begun."""
        recorder = self._broker.recorder
        if self._copy is None:
            if self.is_large:
                self.rewrite()
                self._copy = snapshot(self._broker, self._at_once)
        elif recorder.committed < self._copied_in:
            pass
        elif records := next(self._copy, None):
            self._copied_in = recorder.number
            for record in records:
                recorder.add(record)
        else:
            self.rewritten()
            self._copy = None


# -- reading ----------------------------------------------------------------------------------------


def restore(broker: EdgeBroker, records: Iterable[Record]) -> None:
    """Make `broker`, which is new, what its predecessor was; nobody is connected."""
    broker.recorder.is_on = False  # what happens now stands in the journal
    replay = _Replay(broker)
    for record in records:
        replay.take(record)
    replay.finish()
    broker.recorder.is_on = True


class _Replay:
    """Does what the records say, one after another."""

    def __init__(self, broker: EdgeBroker) -> None:
        self._broker = broker
        self._router = broker.router
        self._monotonic = broker.recorder.monotonic
        self._sessions: dict[Key, Session] = {}
        self._messages: dict[int, MessageRecord] = {}
        self._retained: dict[str, RetainedRecord] = {}

    def take(self, record: Record) -> None:
        """Do what it says; about sessions that are told of later only, it says nothing that counts."""
        match record:
            case MessageRecord():
                self._messages[record.message] = record
                self._router.last_message = max(self._router.last_message, record.message)
            case DoneRecord():
                for number in record.messages:
                    self._done(record.key, number)
            case HeldRecord():
                if (message := self._messages.get(record.message)) is not None:
                    message.holders[record.number] = record.holding
            case SessionRecord():
                self._take_session(record)
            case RetainedRecord():
                self._retained[record.publish.topic] = record
            case _ if (session := self._sessions.get(record.number)) is not None:
                self._take_of(session, record)

    def _done(self, key: Key, number: int) -> None:
        message = self._messages.get(number)
        if message is not None:
            message.holders.pop(key, None)
            if not message.holders:
                del self._messages[number]

    def _take_session(self, record: SessionRecord) -> None:
        broker, session = self._broker, self._sessions.get(record.number)
        if session is None:
            account = self._account(record.account)
            session = broker.new_session(account, record.client_id, int(record.number))
            session.is_recorded = True
            self._sessions[record.number] = session
            broker.last_session = max(broker.last_session, int(record.number))
        session.expiry_s, session.will_delay_s = record.expiry_s, record.will_delay_s
        session.will = record.will
        session.expires_at, session.will_at = (
            None if at is None else self._monotonic(at)
            for at in (record.expires_at, record.will_at)
        )

    def _take_of(
        self, session: Session, record: EndedRecord | SubscriptionRecord | ReceivedRecord
    ) -> None:
        match record:
            case EndedRecord():
                self._broker.end(self._sessions.pop(record.number))
            case SubscriptionRecord(options=None):
                self._router.unsubscribe(session, record.pattern)
            case SubscriptionRecord(options=(qos, no_local, as_published, identifier)):
                subscription = Subscription(
                    session,
                    qos,
                    no_local=no_local,
                    as_published=as_published,
                    identifier=identifier,
                )
                self._router.add_subscription(session, record.pattern, subscription)
            case ReceivedRecord(is_held=True):
                session.received.add(record.packet_id)
            case ReceivedRecord():
                session.received.discard(record.packet_id)

    def _account(self, name: str) -> Account:
        account = self._broker.accounts.get(name)
        if account is None:
            account = self._broker.accounts[name] = Account(Grant(name=name, quotas=_UNKNOWN))
        return account

    def finish(self) -> None:
        """All records are read."""
        for session in self._sessions.values():
            if session.expires_at is None:  # it was connected until now
                session.detach()
            self._broker.schedule(session)
        for number in sorted(self._messages):
            self._queue(self._messages.pop(number))
        for kept in self._retained.values():
            if kept.publish.payload:
                came_at = self._monotonic(kept.came_at)
                message = self._router.numbered(kept.publish, came_at)
                self._router.restore_retained(message, self._account(kept.account))

    def _queue(self, record: MessageRecord) -> None:
        came_at = self._monotonic(record.came_at)
        message = Message.of(record.message, record.publish, came_at)
        for key, holding in record.holders.items():
            groups, sessions = self._router.groups, self._sessions
            receiver = groups.get(key) if isinstance(key, str) else sessions.get(key)
            if receiver is not None:
                receiver.restore(message, holding)
        if message.holders:
            self._broker.recorder.live[message.number] = message


# -- writing ----------------------------------------------------------------------------------------


def snapshot(broker: EdgeBroker, at_once: int) -> Iterator[list[Record]]:
    """Yield the records of all that is live, so many at once, while it goes on changing.

    All in one list are true at the same time, so they have to be collected together.
    """
    some: list[Record] = []
    for records in chain(_sessions(broker), _messages(broker), _retained(broker)):
        some += records
        if len(some) >= at_once:
            yield some
            some = []
    if some:
        yield some


def _sessions(broker: EdgeBroker) -> Iterator[list[Record]]:
    for session in list(broker.sessions.values()):
        if session.is_recorded:  # and has not ended
            yield [
                session.record(),
                *(
                    SubscriptionRecord(session.key, pattern, subscription.options)
                    for pattern, subscription in session.subscriptions.items()
                ),
                *(ReceivedRecord(session.key, one, is_held=True) for one in session.received),
            ]


def _messages(broker: EdgeBroker) -> Iterator[list[Record]]:
    for message in list(broker.recorder.live.values()):
        if message.holders:
            yield [broker.recorder.of(message)]


def _retained(broker: EdgeBroker) -> Iterator[list[Record]]:
    router = broker.router
    for topic in [one.message.publish.topic for one in router.retained.values()]:
        for one in router.retained_on(topic):
            if one.account is not None:
                yield [router.retained_record(one)]
