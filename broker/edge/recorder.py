"""Collects the records of a turn, and knows which messages the journal still holds."""

from broker.edge.message import Message
from broker.edge.records import DoneRecord, Key, MessageRecord, Record, encode_batch


class Recorder:
    """One batch of records after another; `number` is that of the batch that is being collected.

    Those up to `committed` are in the journal. `is_urgent` when a packet waits for what is
    collected. `unix_offset_s` is Unix time less monotonic time; None: nothing is kept.
    """

    def __init__(self, unix_offset_s: float | None) -> None:
        self.is_on = unix_offset_s is not None
        self.is_urgent = False
        self.number = 1
        self.committed = 0
        self.live: dict[int, Message] = {}
        self._offset_s = unix_offset_s or 0.0
        self._records: list[Record] = []
        self._done: dict[Key, list[int]] = {}

    def take(self) -> bytes:
        """Return what is collected since the last call, and begin the next batch; b"" if nothing."""
        self._records += [DoneRecord(key, numbers) for key, numbers in self._done.items()]
        if not self._records:
            return b""
        batch = encode_batch(self._records)
        self._records, self._done, self.is_urgent = [], {}, False
        self.number += 1
        return batch

    @property
    def is_empty(self) -> bool:
        """Whether nothing is collected."""
        return not self._records and not self._done

    @property
    def awaited(self) -> int:
        """The number of the batch that an answer has to wait for, which may be committed."""
        return self.number if self.is_urgent else self.number - 1

    def add(self, record: Record) -> None:
        """Collect a record that an answer to a client waits for."""
        if self.is_on:
            self._records.append(record)
            self.is_urgent = True

    def add_message(self, message: Message) -> None:
        """Collect that a message is in the queues of its holders: those when the batch is taken."""
        if self.is_on and message.holders:
            self.live[message.number] = message
            self.add(self.of(message))

    def of(self, message: Message) -> MessageRecord:
        """Return what has to be known of a message."""
        came_at = self.unix(message.came_at)
        return MessageRecord(message.number, message.publish, came_at, message.holders)

    def done(self, key: Key, message: Message) -> None:
        """A message has left the queue of `key`; nothing waits for this to be written."""
        if message.holders.pop(key, None) is not None and self.is_on:
            self._done.setdefault(key, []).append(message.number)
            if not message.holders:
                self.live.pop(message.number, None)

    def unix(self, at: float) -> float:
        """Return the Unix time of a monotonic one."""
        return at + self._offset_s

    def monotonic(self, unix_s: float) -> float:
        """Return the monotonic time of a Unix one."""
        return unix_s - self._offset_s
