"""The main path: a report reaches the people nearby and the police."""

import pytest

from tests.services.client import Connect
from tests.services.system import System, a_report, moved

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


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [(TRACE, [("traceparent", TRACE)]), ("not a trace; DROP TABLE", [])],
)
async def test_the_trace_of_a_report_goes_on_to_its_escalation_and_receipt(
    system: System, connect: Connect, sent: str, passed_on: list[tuple[str, str]]
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    report = a_report(system.place(), "fight")
    await ann.publish("u/ann/up/report", report, user_properties=[("traceparent", sent)])

    await ann.expect("u/ann/down/receipt", id=report["id"])
    await desk.expect("police/gent/escalation/p1", report=report["id"])
    for message in (
        *ann.messages("u/ann/down/receipt", id=report["id"]),
        *desk.messages("police/gent/escalation", report=report["id"]),
    ):
        assert message.user_properties == passed_on
