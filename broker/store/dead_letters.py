"""Dead letters: messages that no handler or desk took, kept for an operator to replay or drop."""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction

MOST = 10_000
MOST_BYTES = 64 * 1024 * 1024
MOST_OF_ONE = 200  # of one sender, who cannot push out the letters of others
MOST_REFUSED = 100  # of all unknown senders together
MOST_EVENTS = MOST_OF_READER = 4_000  # of one reader, so that those of others stay
LIFETIME = timedelta(days=30)  # they contain what people said, and where
REPLAY_S = 86_400  # how long an MQTT broker keeps a message for a service that is down

_STREAM = "events:"
_LONGEST_SENDER = 60


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message or event that `service` could not handle or, if `outgoing`, that no reader confirmed.

    `topic` is the message's, or `events:` and the service whose stream it was on, with the number
    of its partition unless that is the first. `replay_of` is the dead letter whose replay failed. A
    `bare` one says that a sender with an invalid name sent something, without its content.
    """

    id: UUID
    at: datetime
    service: str
    topic: str
    payload: bytes
    code: str
    field: str
    reason: str
    replay_of: UUID | None = None
    outgoing: bool = False
    bare: bool = False

    @property
    def share(self) -> tuple[str, int]:
        """The share that it counts for, and how many of that share are kept."""
        if self.bare:
            return "refused", MOST_REFUSED
        if self.stream is not None:
            return "events", MOST_EVENTS
        own = "/".join(self.topic.split("/")[2:4])
        if len(own) > _LONGEST_SENDER:
            own = "others"
        return (f"to {own}", MOST_OF_READER) if self.outgoing else (own, MOST_OF_ONE)

    @property
    def stream(self) -> str | None:
        """The service on whose stream it was, for an event."""
        if not self.topic.startswith(_STREAM):
            return None
        return self.topic.removeprefix(_STREAM).partition("/")[0]

    @property
    def partition(self) -> int:
        """The partition on whose stream it was, for an event."""
        return int(self.topic.partition("/")[2] or 0) if self.stream else 0


def stream_topic(service: str, partition: int = 0) -> str:
    """Return the `topic` of the dead letter of an event of `service`."""
    return f"{_STREAM}{service}/{partition}" if partition else f"{_STREAM}{service}"


class Counts(NamedTuple):
    """How many are kept, and how many were dropped unread for want of room."""

    kept: int
    dropped: int


_DECODER = msgspec.msgpack.Decoder(DeadLetter)


class DeadLetters:
    """The dead letters, in the first partition: the newest `MOST`, none older than `LIFETIME`.

    Each sender, and each reader of outgoing messages, has a share. Of one sender the newest
    `MOST_OF_ONE` are kept. When there is no more room, the oldest of the largest share is dropped.
    So no sender pushes out the letters of others, and no absent desk those of another desk.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = keys = redis.keys
        self._all = [
            keys.dead_letters,
            keys.dead_letter_times,
            keys.dead_letter_counts,
            keys.dead_letter_shares,
            keys.dead_letter_bytes,
        ]

    async def keep(self, letter: DeadLetter) -> bool:
        """Keep `letter`, once, in place of the one that it replays; return whether it is new."""
        replaced = [str(letter.replay_of)] if letter.replay_of else []
        share, most_of_share = letter.share
        replaced_some = await self._redis.script(
            "bury",
            self._all,
            [
                MOST,
                MOST_BYTES,
                LIFETIME // timedelta(milliseconds=1),
                most_of_share,
                self._keys.dead_letters_of(""),
                str(letter.id),
                milliseconds(letter.at),
                msgspec.msgpack.encode(letter),
                share,
                *replaced,
            ],
        )
        return not replaced_some

    async def drop(self, identifiers: Iterable[UUID]) -> int:
        """Delete these; return how many there were."""
        found = await self._redis.script(
            "bury",
            self._all,
            [
                MOST,
                MOST_BYTES,
                0,
                0,
                self._keys.dead_letters_of(""),
                "",
                0,
                "",
                "",
                *(str(one) for one in identifiers),
            ],
        )
        return int(found)

    async def allow_replay(self, letter: UUID) -> str:
        """Return the secret that marks a message as the replay of this dead letter, once.

        Only a process that may write to Redis can replay: what an MQTT client says proves nothing.
        """
        token = secrets.token_hex(16)
        await self._redis.call("SET", self._keys.replay(token), str(letter), "EX", REPLAY_S)
        return token

    async def replayed_by(self, token: str) -> UUID | None:
        """Return the dead letter that is replayed under `token`, or None."""
        letter = await self._redis.call("GET", self._keys.replay(token))
        return UUID(letter.decode()) if letter else None

    async def end_replay(self, token: str) -> None:
        """Delete the dead letter whose replay has worked, and its secret; ignore other tokens."""
        letter = await self.replayed_by(token)
        if letter is not None:
            await self.drop([letter])
            await self._redis.call("DEL", self._keys.replay(token))

    async def all(self) -> list[DeadLetter]:
        """Return every one, the oldest first."""
        found = await self._redis.call("ZRANGE", self._keys.dead_letter_times, 0, -1)
        if not found:
            return []
        blobs = await self._redis.call("HMGET", self._keys.dead_letters, *found)
        return [_DECODER.decode(blob) for blob in blobs if blob]

    async def get(self, identifier: UUID) -> DeadLetter | None:
        """Return one, or None."""
        blob = await self._redis.call("HGET", self._keys.dead_letters, str(identifier))
        return _DECODER.decode(blob) if blob else None

    async def counts(self) -> Counts:
        """Return how many are kept and were dropped."""
        transaction = Transaction(self._redis)
        transaction.call("ZCARD", self._keys.dead_letter_times)
        transaction.call("HGET", self._keys.dead_letter_counts, "dropped")
        results = await transaction.run()
        assert results is not None  # there are no guards
        return Counts(*(int(result or 0) for result in results))
