"""A participant's device: reports, presence, alerts, replies and group messages.

    broker, listeners = Broker("localhost", 1883), Listeners(on_alert=show)
    async with Participant("ann", password, broker, listeners=listeners) as ann:
        receipt = await ann.report(report)      # stored when this returns
        await ann.reply(alert.incident, ReplyKind.ACCEPTED, eta_s=240)

With a journal nothing that has been accepted is lost, whichever process dies
(see `devices/journal.py`):

    async with (
        Journal("ann.journal") as journal,
        Participant("ann", password, broker, journal=journal, listeners=listeners) as ann,
    ):
        await ann.report(report)      # NotConfirmed after 10 s; it is still sent for 72 hours

Callbacks are plain functions of the message and the Unix time, in seconds, at which it came. They
are called before the message is acknowledged, so they must be quick.
"""

import enum
import math
from collections.abc import Callable, Collection
from datetime import UTC, datetime
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
from devices.connected_device import ConnectedDevice
from devices.delivery import JournalDelivery
from devices.delivery_receipts import DeliveryReceipts
from devices.device_connection import (
    Broker,
    DeviceConnection,
    Incoming,
    WhenUnreachable,
)
from devices.device_inbox import NO_LISTENERS, DeviceInbox, Listeners
from devices.device_options import DEFAULTS, DeviceOptions
from devices.journal import Journal, UnsentMessage
from devices.journal_file import JournalError
from devices.reading import read
from devices.sync import DeviceSynchronizer
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

_SYNC_TIMEOUT_S = 6.0  # then it is asked again: no service may have subscribed yet


class Confirm(enum.Enum):
    """Whether a presence asks for a receipt. If not, it is sent once, at QoS 0."""

    NO = "no"
    YES = "yes"


class Participant(ConnectedDevice):
    """One person's device, connected while the `async with` lasts; it reconnects by itself.

    `alerts`, `briefs` and `questions` hold each once, by id; `repeats` counts what came again.
    `groups` holds each incident's events in order of sequence. Each holds the newest 200. `on_group`
    gets events in the order in which they come: none is held back until a missing one has come.
    `on_receipt` gets the receipts that no call awaits: late ones, and the rejection of a presence
    that asked for none. It does not subscribe to the topics of `deaf_to`.

    `on_brief` gets alerts in short, after a presence with `Form.SHORT` has asked for them. The same
    alerts also come in full, unless `deaf_to` has `topics.ALERT`.

    With a `journal`, reports, replies, messages and answers are on disk before they are sent. They
    are sent until their receipt comes, also after NotConfirmed and after a restart, and are then
    deleted. `alerts`, `groups` and `questions` hold what has come since entering; what came before
    is a repeat. After each connection the device asks for what it missed. Entering waits at most
    `connect_timeout_s`, and goes on without a connection. `on_journaled` gets each message when it
    is on disk, before it is sent. `on_unconfirmed` gets what has no receipt `receipt_timeout_s`
    after it was made or found after a restart: tell the user to call 112. `on_expired` gets what is
    given up after 72 hours.
    """

    def __init__(
        self,
        user: str,
        password: str | None,
        broker: Broker,
        *,
        listeners: Listeners = NO_LISTENERS,
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
        self._delivery_receipts = DeliveryReceipts(self._connection)
        self._journal = journal
        self._parts = (self._connection, self._delivery_receipts)
        if journal:
            self._keep_in(journal, listeners, options)
            # Delivery first: the first message of a connection may be a receipt for the journal.
            self._parts = (self._journal_delivery, *self._parts, self._synchronizer)

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
        self._journal_delivery = JournalDelivery(
            self._connection,
            journal,
            response_topic=self._receipt_topic,
            unconfirmed_after_s=options.receipt_timeout_s,
            on_journaled=listeners.on_journaled,
            on_unconfirmed=listeners.on_unconfirmed,
            on_expired=listeners.on_expired,
        )
        self._synchronizer = DeviceSynchronizer(
            self._connection,
            journal,
            self._sync_once,
            is_missing=lambda: bool(self._inbox.missing),
        )

    async def connect(self) -> None:
        """Return when the device is connected."""
        await self._connection.link()

    async def __aenter__(self) -> Self:
        if self._journal:
            await self._journal.belong_to(self.user)
        return await super().__aenter__()

    async def report(self, report: Report) -> Receipt:
        """Send `report` until it is confirmed.

        Raises:
            NotConfirmed, MessageRejected: as every method that returns a receipt.
            Invalid: the message is larger than the services take; every method may raise it.
            JournalError: it could not be written to the journal, and is not sent: call 112.
        """
        return await self._send_confirmed(topics.REPORT, report, report.id)

    async def presence(
        self,
        location: Position | None,
        availability: Availability = Availability.AVAILABLE,
        *,
        at: datetime | None = None,
        form: Form | None = None,
        confirm: Confirm = Confirm.NO,
    ) -> Receipt | None:
        """Say where the participant is and whether they take alerts; return the receipt, if asked for.

        Without `confirm` and without a connection it is dropped: the next presence replaces it.
        `form` asks for alerts also in short, or only in full, from now on and for all devices of the
        account; use `confirm` with it, so that the setting is not lost.
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
        return await self._send_confirmed(topics.REPLY, reply, reply.id)

    async def say(self, incident: UUID, text: str) -> Receipt:
        """Say `text` to the group around `incident`."""
        message = GroupMessage(id=new_id(), incident=incident, text=text)
        return await self._send_confirmed(topics.MESSAGE, message, message.id)

    async def answer(self, question: UUID, text: str) -> Receipt:
        """Answer a question of the police."""
        answer = Answer(id=new_id(), question=question, text=text)
        return await self._send_confirmed(topics.ANSWER, answer, answer.id)

    async def sync(self, since: datetime) -> Receipt:
        """Ask for the alerts and group events after `since` again."""
        return await self._confirmed(topics.SYNC, Sync(since=since), fresh_key())

    async def _sync_once(self, since: datetime) -> Receipt:
        """`sync`, sent once per connection: it is expensive for the services."""
        request = Request(
            topics.SYNC.topic(user=self.user),
            encode(self._inbox.sync_since(since, reversed(self._known_alerts))),
            self._receipt_topic,
            fresh_key(),
            expiry_s=math.ceil(_SYNC_TIMEOUT_S),
        )
        self._inbox.missing.clear()  # an event that the sync does not bring does not exist
        return await self._receipts.confirmed(
            request, repeat_after_s=math.inf, timeout_s=_SYNC_TIMEOUT_S
        )

    async def _send_confirmed(self, topic: Topic[Any], payload: Any, key: UUID) -> Receipt:
        """Write the message to the journal, if there is one, and send it until it is confirmed."""
        if self._journal is None:
            return await self._confirmed(topic, payload, key)
        return await self._journal_delivery.confirmed(
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
            self._journal is not None and self._journal_delivery.take(receipt, incoming)
        )
        if not told and self._on_receipt:
            self._on_receipt(receipt, incoming.received_at)

    def _note_gap(self) -> None:
        self._synchronizer.note_gap()

    def _take_question(self, incoming: Incoming) -> None:
        question = self._inbox.take_question(incoming)
        self._delivery_receipts.add(topics.DELIVERED.topic(user=self.user), question.id)
