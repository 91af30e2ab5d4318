"""Receipts: the broker's for a message that it handled, and a reader's for messages that it has."""

import enum
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from schemas.lenient import Lenient, ids, may_grow
from schemas.messages.fields import Time
from schemas.validation_errors import Code

__all__ = ["DeliveryReceipt", "Merge", "Outcome", "Receipt", "Subject"]


class Outcome(enum.StrEnum):
    """The outcome of a message. A repeated message gets the same receipt again."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Subject(enum.StrEnum):
    """The kind of message that a receipt is about: the last level of its topic.

    `other`, here and elsewhere, is how a reader reads a value that it does not know.
    """

    REPORT = "report"
    PRESENCE = "presence"
    REPLY = "reply"
    MESSAGE = "message"
    ANSWER = "answer"
    SYNC = "sync"
    RECEIPT = "receipt"
    COMMAND = "command"
    OTHER = "other"


class Merge(enum.StrEnum):
    """Whether a report opened an incident or joined one."""

    OPENED = "opened"
    MERGED = "merged"


class Receipt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Proof that a message is durably stored, or the reason why it was rejected.

    `sequence` numbers the reports of one partition in the order of commit. The receipt of a report
    for the police alone has neither `sequence` nor `merge`, and its `incident` is an id of this
    report's own. `advice` says to call 112; it comes with every urgent report and every rejected
    one. A rejection has `code`, `field` (JSON path, `$` is the whole payload) and `reason` (a
    sentence). `notes` say what was odd in the message, and how it was read.
    """

    subject: Annotated[Subject, may_grow(Subject.OTHER)]
    outcome: Annotated[Outcome, may_grow(Outcome.REJECTED)]
    at: Time
    id: UUID | None = None
    incident: UUID | None = None
    merge: Annotated[Merge | None, Lenient()] = None
    sequence: int | None = None
    advice: str | None = None
    code: Annotated[Code | None, may_grow(Code.OTHER)] = None
    field: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


class DeliveryReceipt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reader confirms that it has these messages: escalations or cases of a desk, questions of a user.

    Until then they are sent again. The PUBACK of an MQTT broker does not count: it only says that
    the broker has the message, or that some client has subscribed.
    """

    ids: Annotated[frozenset[UUID], Meta(min_length=1, max_length=200), Lenient(ids(200))]
