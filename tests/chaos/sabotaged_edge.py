"""Our own MQTT broker, breaking its word on purpose; started in place of `nabij.local.edge_process` by a test.

python sabotaged_edge.py SABOTAGE[,SABOTAGE] CONFIG
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from broker.edge.connection import Connection
from broker.edge.journal import Journal
from broker.edge.records import Key, Record, SessionRecord
from nabij.local.edge_process import main

VICTIM = "kept-1"
LATE_S = 0.5


def acknowledge_unwritten() -> None:
    """No answer waits for the journal, whose disk is slow: a kill finds what is not written yet."""
    answer, write = Connection.answer, Journal.write

    def answer_at_once(self: Connection, data: bytes, *, waits: bool, is_ack: bool = False) -> None:
        del waits
        answer(self, data, waits=False, is_ack=is_ack)

    def write_late(self: Journal, batch: bytes) -> None:
        time.sleep(LATE_S)  # of the thread that writes
        write(self, batch)

    Connection.answer = answer_at_once  # type: ignore[method-assign]
    Journal.write = write_late  # type: ignore[method-assign]


def forget_session() -> None:
    """One session is not there after a kill; all others are."""
    honest = Journal.read

    def read(self: Journal) -> Iterator[Record]:
        forgotten: set[Key] = set()
        for record in honest(self):
            if isinstance(record, SessionRecord) and record.client_id == VICTIM:
                forgotten.add(record.number)
            elif getattr(record, "number", None) not in forgotten:
                yield record

    Journal.read = read  # type: ignore[method-assign]


SABOTAGES = {"acknowledge-unwritten": acknowledge_unwritten, "forget-session": forget_session}

if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        SABOTAGES[name]()
    main()
