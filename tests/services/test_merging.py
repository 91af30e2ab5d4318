"""Many reports, one incident: merged, told to the police each, and nobody alerted twice."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.services.client import Connect
from tests.services.system import System, a_report, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def workers() -> int:
    return 2


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


async def test_a_second_report_merges_reaches_the_police_and_alerts_nobody_twice(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann, cleo, bob = await connect("ann"), await connect("cleo"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    await system.be_at(bob, moved(place, north_m=60))
    first = await system.report(ann, place, text="two men")
    await bob.expect("u/bob/down/alert", incident=first["incident"])
    second = await system.report(cleo, moved(place, east_m=90), text="three, and a knife")
    assert (first["merge"], second["merge"]) == ("opened", "merged")
    assert second["incident"] == first["incident"]
    assert second["sequence"] > first["sequence"]
    update = await desk.expect("police/gent/escalation/p1", report=second["id"])
    assert (update["kind"], update["text"]) == ("update", "three, and a knife")
    assert (update["incident"], update["reports"]) == (first["incident"], 2)
    await desk.expect("police/gent/incident/", incident=first["incident"], reports=2)
    # A later alert to bob, of something else, comes after any second one of this would have.
    third = await system.report(ann, place, "fire")
    await bob.expect("u/bob/down/alert", incident=third["incident"])
    assert len(bob.on("u/bob/down/alert", incident=first["incident"])) == 1


@pytest.mark.parametrize(
    ("other", "north_m"),
    [
        ({"category": "robbery"}, 0),
        ({"mode": "drill"}, 0),
        ({"audience": "police"}, 0),
        ({}, 151),
        ({"seen_at": 901}, 0),
        ({"seen_at": 905.5}, 10),
    ],
    ids=str,
)
async def test_what_differs_in_kind_place_or_time_opens_an_incident_of_its_own(
    system: System, connect: Connect, other: dict[str, Any], north_m: float
) -> None:
    place = system.place()
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/escalation/#")
    now = ago()
    other = dict(other)
    if "seen_at" in other:
        other["seen_at"] = ago(seconds=other["seen_at"])
    first = await system.report(ann, place, seen_at=now)
    second = await system.report(ann, moved(place, north_m=north_m), **{"seen_at": now, **other})
    told = [await desk.expect("police/gent/", report=one["id"]) for one in (first, second)]
    assert [one["kind"] for one in told] == ["new", "new"]
    assert told[0]["incident"] != told[1]["incident"]


@pytest.mark.parametrize("other", [{}, {"seen_at": 899}], ids=str)
@pytest.mark.parametrize("north_m", [0, 149])
async def test_what_is_just_near_and_soon_enough_merges(
    system: System, connect: Connect, other: dict[str, Any], north_m: float
) -> None:
    place = system.place()
    ann = await connect("ann")
    first = await system.report(ann, place)
    seen_at = ago(seconds=other.get("seen_at", 0))
    second = await system.report(ann, moved(place, north_m=north_m), seen_at=seen_at)
    assert (second["merge"], second["incident"]) == ("merged", first["incident"])


async def test_a_report_joins_the_nearest_of_several_incidents(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann = await connect("ann")
    south = await system.report(ann, place)
    north = await system.report(ann, moved(place, north_m=200))
    assert south["incident"] != north["incident"]
    joined = await system.report(ann, moved(place, north_m=110))
    assert joined["incident"] == north["incident"]


async def test_nothing_joins_a_closed_incident(system: System, connect: Connect) -> None:
    place = system.place()
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/receipt")
    first = await system.report(ann, place)
    await system.command(desk, "close", first["incident"], outcome="over")
    second = await system.report(ann, place)
    assert (second["merge"], second["incident"] == first["incident"]) == ("opened", False)


async def test_fifty_reports_at_once_make_one_incident_and_fifty_escalations(
    system: System, connect: Connect
) -> None:
    place = system.place()
    fleet = await connect("nabij", "u/+/down/#")  # the services' account may write as anybody
    desk = await connect("desk-gent", "police/gent/escalation/#")
    nearby = [f"near-{number}" for number in range(20)]
    for user in nearby:
        await system.be_at(fleet, moved(place, north_m=120), user=user)
    receipts = await asyncio.gather(
        *(system.report(fleet, place, user=f"crowd-{number}") for number in range(50))
    )
    [incident] = {receipt["incident"] for receipt in receipts}
    assert Counter(receipt["merge"] for receipt in receipts) == {"opened": 1, "merged": 49}
    assert len({receipt["sequence"] for receipt in receipts}) == 50
    await desk.expect("police/gent/escalation/", count=50, incident=incident)
    for user in nearby:
        await fleet.expect(f"u/{user}/down/alert", incident=incident)
    escalations = desk.on("police/gent/escalation/", incident=incident)
    by_id = {escalation["id"]: escalation for escalation in escalations}
    assert len(by_id) == 50
    assert Counter(one["kind"] for one in by_id.values()) == {"new": 1, "update": 49}
    assert {one["report"] for one in by_id.values()} == {receipt["id"] for receipt in receipts}
    assert sorted(one.get("reports", 1) for one in by_id.values()) == list(range(1, 51))
    later = await system.report(fleet, place, "fire", user="crowd-1")
    for user in nearby:
        await fleet.expect(f"u/{user}/down/alert", incident=later["incident"])
        assert len(fleet.on(f"u/{user}/down/alert", incident=incident)) == 1
    filed = await system.filed(incident)
    assert filed is not None
    names = [member.name for member in filed.people.values() if member.in_group]
    assert len(names) == len(set(names)) == 50


async def test_a_report_sent_five_times_has_one_receipt_and_one_escalation(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/escalation/#")
    report = a_report(system.place())
    receipts = await asyncio.gather(*(system.send_report(ann, report) for _ in range(5)))
    assert all(receipt == receipts[0] for receipt in receipts)
    sentinel = await system.report(ann, system.place())
    await desk.expect("police/gent/escalation/", report=sentinel["id"])
    assert len({one["id"] for one in desk.on("police/gent/escalation/", report=report["id"])}) == 1
    filed = await system.filed(receipts[0]["incident"])
    assert filed is not None
    assert filed.incident.reports == 1
