"""A `Wire` whose journal is files, written and rewritten by the broker's own `BrokerJournal`."""

import os
from itertools import islice
from pathlib import Path

from broker.edge.edge_broker import EdgeBroker
from broker.edge.journal import Journal
from broker.edge.records import encode_batch
from broker.edge.recovery import BrokerJournal, restore, snapshot
from tests.edge.wire import Wire


class JournalWire(Wire):
    """Its journal is rewritten when it has `min_bytes`, one thing after another."""

    def __init__(self, directory: Path, min_bytes: int = 1 << 24) -> None:
        super().__init__(is_durable=True)
        self._directory = directory
        self._min_bytes = min_bytes
        self._start()

    def _start(self) -> None:
        self.kept = BrokerJournal(
            self.broker, self._directory, min_bytes=self._min_bytes, at_once=1
        )
        self.kept.recover()
        self.broker.tick()

    @property
    def unwritten(self) -> int:
        """How many batches are collected and not written."""
        return len(self._unwritten)

    @property
    def files(self) -> list[Path]:
        """The journal's files, oldest first."""
        return sorted(self._directory.glob("journal-*"))

    def write_journal(self, batches: int = 1 << 30) -> None:
        """So many batches are on the disk, and the broker knows."""
        some, self._unwritten = self._unwritten[:batches], self._unwritten[batches:]
        for number, batch in some:
            self.kept.write(batch)
            self.broker.committed(number)
        if some:
            self.kept.copy()

    def kill(self, written: int = 0, torn_bytes: int = 0, copied: int | None = None) -> None:
        """Kill -9 when so many batches are written, and perhaps a part of the next; start again.

        If it has `copied` so many things of its journal, it is killed once more in that start.
        """
        for _, batch in self._unwritten[:written]:
            self.kept.write(batch)
        if torn_bytes and written < len(self._unwritten):
            self.kept.write(self._unwritten[written][1])
            size = self.files[-1].stat().st_size
            os.truncate(self.files[-1], size - min(torn_bytes, len(self._unwritten[written][1])))
        self.kept.close()
        self._unwritten.clear()
        self.clients.clear()
        if copied is not None:
            self._start_and_die(copied)
        self.broker = self._new_broker()
        self._start()

    def _start_and_die(self, copied: int) -> None:
        broker = self._new_broker()
        journal = Journal(self._directory)
        journal.open()
        restore(broker, journal.read())
        journal.rewrite()
        for records in islice(snapshot(broker, 1), copied):
            journal.append(encode_batch(records))
        journal.close()

    def twin(self) -> EdgeBroker:
        """What a kill at this moment would leave."""
        twin = self._new_broker()
        restore(twin, Journal(self._directory).read())
        return twin
