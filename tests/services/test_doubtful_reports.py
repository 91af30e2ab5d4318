"""What was seen long ago, or not exactly where: who is alerted to it, and who is not."""

from typing import Any

import pytest

from tests.services.client import Client, Connect
from tests.services.system import System, a_presence, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"alert_if_seen_within_s": 60, "accept_s": 1_500, "acknowledge_s": 1_500}


@pytest.fixture(scope="module")
def apart_m() -> float:
    return 3_000.0


def alerts(client: Client, user: str, receipt: dict[str, Any]) -> list[Any]:
    return client.on(f"u/{user}/down/alert", incident=receipt["incident"])


async def test_what_was_seen_long_ago_alerts_nobody_until_a_fresh_report(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    place, old_at, fresh_at = system.place(), ago(seconds=300), ago(seconds=30)
    await system.be_at(fleet, place, user="near")
    old = await system.report(fleet, place, user="reporter", seen_at=old_at)
    assert old["notes"] == [
        "seen_at: more than 60 s ago: the police are told, and nobody nearby is alerted."
    ]
    escalation = await desk.expect("police/gent/escalation/p1", report=old["id"])
    assert escalation["seen_at"][:19] == old_at[:19]
    state = await desk.expect("police/gent/incident/", incident=old["incident"])
    assert state["seen_at"] == escalation["seen_at"]
    # Nobody is: not who stands there, nor who comes.
    await system.be_at(fleet, place, user="passer-by")
    other = await system.report(fleet, place, "robbery", user="reporter")
    for user in ("near", "passer-by"):
        await fleet.expect(f"u/{user}/down/alert", incident=other["incident"])
        assert alerts(fleet, user, old) == []

    fresh = await system.report(fleet, place, user="witness", seen_at=fresh_at)

    assert (fresh["merge"], fresh["incident"]) == ("merged", old["incident"])
    assert "notes" not in fresh
    for user in ("near", "passer-by"):
        alert = await fleet.expect(f"u/{user}/down/alert", incident=old["incident"])
        assert (alert["wave"], alert["reason"]) == (1, "nearby")
        assert alert["seen_at"][:19] == fresh_at[:19]
    await system.be_at(fleet, place, user="late")
    late = await fleet.expect("u/late/down/alert", incident=old["incident"])
    assert late["reason"] == "walked_in"
    assert [len(alerts(fleet, user, old)) for user in ("near", "passer-by", "late")] == [1, 1, 1]


async def test_a_position_whose_accuracy_cannot_be_read_calls_nobody_and_its_sender_is_told(
    system: System, connect: Connect
) -> None:
    ann, bob, eva = [await connect(name) for name in ("ann", "bob", "eva")]
    place = system.place()
    where = {"lat": place[0], "lon": place[1]}
    presence = {"at": ago(), "location": {**where, "accuracy_m": "coarse"}}
    await bob.publish("u/bob/up/presence", presence)  # without a response topic
    told = await bob.expect("u/bob/down/receipt", subject="presence")
    assert told["notes"][0] == "location.accuracy_m: it is no number, and was read as 10000"
    await system.be_at(eva, place, location={**where, "accuracy_m": "20"})

    incident = (await system.report(ann, place))["incident"]

    await eva.expect("u/eva/down/alert", incident=incident)
    assert bob.on("u/bob/down/alert", incident=incident) == []


async def test_who_hides_under_another_name_is_not_alerted_and_is_told_so(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    place = system.place()
    odd = {
        "hider-1": {"availability_status": "muted"},
        "hider-2": {"available": False},
        "hider-3": {"status": "muted"},
        "hider-4": {"muted": True},
        "hider-5": {"horizontalAccuracy": 5_000},
        "seen": {"available": True},
    }
    for user, said in odd.items():
        await fleet.publish(f"u/{user}/up/presence", a_presence(place, **said))
        told = await fleet.expect(f"u/{user}/down/receipt", subject="presence")
        assert (told["outcome"], told["notes"][0][:13]) == ("accepted", "unknown field")

    hidden = await system.report(fleet, place, user="reporter", targetaudience="police")
    incident = (await system.report(fleet, place, user="other-reporter"))["incident"]

    await fleet.expect("u/seen/down/alert", incident=incident)
    assert [fleet.on(f"u/{user}/down/alert", incident=incident) for user in odd][:5] == [[]] * 5
    assert fleet.on("u/seen/down/alert", incident=hidden["incident"]) == []


@pytest.mark.parametrize(
    "seen_at", [ago(minutes=-30), "9999-12-31T23:59:59-23:59"], ids=["half an hour", "for ever"]
)
async def test_a_report_of_a_clock_that_is_ahead_counts_as_seen_now(
    system: System, connect: Connect, seen_at: str
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    place, before = system.place(), ago()
    await system.be_at(fleet, place, user="near")

    told = await system.report(fleet, place, user="reporter", seen_at=seen_at)

    assert told["outcome"] == "accepted"
    assert told["notes"] == ["seen_at: more than 5 minutes ahead of our clock: it counts as now."]
    await fleet.expect("u/near/down/alert", incident=told["incident"])
    escalation = await desk.expect("police/gent/escalation/p1", report=told["id"])
    assert before[:19] <= escalation["seen_at"][:19] <= ago()[:19]


@pytest.mark.parametrize(
    ("seen_at", "read_at"),
    [
        ("2020-02-29T12:00:00Z", "2020-02-29T12:00:00Z"),
        ("0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
    ],
)
async def test_a_report_of_what_was_seen_years_ago_reaches_the_desk_and_spoils_no_other(
    system: System, connect: Connect, seen_at: str, read_at: str
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    place = system.place()
    await system.be_at(fleet, place, user="near")

    old = await system.report(fleet, place, user="reporter", seen_at=seen_at)

    assert old["notes"] == [
        "seen_at: more than 60 s ago: the police are told, and nobody nearby is alerted.",
        "seen_at: more than 7 days ago: is the clock right? It was taken as it is.",
    ]
    escalation = await desk.expect("police/gent/escalation/p1", report=old["id"])
    assert escalation["seen_at"] == read_at
    fresh = await system.report(fleet, place, user="witness")
    assert fresh["merge"] == "opened"
    await fleet.expect("u/near/down/alert", incident=fresh["incident"])
    assert alerts(fleet, "near", old) == []


async def test_a_category_may_alert_people_to_what_was_seen_longer_ago(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    place = system.place()
    await system.be_at(fleet, place, user="near")
    missing = await system.report(
        fleet, place, "missing-person", user="reporter", seen_at=ago(seconds=300)
    )
    await fleet.expect("u/near/down/alert", incident=missing["incident"])
    await desk.expect("police/gent/escalation/p1", report=missing["id"])


async def test_a_reports_accuracy_widens_its_radius_and_an_inexact_position_calls_nobody(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    place = system.place()
    lat, lon = moved(place, north_m=380)
    exact = {"location": {"lat": lat, "lon": lon, "accuracy_m": 20}}
    vague = {"location": {"lat": lat, "lon": lon, "accuracy_m": 5_000}}
    assert "notes" not in await system.be_at(fleet, (lat, lon), user="exact", **exact)
    told = await system.be_at(fleet, (lat, lon), user="vague", **vague)
    assert told["notes"][0].startswith("location.accuracy_m: above 500 m")
    # Who was here before, and is not sure any more, is still called.
    await system.be_at(fleet, (lat, lon), user="lost", **exact)
    far = moved(place, north_m=2_900)
    elsewhere = {"lat": far[0], "lon": far[1], "accuracy_m": 501}
    await system.be_at(fleet, far, user="lost", location=elsewhere)
    where = {"lat": place[0], "lon": place[1], "accuracy_m": 200}

    receipt = await system.report(fleet, place, user="reporter", location=where)

    for user in ("exact", "lost"):
        alert = await fleet.expect(f"u/{user}/down/alert", incident=receipt["incident"])
        assert alert["radius_m"] == 500.0  # 300 of a fight, and 200
    filed = await system.filed(receipt["incident"])
    assert filed is not None
    assert set(filed.people) == {"exact", "lost", "reporter"}
