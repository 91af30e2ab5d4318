"""An incident to which people have been alerted, for tests of what becomes of their alerts."""

from tests.services.client import Client
from tests.services.system import System


async def alerted(system: System, reporter: Client, *near: Client) -> str:
    """Report something where the others are; return the incident when each has its alert."""
    place = system.place()
    for one in near:
        await system.be_at(one, place)
    incident: str = (await system.report(reporter, place))["incident"]
    for one in near:
        await one.expect(f"u/{one.name}/down/alert", incident=incident)
    return incident
