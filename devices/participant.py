"""A participant's device: reports, presence, alerts, replies and the talk of the group.

    async with Participant("ann", password, Broker("localhost", 1883), on_alert=show) as ann:
        receipt = await ann.report(report)      # stored when this returns
        await ann.reply(alert.incident, ReplyKind.ACCEPTED, eta_s=240)

With a journal nothing that was promised is lost, whatever dies (see `devices/journal.py`):

    async with (
        Journal("ann.journal") as journal,
        Participant("ann", password, broker, journal=journal, on_unconfirmed=warn) as ann,
    ):
        await ann.report(report)      # NotConfirmed after 10 s; it goes on trying for 72 hours

Callbacks are plain functions of the message and its Unix time of receipt in seconds, called
before the message is acknowledged: they must be quick.
"""

import bisect
import enum
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from devices.catchup import CatchUp
from devices.connection import (
    SESSION_EXPIRY_S,
    Broker,
    Connection,
    Identity,
    Incoming,
    WhenUnreachable,
    client_id,
)
from devices.courier import Courier, OnEntry
from devices.delivery_receipts import DeliveryReceipts
from devices.journal import Entry, Journal
from devices.journal_file import JournalError
from devices.receipts import NotConfirmed, Receipts, Rejected, Request, accepted, fresh_key
from schemas import topics
from schemas.codec import encode, encode_within_limit
from schemas.ids import new_id
from schemas.messages import (
    Alert,
    Answer,
    Availability,
    GroupEvent,
    GroupEventKind,
    GroupMessage,
    Position,
    Presence,
    Question,
    Receipt,
    Reply,
    ReplyKind,
    Report,
    Subject,
    Sync,
)
from schemas.topics import Topic

__all__ = [
    "Broker",
    "Confirm",
    "Entry",
    "Journal",
    "JournalError",
    "NotConfirmed",
    "Participant",
    "Rejected",
    "accepted",
]

KEPT = 200  # alerts, questions, groups and repeats
_NAMED, _NAMED_EVENTS = 200, 50  # alerts and groups in a sync, and events of each
_SYNC_TIMEOUT_S = 6.0  # it may have come to an MQTT broker that no service had subscribed to yet

OnAlert = Callable[[Alert, float], None]
OnGroup = Callable[[GroupEvent, float], None]
OnQuestion = Callable[[Question, float], None]
OnReceipt = Callable[[Receipt, float], None]


class Confirm(enum.Enum):
    """Whether a presence asks for a receipt. Without one it is sent once, at QoS 0."""

    NO = "no"
    YES = "yes"


class Participant:
    """One person's device, connected while the `async with` lasts; it reconnects by itself.

    `alerts` and `questions` hold each once, by id; `repeats` counts what came again. `groups` holds
    each incident's events in order of sequence. Of each the newest `KEPT` are
    held. Events reach `on_group` in the order in which they come, since news is never held back for
    what was missed. `on_receipt` gets the receipts that
    nobody awaits: late ones, and the rejection of a presence that asked for none. To the topics of
    `deaf_to` it does not subscribe.

    With a `journal`, reports, replies, messages and answers are on disk before they are sent, go on
    being sent after NotConfirmed and after a restart, and are deleted on their receipt. `alerts`,
    `groups` and `questions` hold what has come since entering; what came before it is a repeat.
    After each connection the device asks for what it missed. Entering waits at most
    `connect_timeout_s`, and goes on without a connection. `on_journaled` gets each message
    when it is on disk, before it is sent. `on_unconfirmed` gets what has no receipt
    `receipt_timeout_s` after it was made or found again: tell its user to call 112. `on_expired`
    gets what is given up after 72 hours.
    """

    def __init__(  # noqa: PLR0913 - a device has that many ends
        self,
        user: str,
        password: str | None,
        broker: Broker,
        *,
        on_alert: OnAlert | None = None,
        on_group: OnGroup | None = None,
        on_question: OnQuestion | None = None,
        on_receipt: OnReceipt | None = None,
        receipt_timeout_s: float = 10.0,
        connect_timeout_s: float = 10.0,
        device: str = "device",
        session_expiry_s: int = SESSION_EXPIRY_S,
        journal: Journal | None = None,
        on_journaled: OnEntry | None = None,
        on_unconfirmed: OnEntry | None = None,
        on_expired: OnEntry | None = None,
        deaf_to: Collection[Topic[Any]] = (),
    ) -> None:
        self.user = user
        self.alerts: dict[UUID, Alert] = {}
        self.questions: dict[UUID, Question] = {}
        self.groups: dict[UUID, list[GroupEvent]] = {}
        self.repeats: Counter[UUID] = Counter()
        self._outside: set[UUID] = set()  # groups that we have left
        self._missing: set[tuple[UUID, int]] = set()  # group events that others came after
        self._on_alert = on_alert
        self._on_group = on_group
        self._on_question = on_question
        self._on_receipt = on_receipt
        self._receipt_topic = topics.RECEIPT.topic(user=user)
        handlers: Mapping[Topic[Any], Callable[[Incoming], None]] = {
            topics.RECEIPT: self._take_receipt,
            topics.ALERT: self._take_alert,
            topics.GROUP: self._take_group,
            topics.QUESTION: self._take_question,
        }
        self._handlers = {
            topic.topic(user=user): handler
            for topic, handler in handlers.items()
            if topic not in deaf_to
        }
        self._connection = Connection(
            broker,
            Identity(user, password, client_id(user, device, password), session_expiry_s),
            filters=tuple(self._handlers),
            on_message=self._take,
            connect_timeout_s=connect_timeout_s,
            when_unreachable=WhenUnreachable.KEEP_TRYING if journal else WhenUnreachable.FAIL,
        )
        self._receipts = Receipts(self._connection, timeout_s=receipt_timeout_s)
        self._delivery = DeliveryReceipts(self._connection)
        self._entered: AsyncExitStack
        self._journal = journal
        if journal:
            self._courier = Courier(
                self._connection,
                journal,
                response_topic=self._receipt_topic,
                unconfirmed_after_s=receipt_timeout_s,
                on_journaled=on_journaled,
                on_unconfirmed=on_unconfirmed,
                on_expired=on_expired,
            )
            self._catch_up = CatchUp(
                self._connection, journal, self._sync_once, is_missing=lambda: bool(self._missing)
            )

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return self._connection.connected

    @property
    def connections(self) -> int:
        """How often it has connected: 1 after entering."""
        return self._connection.connections

    async def connect(self) -> None:
        """Return as soon as the connection stands."""
        await self._connection.link()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            if self._journal:
                await self._journal.belong_to(self.user)
                # Before the connection, whose first message may be a receipt for the journal.
                await entered.enter_async_context(self._courier)
            await entered.enter_async_context(self._connection)
            await entered.enter_async_context(self._delivery)
            if self._journal:
                await entered.enter_async_context(self._catch_up)
            self._entered = entered.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._entered.__aexit__(kind, error, traceback)

    async def report(self, report: Report) -> Receipt:
        """Send `report` until it is confirmed.

        Raises:
            NotConfirmed, Rejected: as all that ask for a receipt.
            Invalid: as all that send something: it is larger than the services take.
            JournalError: as all that go into the journal. Nothing was promised: call 112.
        """
        return await self._entrusted(topics.REPORT, report, report.id)

    async def presence(
        self,
        location: Position | None,
        availability: Availability = Availability.AVAILABLE,
        *,
        at: datetime | None = None,
        confirm: Confirm = Confirm.NO,
    ) -> Receipt | None:
        """Say where we are and whether we take alerts; None unless it is to be confirmed.

        Unconfirmed and without a connection it is dropped: the next one says more.
        """
        presence = Presence(
            at=at or datetime.now(UTC), location=location, availability=availability
        )
        if confirm is Confirm.YES:
            return await self._confirmed(topics.PRESENCE, presence, fresh_key())
        if link := self._connection.current:
            topic = topics.PRESENCE.topic(user=self.user)
            await link.publish(topic, encode(presence))
        return None

    async def reply(self, incident: UUID, kind: ReplyKind, eta_s: int | None = None) -> Receipt:
        """Answer the alert of `incident`; `eta_s` is seconds to arrival."""
        reply = Reply(id=new_id(), incident=incident, kind=kind, eta_s=eta_s)
        return await self._entrusted(topics.REPLY, reply, reply.id)

    async def say(self, incident: UUID, text: str) -> Receipt:
        """Say `text` to the group around `incident`."""
        message = GroupMessage(id=new_id(), incident=incident, text=text)
        return await self._entrusted(topics.MESSAGE, message, message.id)

    async def answer(self, question: UUID, text: str) -> Receipt:
        """Answer a question of the police."""
        answer = Answer(id=new_id(), question=question, text=text)
        return await self._entrusted(topics.ANSWER, answer, answer.id)

    async def sync(self, since: datetime) -> Receipt:
        """Ask for the alerts and group events after `since` again."""
        return await self._confirmed(topics.SYNC, Sync(since=since), fresh_key())

    async def _sync_once(self, since: datetime) -> Receipt:
        """`sync`, repeated on a new connection, or as a new question: it costs the services much."""
        request = Request(
            topics.SYNC.topic(user=self.user),
            encode(self._sync_since(since)),
            self._receipt_topic,
            fresh_key(),
            expiry_s=math.ceil(_SYNC_TIMEOUT_S),
        )
        self._missing.clear()  # what it does not bring is not there
        return await self._receipts.confirmed(
            request, repeat_after_s=math.inf, timeout_s=_SYNC_TIMEOUT_S
        )

    def _sync_since(self, since: datetime) -> Sync:
        """Return a sync that says what has come in this life: not to be repeated, nor carried twice."""
        return Sync(
            since=since,
            alerts=frozenset(_newest(self.alerts)),
            groups={
                incident: frozenset(event.sequence for event in self.groups[incident][-_NAMED_EVENTS:])
                for incident in _newest(self.groups)
            },
        )  # fmt: skip

    async def _entrusted(self, topic: Topic[Any], payload: Any, key: UUID) -> Receipt:
        """Keep the message in the journal, if there is one, and send it until it is confirmed."""
        if self._journal is None:
            return await self._confirmed(topic, payload, key)
        return await self._courier.confirmed(
            Entry(
                key,
                Subject(topic.name),
                topic.topic(user=self.user),
                encode_within_limit(payload),
                datetime.now(UTC),
            )
        )

    async def _confirmed(self, topic: Topic[Any], payload: Any, key: UUID) -> Receipt:
        return await self._receipts.confirmed(
            Request(
                topic.topic(user=self.user), encode_within_limit(payload), self._receipt_topic, key
            )
        )

    def _take(self, incoming: Incoming) -> None:
        self._handlers[incoming.topic](incoming)

    def _take_receipt(self, incoming: Incoming) -> None:
        receipt = topics.RECEIPT.decode(incoming.payload)
        told = self._receipts.take(receipt, incoming) or (
            self._journal is not None and self._courier.take(receipt, incoming)
        )
        if not told and self._on_receipt:
            self._on_receipt(receipt, incoming.received_at)

    def _is_repeat(self, identifier: UUID) -> bool:
        """Whether this has come before the device was entered; it has come now."""
        if self._journal is None:
            return False
        if self._journal.has_seen(identifier):
            return True
        self._journal.note_seen(identifier)
        return False

    def _note_repeat(self, identifier: UUID) -> None:
        self.repeats[identifier] += 1
        _forget_oldest(self.repeats)

    def _take_alert(self, incoming: Incoming) -> None:
        alert = topics.ALERT.decode(incoming.payload)
        if alert.id in self.alerts or self._is_repeat(alert.id):
            self._note_repeat(alert.id)
            return
        self.alerts[alert.id] = alert
        _forget_oldest(self.alerts)
        if self._on_alert:
            self._on_alert(alert, incoming.received_at)

    def _take_group(self, incoming: Incoming) -> None:
        event = topics.GROUP.decode(incoming.payload)
        events = self.groups.setdefault(event.incident, [])
        known_ids = (known.id for known in reversed(events))
        if event.id in known_ids or self._is_repeat(event.id):
            self._note_repeat(event.id)
            return
        self._note_heard(event)
        bisect.insort(events, event, key=lambda known: known.sequence)
        self._outside.difference_update(_forget_oldest(self.groups))
        if self._on_group:
            self._on_group(event, incoming.received_at)

    def _note_heard(self, event: GroupEvent) -> None:
        """Remember how far this group was heard; ask for what is missing in between.

        Nothing is missing for who was outside in between: after leaving, until joining again.
        """
        if self._journal is None:
            return
        mine = event.you is not None and event.member == event.you
        was_outside = event.incident in self._outside
        if mine and event.kind is GroupEventKind.LEFT:
            self._outside.add(event.incident)
        elif mine and event.kind is GroupEventKind.JOINED:
            self._outside.discard(event.incident)
        newest = self._journal.heard.get(event.incident)
        self._missing.discard((event.incident, event.sequence))
        if newest is not None and event.sequence > newest + 1 and not was_outside:
            between = range(newest + 1, event.sequence)
            self._missing.update((event.incident, number) for number in between)
            self._catch_up.note_gap()
        if newest is None or event.sequence > newest:
            self._journal.note_heard(event.incident, event.sequence)

    def _take_question(self, incoming: Incoming) -> None:
        question = topics.QUESTION.decode(incoming.payload)
        self._hear_question(question, incoming)
        self._delivery.add(topics.DELIVERED.topic(user=self.user), question.id)

    def _hear_question(self, question: Question, incoming: Incoming) -> None:
        if question.id in self.questions or self._is_repeat(question.id):
            self._note_repeat(question.id)
            return
        self.questions[question.id] = question
        _forget_oldest(self.questions)
        if self._on_question:
            self._on_question(question, incoming.received_at)


def _newest(kept: dict[UUID, Any]) -> Iterator[UUID]:
    """Return the ids of the newest `_NAMED` of what came."""
    return itertools.islice(reversed(kept), _NAMED)


def _forget_oldest(kept: dict[UUID, Any]) -> list[UUID]:
    """Keep the newest `KEPT` of what came; return the rest. A device runs for months."""
    forgotten = [identifier for identifier, _ in zip(kept, range(len(kept) - KEPT), strict=False)]
    for identifier in forgotten:
        del kept[identifier]
    return forgotten
