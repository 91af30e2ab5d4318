"""The messages of the outbox, who must confirm them, and what the relay does with one."""

from typing import NamedTuple, Self
from uuid import UUID

import msgspec

from broker.core.resending import GRACE_MS, Pacing, again_after_ms
from schemas.taxonomy import Desk
from schemas.topics import CITY_DELIVERED, DESK_DELIVERED


class Reader(NamedTuple):
    """The reader that must confirm a message: the desk of a zone or municipality, or a user."""

    kind: str
    name: str

    @classmethod
    def of(cls, topic: str) -> Self:
        """Return the reader of messages on `topic`: its two levels after the root."""
        _, _, kind, name, _ = topic.split("/", 4)
        return cls(kind, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reader whose `str` is `text`."""
        kind, name = text.split("/")
        return cls(kind, name)

    @property
    def is_desk(self) -> bool:
        """Whether it is a desk, not a user."""
        return self.kind in (Desk.POLICE, Desk.CITY)

    @property
    def confirms_on(self) -> str:
        """The topic on which a desk confirms by id what it has received."""
        if self.kind == Desk.POLICE:
            return DESK_DELIVERED.topic(zone=self.name)
        return CITY_DELIVERED.topic(municipality=self.name)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class OutboxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the outbox: committed at `made_ms`, to be sent again from `due_ms` on.

    `attended`: the duty desk has it, so no alarm is raised for it; it still waits for its own desk.
    `sent_ms` is when it was first sent to its reader, and `climbed_ms` to the duty desk; 0: not yet.
    """

    id: str
    topic: str
    payload: bytes
    made_ms: int
    due_ms: int
    attended: bool = False
    sent_ms: int = 0
    climbed_ms: int = 0

    @property
    def reader(self) -> Reader:
        """The reader that must confirm it."""
        return Reader.of(self.topic)

    def __str__(self) -> str:
        return self.id  # its content must not be logged


class DutyDesk(NamedTuple):
    """The desk to which a message climbs that its own has not confirmed `after_ms` after commit."""

    reader: Reader
    after_ms: int

    def takes(self, message: OutboxMessage, now_ms: int) -> bool:
        """Whether a message climbs; also one that was committed by a clock that went back since."""
        return self._may_take(message) and not 0 <= now_ms - message.made_ms < self.after_ms

    def takes_in_ms(self, message: OutboxMessage, now_ms: int) -> int | None:
        """Return how soon a message is to climb that has not; None if it is not to, or has."""
        if message.climbed_ms or not self._may_take(message) or self.takes(message, now_ms):
            return None
        return message.made_ms + self.after_ms - now_ms

    def _may_take(self, message: OutboxMessage) -> bool:
        is_other = message.reader != self.reader and message.reader.kind == self.reader.kind
        return is_other and not message.attended


class Due(NamedTuple):
    """What is done with a message now: whether it is sent to its reader, and to the duty desk.

    It is looked at again after `wait_ms`.
    """

    message: OutboxMessage
    to_reader: bool
    climbs: bool
    wait_ms: int

    @property
    def is_sent(self) -> bool:
        """Whether it is sent to anyone."""
        return self.to_reader or self.climbs

    def sent(self, now_ms: int) -> OutboxMessage:
        """Return the message with when it was first sent to whom."""
        message = self.message
        return msgspec.structs.replace(
            message,
            sent_ms=message.sent_ms or (now_ms if self.to_reader else 0),
            climbed_ms=message.climbed_ms or (now_ms if self.climbs else 0),
        )


def posted(identifier: UUID, topic: str, payload: bytes, *, now_ms: int) -> OutboxMessage:
    """Return a message that its maker publishes at once: it is due after the time to confirm it."""
    return OutboxMessage(
        id=str(identifier),
        topic=topic,
        payload=payload,
        made_ms=now_ms,
        due_ms=now_ms + GRACE_MS,
        sent_ms=now_ms,
    )


class Undelivered(NamedTuple):
    """How many messages a desk has not confirmed, and when the oldest was committed."""

    reader: Reader
    messages: int
    oldest_ms: int

    def merged(self, other: "Undelivered | None") -> "Undelivered":
        """Return the sum of two partitions' counts for the same desk."""
        if other is None:
            return self
        oldest_ms = min(self.oldest_ms, other.oldest_ms)
        return Undelivered(self.reader, self.messages + other.messages, oldest_ms)


class Turn(NamedTuple):
    """One turn of the relay; `duty` is the desk to which what is late climbs."""

    now_ms: int
    pacing: Pacing
    duty: DutyDesk | None

    def decide(self, message: OutboxMessage, *, late_ms: int, is_asked: bool) -> Due:
        """Decide what is done with a message; `is_asked`: its reader has said that it lacks it."""
        if not message.reader.is_desk:
            return Due(message, to_reader=True, climbs=False, wait_ms=again_after_ms(late_ms))
        desk = str(message.reader)
        is_new = is_asked or not message.sent_ms
        to_reader = is_new or self.pacing.sends(desk, message.sent_ms)
        climbs = self._climbs(message, is_asked=is_asked)
        if to_reader or climbs:
            wait_ms = self.pacing.again_after_ms(desk, late_ms)
        else:
            wait_ms = self.pacing.unsent_for_ms(desk, message.sent_ms, late_ms)
        if self.duty is not None:
            wait_ms = min(wait_ms, self.duty.takes_in_ms(message, self.now_ms) or wait_ms)
        return Due(message, to_reader, climbs, wait_ms)

    def _climbs(self, message: OutboxMessage, *, is_asked: bool) -> bool:
        if self.duty is None or not self.duty.takes(message, self.now_ms):
            return False
        if is_asked or not message.climbed_ms:
            return True
        return self.pacing.sends(str(self.duty.reader), message.climbed_ms)
