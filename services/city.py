"""City: brings what is not urgent to the municipality's desk, each report as a case."""

from broker import events
from broker.core.escalation import case_of
from broker.events import Change, IncidentChanged
from broker.service import NOTHING, Context, Effects, Service, outgoing
from schemas import topics
from schemas.taxonomy import Desk

service = Service("city")


@service.on(events.INCIDENT_CHANGED)
async def open_case(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish the case of a report whose category is the city's."""
    if change.change not in (Change.OPENED, Change.MERGED) or change.report is None:
        return NOTHING
    filed = await ctx.store.incidents.get(change.incident)
    if filed is None or filed.incident.desk is not Desk.CITY:
        return NOTHING
    case = case_of(change.report, filed.incident, change.at)
    return Effects(
        [outgoing(topics.CASE, case, municipality=case.municipality, category=case.category)]
    )
