"""Dead letters as they are drawn up: of a message or an event that a service could not handle."""

import contextlib
import hashlib
from datetime import UTC, datetime
from uuid import UUID, uuid5

from broker.mqtt import Delivery, Message
from broker.service import outgoing
from broker.store import DeadLetter, Entry, Store, stream_topic
from schemas import topics
from schemas.codec import Invalid
from schemas.ids import NAMESPACE
from schemas.messages import Rejection

REPLAY = "nabij-replay"  # user property of a message that is a dead letter replayed: its id
_SHOWN_BYTES = 1_024  # how much of a dead letter's payload operators see


def letter_of(
    source: Delivery | Entry, error: Invalid, *, service: str, store: Store | None
) -> DeadLetter:
    """Return the dead letter of what `service` could not handle; `store` is whose stream it was on."""
    if isinstance(source, Entry):
        partition = store.keys.partition if store else 0
        topic, payload, replay_of = (
            stream_topic(service, partition), source.data, source.replay_of,
        )  # fmt: skip
    else:
        message = source.message
        topic, payload, replay_of = message.topic, message.payload, replay_of_delivery(source)
    again = "Failed again when it was replayed. " if replay_of else ""
    return DeadLetter(
        id=_letter_id(service, topic, payload, replay_of),
        at=datetime.now(UTC),
        service=service,
        topic=topic,
        payload=payload,
        code=error.code,
        field=error.field,
        reason=f"{again}{error.reason}",
        replay_of=replay_of,
    )


def _letter_id(service: str, topic: str, payload: bytes, replay_of: UUID | None) -> UUID:
    """Return the same id for the same poison, however often it is delivered."""
    digest = hashlib.sha256(payload).hexdigest()
    return uuid5(NAMESPACE, f"dead-letter|{service}|{topic}|{digest}|{replay_of}")


def replay_of_delivery(delivery: Delivery) -> UUID | None:
    """Return the dead letter that a message was, if it was replayed."""
    for name, value in delivery.message.user_properties:
        if name == REPLAY:
            with contextlib.suppress(ValueError):  # anybody can write anything there
                return UUID(value)
    return None


def rejection_of(letter: DeadLetter) -> Message:
    """Return what operators are told of a dead letter."""
    rejection = Rejection(
        service=letter.service,
        topic=letter.topic,
        code=letter.code,
        field=letter.field,
        reason=letter.reason,
        at=letter.at,
        payload=letter.payload[:_SHOWN_BYTES].decode("utf-8", "replace"),
        size=len(letter.payload),
    )
    return outgoing(topics.REJECTED, rejection, service=letter.service)
