"""The main path: a report reaches the people nearby and the police."""

import pytest

from tests.services.client import Connect
from tests.services.system import System, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_report_reaches_the_police_and_the_people_nearby(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    await system.be_at(bob, moved(place, north_m=60))

    receipt = await system.report(ann, place, text="two men")
    assert receipt["outcome"] == "accepted"
    assert "112" in receipt["advice"]
    escalation = await desk.expect("police/gent/escalation/p1", incident=receipt["incident"])
    assert (escalation["kind"], escalation["text"]) == ("new", "two men")
    alert = await bob.expect("u/bob/down/alert", incident=receipt["incident"])
    assert "112" in alert["advice"]["en"]
    assert "text" not in alert  # a fight's text is for the police alone
