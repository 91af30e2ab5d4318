"""What happens when nobody accepts, or the police do not acknowledge, in time."""

import asyncio
from uuid import UUID

import pytest

from broker.core.membership import helpers
from broker.store.conversations import Conversations
from broker.store.stored_incident import StoredIncident
from tests.services.client import Connect
from tests.services.system import System, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1, "acknowledge_s": 1, "silence_s": 300}


@pytest.fixture(scope="module")
def apart_m() -> float:
    return 3_000.0


async def test_while_nobody_accepts_each_wave_alerts_the_next_ring_only_up_to_the_last(
    system: System, connect: Connect
) -> None:
    place = system.place()
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    rings = {"inner": 150, "second": 450, "third": 900, "outside": 1_350}
    for user, north_m in rings.items():
        await system.be_at(fleet, moved(place, north_m=north_m), user=user)
    receipt = await system.report(fleet, place, user="reporter")
    incident = receipt["incident"]
    inner = await fleet.expect("u/inner/down/alert", incident=incident)
    second = await fleet.expect("u/second/down/alert", incident=incident)
    third = await fleet.expect("u/third/down/alert", incident=incident)
    assert [(one["wave"], one["reason"]) for one in (inner, second, third)] == [
        (1, "nearby"),
        (2, "widened"),
        (3, "widened"),
    ]
    assert [one["radius_m"] for one in (inner, second, third)] == [300.0, 600.0, 1_200.0]
    # The last deadline that stands is the police's third; a fourth wave would be due before it.
    await desk.expect("police/gent/escalation/p1", incident=incident, attempt=4)
    state = await desk.expect("police/gent/incident/", incident=incident, alerted=3)
    assert (state["wave"], state["radius_m"]) == (3, 1_200.0)
    assert {user: len(fleet.on(f"u/{user}/down/alert", incident=incident)) for user in rings} == {
        "inner": 1,
        "second": 1,
        "third": 1,
        "outside": 0,
    }


async def test_acceptance_stops_the_widening_and_acknowledging_the_overdue_escalations(
    system: System, connect: Connect
) -> None:
    quiet, loud = system.place(), system.place()
    fleet = await connect("nabij", "u/+/down/#")
    bob = await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    await system.be_at(bob, quiet)
    await system.be_at(fleet, moved(quiet, north_m=450), user="outer")
    await system.be_at(fleet, moved(loud, north_m=450), user="elsewhere")
    receipt = await system.report(fleet, quiet, user="reporter")
    incident = receipt["incident"]
    await bob.expect("u/bob/down/alert", incident=incident)
    await system.reply(bob, incident)
    assert (await system.command(desk, "acknowledge", incident))["outcome"] == "accepted"
    # Deadlines fire in order of time: when a later report's have, this one's would have.
    later = await system.report(fleet, loud, user="reporter")
    await fleet.expect("u/elsewhere/down/alert", incident=later["incident"])
    await desk.expect("police/gent/escalation/p1", incident=later["incident"], attempt=2)
    assert not fleet.on("u/outer/down/alert", incident=incident)
    assert len(desk.on("police/gent/escalation/", incident=incident)) == 1
    # When the only one who came leaves again, others are called.
    await system.reply(bob, incident, "left")
    wider = await fleet.expect("u/outer/down/alert", incident=incident)
    assert (wider["wave"], wider["reason"]) == (2, "widened")


async def test_who_leaves_while_the_deadline_is_judged_by_their_help_does_not_stop_the_widening(
    system: System, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, read = system.place(), Conversations.get
    is_judged, has_left = asyncio.Event(), asyncio.Event()

    async def slow(self: Conversations, identifier: UUID) -> StoredIncident | None:
        filed = await read(self, identifier)
        if filed is not None and helpers(filed.people):
            is_judged.set()
            await has_left.wait()
        return filed

    fleet, bob = await connect("nabij", "u/+/down/#"), await connect("bob")
    await system.be_at(bob, moved(place, north_m=150))
    await system.be_at(fleet, moved(place, north_m=450), user="second")
    incident = (await system.report(fleet, place, user="reporter"))["incident"]
    await bob.expect("u/bob/down/alert", incident=incident)
    monkeypatch.setattr(Conversations, "get", slow)
    await system.reply(bob, incident, "accepted")
    await asyncio.wait_for(is_judged.wait(), 10)
    await system.reply(bob, incident, "left")
    has_left.set()
    await fleet.expect("u/second/down/alert", incident=incident, reason="widened")


async def test_an_unacknowledged_incident_is_escalated_again_so_often_and_no_more(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/escalation/#")
    receipt = await system.report(fleet, system.place(), "threat", user="reporter")
    incident = receipt["incident"]
    await desk.expect("police/gent/escalation/p1", incident=incident, attempt=3)
    later = await system.report(fleet, system.place(), "threat", user="reporter")
    await desk.expect("police/gent/escalation/p1", incident=later["incident"], attempt=4)
    overdue = desk.on("police/gent/escalation/", incident=incident, kind="overdue")
    assert [one["attempt"] for one in overdue] == [2, 3, 4]
    assert len({one["id"] for one in overdue}) == 3
    assert {one["report"] for one in overdue} == {receipt["id"]}


@pytest.mark.parametrize("command", ["assign", "status", "close"])
async def test_whatever_the_police_do_about_it_ends_the_overdue_escalations(
    system: System, connect: Connect, command: str
) -> None:
    fields = {"assign": {"unit": "7"}, "status": {"status": "on_scene"}, "close": {"outcome": "x"}}
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    receipt = await system.report(fleet, system.place(), "threat", user="reporter")
    done = await system.command(desk, command, receipt["incident"], **fields[command])
    assert done["outcome"] == "accepted"
    later = await system.report(fleet, system.place(), "threat", user="reporter")
    await desk.expect("police/gent/escalation/p1", incident=later["incident"], attempt=2)
    assert not desk.on("police/gent/escalation/", incident=receipt["incident"], kind="overdue")


async def test_a_routine_incident_is_never_overdue(system: System, connect: Connect) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/escalation/#")
    routine = await system.report(fleet, system.place(), "bicycle-theft", user="reporter")
    later = await system.report(fleet, system.place(), "threat", user="reporter")
    await desk.expect("police/gent/escalation/p1", incident=later["incident"], attempt=2)
    [only] = desk.on("police/gent/escalation/", incident=routine["incident"])
    assert (only["kind"], only["priority"]) == ("new", "p3")


async def test_a_deadline_of_an_incident_that_cannot_be_read_does_not_hold_up_the_others(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/escalation/#")
    poison = await system.report(fleet, system.place(), "threat", user="reporter")
    await asyncio.to_thread(system.corrupt, f"incident:{poison['incident']}", "incident")
    later = await system.report(fleet, system.place(), "threat", user="reporter")
    try:
        await desk.expect("police/gent/escalation/p1", incident=later["incident"], attempt=2)
    finally:
        await asyncio.to_thread(system.forget, f"incident:{poison['incident']}")
