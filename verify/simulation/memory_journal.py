"""A journal whose files are lists of batches: what `broker/edge/journal.py` has on disk."""

from collections.abc import Iterator
from pathlib import Path

from broker.edge.edge_broker import EdgeBroker
from broker.edge.records import Record, decode_batch
from broker.edge.recovery import BrokerJournal

_LARGE = 200  # batches: it is rewritten often, so that kills fall in between
_AT_ONCE = 20  # records

Files = list[list[bytes]]


class MemoryJournal(BrokerJournal):
    """The journal of one life of an MQTT broker; the files outlive it."""

    def __init__(self, broker: EdgeBroker, files: Files) -> None:
        super().__init__(broker, Path(), at_once=_AT_ONCE)
        self._files = files

    def open(self) -> None:
        """Nobody else has it."""

    def read(self) -> Iterator[Record]:
        """Yield the records of all files, oldest first."""
        for batches in self._files:
            for batch in batches:
                yield from decode_batch(batch)

    def append(self, batch: bytes) -> None:
        """Write a batch; it is on the disk."""
        self._files[-1].append(batch)

    @property
    def is_large(self) -> bool:
        """Whether the file should be rewritten."""
        return len(self._files) == 1 and len(self._files[0]) > _LARGE

    def rewrite(self) -> None:
        """Begin the next file; a copy of all that is live follows, then `rewritten`."""
        self._files.append([])

    def rewritten(self) -> None:
        """All that is live is in the present file: those before it go."""
        del self._files[:-1]
