"""A worker that breaks the promise on purpose; started in place of `nabij.local.worker_process` by a test.

python sabotaged_worker.py SABOTAGE[,SABOTAGE] SERVICE INDEX PIPE PARENT
"""

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from broker.core.grid import place_of, region_of
from broker.mqtt import Delivery, Message, PubAckReasonCode
from broker.runtime.dispatch import Dispatcher
from broker.runtime.service import outgoing
from broker.store.incident_store import IncidentStore
from broker.store.kernel.transaction import Transaction
from broker.store.outbox import Outbox
from broker.store.outbox_messages import Due
from broker.store.stored_incident import Neighbourhood
from nabij.local.worker_process import main
from schemas import topics
from schemas.ids import incident_id
from schemas.messages import Merge, Outcome, Receipt, Subject

VICTIM = "p-7"
LATE_S = 1.0


def acknowledge_before_commit() -> None:
    """Receipt and PUBACK first; the commit follows, if nothing happens in between."""
    honest = Dispatcher.deliver

    async def deliver(self: Dispatcher, delivery: Delivery, broker_index: int = 0) -> None:
        levels = topics.REPORT.parse(delivery.message.topic)
        if levels is None:
            return await honest(self, delivery, broker_index)
        report = topics.REPORT.decode(delivery.message.payload)
        place = place_of(report.location.lat, report.location.lon)
        receipt = Receipt(
            subject=Subject.REPORT,
            outcome=Outcome.ACCEPTED,
            at=datetime.now(UTC),
            id=report.id,
            incident=incident_id(report.id, region_of(place)),
            merge=Merge.OPENED,
            sequence=report.id.int % 2**31,
        )
        correlation = delivery.message.correlation
        user = levels["user"]
        await self.publish([outgoing(topics.RECEIPT, receipt, correlation=correlation, user=user)])
        delivery.acknowledge()
        await asyncio.sleep(LATE_S)
        return await honest(self, delivery, broker_index)

    Dispatcher.deliver = deliver  # type: ignore[method-assign]


def skip_idempotency() -> None:
    """Nothing is known of earlier messages."""
    honest = IncidentStore.neighbourhood

    async def neighbourhood(self: IncidentStore, *arguments: Any) -> Neighbourhood:
        return (await honest(self, *arguments))._replace(received=None)

    IncidentStore.neighbourhood = neighbourhood  # type: ignore[method-assign, assignment]
    guard = Transaction.require_absent

    def require_absent(self: Transaction, key: str) -> None:
        if ":receipt:" not in key:
            guard(self, key)

    Transaction.require_absent = require_absent  # type: ignore[method-assign]


def drop_an_alert() -> None:
    """One person's alerts are never sent, and recorded as if they were."""
    dropped = topics.ALERT.topic(user=VICTIM)
    _lose(lambda message: message.topic == dropped)


def _lose(is_lost: Callable[[Message], bool]) -> None:
    """Publish no such message, and take it for published; of the others the outcome is true."""
    honest = Dispatcher.publish

    async def publish(self: Dispatcher, messages: Sequence[Message]) -> Sequence[PubAckReasonCode]:
        lost = [is_lost(message) for message in messages]
        kept = [message for message, gone in zip(messages, lost, strict=True) if not gone]
        outcomes = iter(await honest(self, kept))
        return [PubAckReasonCode.SUCCESS if gone else next(outcomes) for gone in lost]

    Dispatcher.publish = publish  # type: ignore[method-assign]


def believe_puback() -> None:
    """What was published once is delivered, though every tenth escalation reaches no desk."""
    count = itertools.count()
    _lose(lambda message: bool(topics.ESCALATION.parse(message.topic)) and next(count) % 10 == 0)

    async def take(self: Outbox, now_ms: int, **options: Any) -> list[Due]:
        await self.remove([one.message for one in await honest(self, now_ms, **options)])
        return []

    honest = Outbox.take
    Outbox.take = take  # type: ignore[method-assign, assignment]


SABOTAGES = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "skip-idempotency": skip_idempotency,
    "drop-an-alert": drop_an_alert,
    "believe-puback": believe_puback,
}

if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        SABOTAGES[name]()
    sys.exit(main(sys.argv[2:]))
