"""City: brings what is not urgent to the municipality's desk, each report as a case.

`intake` puts the case into the outbox with the commit of its report; here it is published. The
police service sends it again until the desk confirms it.
"""

from broker.core import changes
from broker.core.changes import Change, IncidentChanged
from broker.mqtt import Message
from broker.runtime import outbox_relay
from broker.runtime.service import NOTHING, Context, Effects, Service, outgoing
from schemas import topics
from schemas.ids import case_id
from schemas.messages import DeskSync, Receipt
from schemas.taxonomy import Desk

service = Service("city", niceness=3)


@service.on(changes.INCIDENT_CHANGED, changes={Change.OPENED, Change.MERGED}, desks={Desk.CITY})
async def open_case(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish the case of a report whose category is the city's."""
    if change.report is None:
        return NOTHING
    case = await ctx.store.outbox.get(case_id(change.report))
    return NOTHING if case is None else Effects([Message(case.topic, case.payload)])


@service.on_batch(topics.CITY_DELIVERED)
async def take_receipts(batch: outbox_relay.Batch) -> Effects:
    """Take the desk's word that it has these cases."""
    return await outbox_relay.take_receipts(batch)


@service.on(topics.CITY_SYNC)
async def sync(request: DeskSync, ctx: Context) -> Effects:
    """Have what the desk lacks sent again, and say so."""
    return await outbox_relay.take_sync(request, ctx, _answer)


def _answer(receipt: Receipt, ctx: Context) -> Effects:
    municipality = ctx.principal.municipality
    message = outgoing(
        topics.CITY_RECEIPT, receipt, correlation=ctx.correlation, municipality=municipality
    )
    return Effects([message])
