"""A participant's device: reports, presence, alerts, replies and the talk of the group.

    broker, listeners = Broker("localhost", 1883), Listeners(on_alert=show)
    async with Participant("ann", password, broker, listeners=listeners) as ann:
        receipt = await ann.report(report)      # stored when this returns
        await ann.reply(alert.incident, ReplyKind.ACCEPTED, eta_s=240)

With a journal nothing that was promised is lost, whatever dies (see `devices/journal.py`):

    async with (
        Journal("ann.journal") as journal,
        Participant("ann", password, broker, journal=journal, listeners=listeners) as ann,
    ):
        await ann.report(report)      # NotConfirmed after 10 s; it goes on trying for 72 hours

Callbacks are plain functions of the message and its Unix time of receipt in seconds, called
before the message is acknowledged: they must be quick.
"""

import enum
import math
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from devices.await_receipt import (
    MessageRejected,
    NotConfirmed,
    Receipts,
    Request,
    accepted,
    fresh_key,
)
from devices.delivery import Courier
from devices.delivery_receipts import DeliveryReceipts
from devices.device_connection import (
    Broker,
    DeviceConnection,
    Incoming,
    WhenUnreachable,
)
from devices.device_inbox import NOBODY, DeviceInbox, Listeners
from devices.device_options import DEFAULTS, DeviceOptions
from devices.journal import Journal, UnsentMessage
from devices.journal_file import JournalError
from devices.reading import read
from devices.sync import CatchUp
from schemas import topics
from schemas.codec import encode, encode_within_limit
from schemas.ids import new_id
from schemas.messages import (
    Answer,
    Availability,
    Form,
    GroupMessage,
    Position,
    Presence,
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
    "DeviceOptions",
    "Journal",
    "JournalError",
    "Listeners",
    "MessageRejected",
    "NotConfirmed",
    "Participant",
    "UnsentMessage",
    "accepted",
]

_SYNC_TIMEOUT_S = 6.0  # it may have come to an MQTT broker that no service had subscribed to yet


class Confirm(enum.Enum):
    """Whether a presence asks for a receipt. Without one it is sent once, at QoS 0."""

    NO = "no"
    YES = "yes"


class Participant:
    """One person's device, connected while the `async with` lasts; it reconnects by itself.

    `alerts`, `briefs` and `questions` hold each once, by id; `repeats` counts what came again.
    `groups` holds each incident's events in order of sequence. Of each the newest 200 are held.
    Events reach `on_group` in the order in which they come, since news is never held back for what
    was missed. `on_receipt` gets the receipts that nobody awaits: late ones, and the rejection of a
    presence that asked for none. To the topics of `deaf_to` it does not subscribe.

    `on_brief` gets alerts in short, once a presence with `Form.SHORT` has asked for them; the same
    alerts come in full too, unless `deaf_to` has `topics.ALERT`.

    With a `journal`, reports, replies, messages and answers are on disk before they are sent, go on
    being sent after NotConfirmed and after a restart, and are deleted on their receipt. `alerts`,
    `groups` and `questions` hold what has come since entering; what came before it is a repeat.
    After each connection the device asks for what it missed. Entering waits at most
    `connect_timeout_s`, and goes on without a connection. `on_journaled` gets each message
    when it is on disk, before it is sent. `on_unconfirmed` gets what has no receipt
    `receipt_timeout_s` after it was made or found again: tell its user to call 112. `on_expired`
    gets what is given up after 72 hours.
    """

    def __init__(
        self,
        user: str,
        password: str | None,
        broker: Broker,
        *,
        listeners: Listeners = NOBODY,
        options: DeviceOptions = DEFAULTS,
        journal: Journal | None = None,
        deaf_to: Collection[Topic[Any]] = (),
    ) -> None:
        self.user = user
        self._inbox = DeviceInbox(journal, listeners, on_gap=self._note_gap)
        self.alerts = self._inbox.alerts
        self.briefs = self._inbox.briefs
        self.questions = self._inbox.questions
        self.groups = self._inbox.groups
        self.repeats = self._inbox.repeats
        self._known_alerts = self.briefs if topics.ALERT in deaf_to else self.alerts
        self._on_receipt = listeners.on_receipt
        self._receipt_topic = topics.RECEIPT.topic(user=user)
        self._handlers = self._handlers_but(deaf_to, brief=listeners.on_brief is not None)
        self._connection = DeviceConnection(
            broker,
            options.identity(user, password, usual="device"),
            filters=tuple(self._handlers),
            on_message=self._take,
            connect_timeout_s=options.connect_timeout_s,
            when_unreachable=WhenUnreachable.KEEP_TRYING if journal else WhenUnreachable.FAIL,
        )
        self._receipts = Receipts(self._connection, timeout_s=options.receipt_timeout_s)
        self._delivery = DeliveryReceipts(self._connection)
        self._entered: AsyncExitStack
        self._journal = journal
        if journal:
            self._keep_in(journal, listeners, options)

    def _handlers_but(
        self, deaf_to: Collection[Topic[Any]], *, brief: bool
    ) -> dict[str, Callable[[Incoming], None]]:
        handlers: dict[Topic[Any], Callable[[Incoming], None]] = {
            topics.RECEIPT: self._take_receipt,
            topics.ALERT: self._inbox.take_alert,
            topics.GROUP: self._inbox.take_group,
            topics.QUESTION: self._take_question,
        }
        if brief:
            handlers[topics.BRIEF] = self._inbox.take_brief
        return {
            topic.topic(user=self.user): handler
            for topic, handler in handlers.items()
            if topic not in deaf_to
        }

    def _keep_in(self, journal: Journal, listeners: Listeners, options: DeviceOptions) -> None:
        self._courier = Courier(
            self._connection,
            journal,
            response_topic=self._receipt_topic,
            unconfirmed_after_s=options.receipt_timeout_s,
            on_journaled=listeners.on_journaled,
            on_unconfirmed=listeners.on_unconfirmed,
            on_expired=listeners.on_expired,
        )
        self._catch_up = CatchUp(
            self._connection,
            journal,
            self._sync_once,
            is_missing=lambda: bool(self._inbox.missing),
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
        form: Form | None = None,
        confirm: Confirm = Confirm.NO,
    ) -> Receipt | None:
        """Say where we are and whether we take alerts; None unless it is to be confirmed.

        Unconfirmed and without a connection it is dropped: the next one says more. `form` asks for
        alerts in short too, or in full alone, from now on and for all devices of the account:
        confirmed, lest the wish is lost.
        """
        presence = Presence(
            at=at or datetime.now(UTC), location=location, availability=availability, form=form
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
            encode(self._inbox.sync_since(since, reversed(self._known_alerts))),
            self._receipt_topic,
            fresh_key(),
            expiry_s=math.ceil(_SYNC_TIMEOUT_S),
        )
        self._inbox.missing.clear()  # what it does not bring is not there
        return await self._receipts.confirmed(
            request, repeat_after_s=math.inf, timeout_s=_SYNC_TIMEOUT_S
        )

    async def _entrusted(self, topic: Topic[Any], payload: Any, key: UUID) -> Receipt:
        """Keep the message in the journal, if there is one, and send it until it is confirmed."""
        if self._journal is None:
            return await self._confirmed(topic, payload, key)
        return await self._courier.confirmed(
            UnsentMessage(
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
        receipt = read(topics.RECEIPT, incoming.payload)
        told = self._receipts.take(receipt, incoming) or (
            self._journal is not None and self._courier.take(receipt, incoming)
        )
        if not told and self._on_receipt:
            self._on_receipt(receipt, incoming.received_at)

    def _note_gap(self) -> None:
        self._catch_up.note_gap()

    def _take_question(self, incoming: Incoming) -> None:
        question = self._inbox.take_question(incoming)
        self._delivery.add(topics.DELIVERED.topic(user=self.user), question.id)
