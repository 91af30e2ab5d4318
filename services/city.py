"""City: brings what is not urgent to the municipality's desk, each report as a case.

`intake` puts the case into the outbox with the commit of its report; here it is published. The
`relay` service sends it again until the desk confirms it.
"""

from broker.core import changes
from broker.core.changes import Change, IncidentChanged
from broker.mqtt import Message
from broker.runtime.service import NOTHING, Context, Effects, Service
from schemas.ids import case_id
from schemas.taxonomy import Desk

service = Service("city", niceness=3)


@service.on(changes.INCIDENT_CHANGED, changes={Change.OPENED, Change.MERGED}, desks={Desk.CITY})
async def open_case(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish the case of a report whose category is the city's."""
    if change.report is None:
        return NOTHING
    case = await ctx.store.outbox.get(case_id(change.report))
    return NOTHING if case is None else Effects([Message(case.topic, case.payload)])
