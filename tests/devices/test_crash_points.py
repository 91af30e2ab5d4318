"""Journal → publish → receipt → deletion, cut anywhere and resumed: nothing lost, nothing made up.

The journal is a real file; the MQTT broker and the services are a model that obeys a script.
"""

import asyncio
import enum
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from devices import delivery as delivery_module
from devices.delivery import JournalDelivery
from devices.device_connection import DeviceConnection, Incoming
from devices.journal import Journal, UnsentMessage
from schemas.ids import new_id
from schemas.messages import Outcome, Receipt, Subject

WITHIN_S = 20.0


class Add(enum.Enum):
    """What happens while a message is being written down."""

    KEPT = "kept"
    CRASH_BEFORE = "crash before it is on disk"
    CRASH_AFTER = "crash when it is on disk and not sent"


class Fate(enum.Enum):
    """What happens to one publish."""

    RECEIPTED = "receipted"
    REJECTED = "rejected"
    RECEIPTED_TWICE = "receipted twice"
    LOST = "lost on the way there"
    RECEIPT_LOST = "committed, and the receipt lost"
    CUT = "the connection is cut before it arrives"
    CUT_AFTER = "the connection is cut when it has arrived"
    CRASH_BEFORE = "crash before it arrives"
    CRASH_AFTER = "crash when it is committed"
    CRASH_AT_RECEIPT = "crash at the receipt, before the deletion"


@dataclass
class Network:
    """Connection, MQTT broker and services; outlives the device."""

    script: list[Fate]
    committed: dict[UUID, int] = field(default_factory=dict)
    told: dict[UUID, Outcome] = field(default_factory=dict)

    def begin(self, delivery: JournalDelivery, journal: Journal) -> None:
        """A device's process has begun."""
        loop = asyncio.get_running_loop()
        self._delivery, self._journal = delivery, journal
        self.crashed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    @property
    def current(self) -> "Network":
        return self

    @property
    def changed(self) -> "asyncio.Future[None]":
        return self.lost

    async def publish(self, _topic: str, payload: bytes, **_: Any) -> None:
        if self.crashed.done():
            await asyncio.Event().wait()  # a dead process sends nothing
        message = UUID(bytes=payload)
        fate = self.script.pop(0) if self.script else Fate.RECEIPTED
        match fate:
            case Fate.LOST:
                return
            case Fate.CUT | Fate.CRASH_BEFORE:
                self._end(fate)
                return
        self.committed.setdefault(message, len(self.committed))
        match fate:
            case Fate.RECEIPT_LOST:
                return
            case Fate.CUT_AFTER | Fate.CRASH_AFTER:
                self._end(fate)
                return
        for _ in range(2 if fate is Fate.RECEIPTED_TWICE else 1):
            self._receipt(message, fate)
        if fate is Fate.CRASH_AT_RECEIPT:
            self._end(fate)

    def _receipt(self, message: UUID, fate: Fate) -> None:
        outcome = Outcome.REJECTED if fate is Fate.REJECTED else Outcome.ACCEPTED
        receipt = Receipt(subject=Subject.REPORT, outcome=outcome, at=datetime.now(UTC), id=message)
        self.told[message] = outcome
        self._delivery.take(receipt, Incoming("", b"", message.bytes, 0.0))

    def _end(self, fate: Fate) -> None:
        if fate in (Fate.CUT, Fate.CUT_AFTER):
            old, self.lost = self.lost, asyncio.get_running_loop().create_future()
            old.set_result(None)
        else:
            self.power_off()

    def power_off(self) -> None:
        """What was not yet handed to the disk never will be."""
        self._journal._queue.clear()
        if not self.crashed.done():
            self.crashed.set_result(None)


async def live(path: Path, network: Network, messages: list[tuple[UUID, Add]]) -> set[UUID]:
    """Live until the crash, or until everything is delivered; return what was put on disk."""
    kept: set[UUID] = set()
    journal = Journal(path)
    await journal.__aenter__()
    delivery = JournalDelivery(
        cast("DeviceConnection", network),
        journal,
        response_topic="down/receipt",
        unconfirmed_after_s=WITHIN_S,
        on_journaled=lambda entry: kept.add(entry.id),
    )
    network.begin(delivery, journal)
    await delivery.__aenter__()
    calls: list[asyncio.Task[Any]] = []
    while messages and not network.crashed.done():
        message, add = messages.pop(0)
        entry = UnsentMessage(
            message, Subject.REPORT, "up/report", message.bytes, datetime.now(UTC)
        )
        if add is Add.CRASH_AFTER:
            await journal.add(entry)
            kept.add(message)
            network.power_off()
            break
        calls.append(asyncio.create_task(delivery.confirmed(entry)))
        if add is Add.CRASH_BEFORE:
            await asyncio.sleep(0)  # the write is queued, not begun
            network.power_off()
    done = asyncio.gather(*calls, _delivered(delivery), return_exceptions=True)
    await asyncio.wait({done, network.crashed}, return_when=asyncio.FIRST_COMPLETED)
    if network.crashed.done():
        journal._queue.clear()
    for call in calls:
        call.cancel()
    done.cancel()
    await asyncio.gather(done, return_exceptions=True)
    for admitting in delivery._admitting:
        admitting.cancel()
    await delivery.__aexit__(None, None, None)
    await journal.__aexit__(None, None, None)
    return kept


async def _delivered(delivery: JournalDelivery) -> None:
    while delivery._pending:  # noqa: ASYNC110 - there is no event to wait on
        await asyncio.sleep(0.001)


@settings(max_examples=40, deadline=None)
@given(
    adds=st.lists(st.sampled_from(Add), min_size=1, max_size=5),
    script=st.lists(st.sampled_from(Fate), max_size=12),
)
def test_cut_anywhere_and_resumed_nothing_is_lost_and_nothing_made_up(
    adds: list[Add], script: list[Fate]
) -> None:
    messages = [(new_id(), add) for add in adds]
    created = {message for message, _ in messages}
    network, kept = Network(list(script)), set[UUID]()

    async def story() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "ann.journal"
            async with asyncio.timeout(WITHIN_S):
                crashed = True
                while messages or crashed:
                    kept.update(await live(path, network, messages))
                    crashed = network.crashed.done()
                async with Journal(path) as journal:
                    assert await journal.entries() == []

    with patch.multiple(delivery_module, RECEIPT_WITHIN_S=0.0, RETRY_MOST_S=0.002):
        asyncio.run(story())
    assert kept <= set(network.committed) <= created
    assert set(network.told) == set(network.committed)
