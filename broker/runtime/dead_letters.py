"""Dead letters as they are drawn up: of a message or an event that a service could not handle."""

import hashlib
import re
from datetime import datetime
from uuid import UUID, uuid5

from broker.mqtt import Delivery, Message
from broker.runtime.service import outgoing
from broker.store import DeadLetter, Store, StreamEntry, stream_topic
from schemas import topics
from schemas.codec import Invalid
from schemas.ids import NAMESPACE
from schemas.messages import Rejection
from schemas.validation_errors import sayable

REPLAY = "nabij-replay"  # user property of a message that is a dead letter replayed: its secret
_TOKEN = re.compile(r"[0-9a-f]{32}")
_SHOWN_BYTES = 1_024  # how much of a dead letter's payload operators see
_TOPIC_BYTES = 200  # of an unknown sender; a topic may have 64 KiB


def letter_of(
    source: Delivery | StreamEntry,
    error: Invalid,
    *,
    service: str,
    store: Store | None,
    replay_of: UUID | None,
    now: datetime,
) -> DeadLetter:
    """Return the dead letter of what `service` could not handle; `store` is whose stream it was on.

    `replay_of` is the dead letter that it was, if it was replayed.
    """
    if isinstance(source, StreamEntry):
        partition = store.keys.partition if store else 0
        topic, payload = stream_topic(service, partition), source.data
    else:
        topic, payload = source.message.topic, source.message.payload
    again = "Failed again when it was replayed. " if replay_of else ""
    return DeadLetter(
        id=_letter_id(service, topic, payload, replay_of),
        at=now,
        service=service,
        topic=topic,
        payload=payload,
        code=error.code,
        field=error.field,
        reason=f"{again}{error.reason}",
        replay_of=replay_of,
    )


def letter_of_refused(
    message: Message, error: Invalid, *, service: str, replay_of: UUID | None, now: datetime
) -> DeadLetter:
    """Return the dead letter of an unknown sender: one for all that comes from it.

    Nothing of what it says is kept: no service will ever handle it, and it may say where people
    are.
    """
    return DeadLetter(
        id=uuid5(NAMESPACE, f"refused|{service}|{message.topic}"),
        at=now,
        service=service,
        topic=sayable(message.topic, _TOPIC_BYTES),
        payload=b"",
        code=error.code,
        field=error.field,
        reason=error.reason,
        replay_of=replay_of,
        bare=True,
    )


def _letter_id(service: str, topic: str, payload: bytes, replay_of: UUID | None) -> UUID:
    """Return the same id for the same poison, however often it is delivered."""
    digest = hashlib.sha256(payload).hexdigest()
    return uuid5(NAMESPACE, f"dead-letter|{service}|{topic}|{digest}|{replay_of}")


def replay_token(delivery: Delivery) -> str | None:
    """Return what a message has for the secret of a replay: the store knows whether it is one."""
    for name, value in delivery.message.user_properties:
        if name == REPLAY and _TOKEN.fullmatch(value):  # any sender can write anything there
            return value
    return None


def rejection_of(letter: DeadLetter, size: int) -> Message:
    """Return what operators are told of a dead letter of a message of `size` bytes."""
    rejection = Rejection(
        service=letter.service,
        topic=letter.topic,
        code=letter.code,
        field=letter.field,
        reason=letter.reason,
        at=letter.at,
        payload=letter.payload[:_SHOWN_BYTES].decode("utf-8", "replace"),
        size=size,
    )
    return outgoing(topics.REJECTED, rejection, service=letter.service)
