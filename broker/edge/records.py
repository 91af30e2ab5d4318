"""What the journal says: every change that must outlive the process, as a record.

Times in records are Unix seconds: a monotonic clock starts again with its machine. A `number` is a
session's.
"""

from typing import Any

import msgspec

from broker.edge.packets import Publish

Key = int | str  # of a queue: a session's number, or the filter of a shared subscription
# QoS, RETAIN flag, subscription ids; with QoS 2 its packet id once sent, and whether PUBREC has come
Holding = tuple[int, bool, tuple[int, ...], int, bool]


class _Record(msgspec.Struct, gc=False, array_like=True):
    pass


class MessageRecord(_Record, tag=0):
    """A message, and in whose queues it is."""

    message: int
    publish: Publish
    came_at: float
    holders: dict[Key, Holding]


class DoneRecord(_Record, tag=1):
    """These messages have left the queue of `key`."""

    key: Key
    messages: list[int]


class SessionRecord(_Record, tag=2):
    """A session exists, or has another expiry or will; `expires_at` once it is disconnected."""

    number: Key
    account: str
    client_id: str
    expiry_s: int
    expires_at: float | None
    will: Publish | None
    will_delay_s: int
    will_at: float | None


class EndedRecord(_Record, tag=3):
    """A session has ended."""

    number: Key


class SubscriptionRecord(_Record, tag=4):
    """A session has subscribed (`subscriptions.Options`), or unsubscribed: None."""

    number: Key
    pattern: str
    options: tuple[int, bool, bool, int | None] | None


class HeldRecord(_Record, tag=5):
    """How a session holds a message that goes to its client with QoS 2, or came of a group."""

    number: Key
    message: int
    holding: Holding


class ReceivedRecord(_Record, tag=6):
    """A message of QoS 2 has come of a client; `is_held` until the client releases its packet id."""

    number: Key
    packet_id: int
    is_held: bool


class RetainedRecord(_Record, tag=7):
    """What is retained, and for which account; without a payload: nothing any more."""

    publish: Publish
    came_at: float
    account: str


Record = (
    MessageRecord
    | DoneRecord
    | SessionRecord
    | EndedRecord
    | SubscriptionRecord
    | HeldRecord
    | ReceivedRecord
    | RetainedRecord
)

encode_batch = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(list[Record])


def decode_batch(data: bytes | memoryview) -> list[Record]:
    """Return the records of one batch; msgspec.DecodeError if they are none."""
    found: list[Record] = _decoder.decode(data)
    return found
