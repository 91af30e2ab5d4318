"""City: brings what is not urgent to the municipality's desk, each report as a case.

`intake` files the case in the outbox with the commit of its report, so that it goes out whoever
dies; here it is published and struck off.
"""

from collections.abc import Sequence
from functools import partial

from broker import events
from broker.events import Change, IncidentChanged
from broker.mqtt import Message, PubAckReasonCode
from broker.service import NOTHING, Context, Effects, Service
from broker.store import Posted
from schemas.ids import case_id

service = Service("city", niceness=3)


@service.on(events.INCIDENT_CHANGED)
async def open_case(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish the case of a report whose category is the city's."""
    if change.change not in (Change.OPENED, Change.MERGED) or change.report is None:
        return NOTHING
    case = await ctx.store.outbox.get(case_id(change.report))
    if case is None:
        return NOTHING
    return Effects([Message(case.topic, case.payload)], partial(_settle, ctx, case))


async def _settle(ctx: Context, case: Posted, outcomes: Sequence[PubAckReasonCode]) -> None:
    taken = [outcome.was_taken for outcome in outcomes]
    await ctx.store.outbox.settle([case], taken, now_ms=ctx.now_ms)
