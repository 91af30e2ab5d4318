"""What the processes of a chaos run share: their orders, their signals, and what devices log."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TypeVar

import msgspec

from schemas.messages import Alert, Brief, GroupEvent, Question, Receipt
from verify.chaos.chaos_log import Log
from verify.oracle.observations import AlertSeen, GroupEventSeen, QuestionSeen, ReceiptSeen

Orders = TypeVar("Orders", bound=msgspec.Struct)


class DeviceListener:
    """Writes what one user's device hears into a log."""

    def __init__(self, user: str, log: Log) -> None:
        self.user = user
        self._log = log

    def receipt(self, receipt: Receipt, _received_at: float = 0.0) -> None:
        """A message is accepted or rejected."""
        if row := ReceiptSeen.of(receipt, t=time.time(), to=self.user):
            self._log.write(row)

    def alert(self, alert: Alert | Brief, received_at: float) -> None:
        """An alert has come, in full or in short."""
        self._log.write(AlertSeen.of(alert, t=received_at, user=self.user))

    def group_event(self, event: GroupEvent, received_at: float) -> None:
        """Something happened in a group."""
        self._log.write(GroupEventSeen.of(event, t=received_at, user=self.user))

    def question(self, question: Question, received_at: float) -> None:
        """The police ask."""
        self._log.write(QuestionSeen.of(question, t=received_at, user=self.user))


def run_as_ordered(
    arguments: list[str], kind: type[Orders], live: Callable[[Orders], Coroutine[None, None, None]]
) -> None:
    """Run one process by the orders in the file that its command line names."""
    orders = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=kind)
    logging.basicConfig(level=logging.INFO, format="%(created).3f %(name)s %(message)s")
    logging.getLogger("mqtt").setLevel(logging.ERROR)  # aiomqtt's, which counts publishes
    asyncio.run(live(orders))


def on_signals(hush: Callable[[], None]) -> asyncio.Event:
    """Call `hush` at each SIGUSR1; the event is set at SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, hush)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    return stop
