"""Who is alerted: those within the radius, there lately, taking alerts, and not the reporter."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.core.grid import centre_of, distance_m, place_of
from broker.store import Update
from schemas.messages import Availability
from services import alerting, presence
from tests.services.client import Client, Connect
from tests.services.system import Place, System, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")

RADIUS_M = 300.0  # of a fight


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


def alerts(client: Client, user: str, incident: str) -> list[Any]:
    return client.on(f"u/{user}/down/alert", incident=incident)


async def assert_alerted(
    system: System,
    fleet: Client,
    place: Place,
    receipt: dict[str, Any],
    *,
    expected: set[str],
    among: set[str],
) -> None:
    """Of those `among`, exactly `expected` were alerted, once: a later alert to another tells."""
    incident = receipt["incident"]
    for user in expected:
        await fleet.expect(f"u/{user}/down/alert", incident=incident)
    await system.be_at(fleet, place, user="sentinel")
    later = await system.report(fleet, place, "robbery", user="last-reporter")
    await fleet.expect("u/sentinel/down/alert", incident=later["incident"])
    assert {user: len(alerts(fleet, user, incident)) for user in among} == {
        user: int(user in expected) for user in among
    }


async def fleet_of(connect: Connect) -> Client:
    """One connection that may write as anybody, and is sent what everybody is."""
    return await connect("nabij", "u/+/down/#")


def at_distance(cell: int, radius_m: float) -> tuple[Place, Place]:
    """The last place within `radius_m` of a cell's centre, due north of it, and the first beyond."""
    lat, lon = centre_of(cell)
    within, beyond = lat, lat + 0.01
    while True:
        middle = (within + beyond) / 2
        if middle in (within, beyond):
            return (within, lon), (beyond, lon)
        if distance_m(middle, lon, lat, lon) <= radius_m:
            within = middle
        else:
            beyond = middle


async def test_who_is_on_the_radius_is_alerted_once_and_who_is_beyond_is_not(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    for inside, user in ((True, "on-it"), (False, "beyond")):
        here = system.place()
        places = at_distance(place_of(*here), RADIUS_M)
        await system.be_at(fleet, here, user=user)
        receipt = await system.report(fleet, places[0 if inside else 1], user="reporter")
        expected = {user} if inside else set()
        await assert_alerted(system, fleet, here, receipt, expected=expected, among={user})


async def test_everyone_within_the_radius_and_nobody_outside_nearest_first(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    where = {f"at-{north}": moved(place, north_m=north) for north in range(-500, 501, 100)}
    for user, there in where.items():
        await system.be_at(fleet, there, user=user)
    receipt = await system.report(fleet, place, user="reporter")
    distances = {
        user: distance_m(*place, *centre_of(place_of(*there))) for user, there in where.items()
    }
    expected = {user for user, distance in distances.items() if distance <= RADIUS_M}
    await assert_alerted(system, fleet, place, receipt, expected=expected, among=set(where))
    order = [
        one.topic.split("/")[1]
        for one in fleet.messages("u/at-", incident=receipt["incident"])
        if one.topic.endswith("/alert")
    ]
    assert [distances[user] for user in order] == sorted(distances[user] for user in order)


async def test_muted_and_away_are_not_alerted_and_on_duty_and_available_are(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    kinds = {"on_duty", "available", "muted", "away"}
    users = {kind: kind.replace("_", "-") for kind in kinds}
    for kind, user in users.items():
        await system.be_at(fleet, place, user=user, availability=kind)
    await system.be_at(fleet, place, user="was-here")
    await system.be_at(fleet, None, user="was-here", availability="away")
    await system.be_at(fleet, place, user="was-there")
    await system.be_at(fleet, place, user="was-there", availability="muted")
    receipt = await system.report(fleet, place, user="reporter")
    assert (await system.filed(receipt["incident"])) is not None
    await assert_alerted(
        system,
        fleet,
        place,
        receipt,
        expected={"on-duty", "available"},
        among={*users.values(), "was-here", "was-there"},
    )


async def test_a_withdrawal_counts_however_old_or_far_ahead_its_time_is(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    times = {
        "old": ago(seconds=5),
        "expired": ago(seconds=4_000),
        "of-1970": "1970-01-01T00:00:00Z",
        "ahead": ago(seconds=-4_000),
    }
    for user, at in times.items():
        seen_at = ago()
        await system.be_at(fleet, place, user=user, at=seen_at)
        await system.be_at(fleet, None, user=user, availability="muted", at=at)
        await system.be_at(fleet, place, user=user, at=seen_at)  # delivered once more, too late
    await system.be_at(fleet, None, user="back", availability="away", at=ago(seconds=30))
    await system.be_at(fleet, place, user="back", at=ago(seconds=29))
    receipt = await system.report(fleet, place, user="reporter")
    await assert_alerted(system, fleet, place, receipt, expected={"back"}, among={*times, "back"})


async def test_who_was_last_seen_too_long_ago_is_not_alerted(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    stale_at = datetime.now(UTC).timestamp() + 1.0
    await system.be_at(fleet, place, user="stale", at=ago(seconds=899))
    await system.be_at(fleet, place, user="fresh", at=ago(seconds=800))
    await asyncio.sleep(stale_at - datetime.now(UTC).timestamp() + 0.05)  # until a known moment
    receipt = await system.report(fleet, place, user="reporter")
    await assert_alerted(
        system, fleet, place, receipt, expected={"fresh"}, among={"fresh", "stale"}
    )


async def test_an_older_presence_changes_nothing(system: System, connect: Connect) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    await system.be_at(fleet, place, user="walker")
    await system.be_at(fleet, moved(place, north_m=690), user="walker", at=ago(seconds=60))
    receipt = await system.report(fleet, place, user="reporter")
    await assert_alerted(system, fleet, place, receipt, expected={"walker"}, among={"walker"})


async def test_a_reporter_is_never_alerted_to_what_they_reported(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    for user in ("first-reporter", "second-reporter"):
        await system.be_at(fleet, moved(place, north_m=2_000), user=user)
    await system.be_at(fleet, place, user="first-reporter")
    receipt = await system.report(fleet, place, user="first-reporter")
    await system.report(fleet, place, user="second-reporter")
    for user in ("first-reporter", "second-reporter"):  # and walking in does not change that
        await system.be_at(fleet, moved(place, east_m=100), user=user)
    await assert_alerted(
        system, fleet, place, receipt, expected=set(), among={"first-reporter", "second-reporter"}
    )


@pytest.mark.parametrize(
    ("category", "fields"), [("fight", {"audience": "police"}), ("threat", {}), ("noise", {})]
)
async def test_what_is_for_the_police_alone_or_routine_alerts_nobody(
    system: System, connect: Connect, category: str, fields: dict[str, Any]
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    await system.be_at(fleet, place, user="neighbour")
    receipt = await system.report(fleet, place, category, user="reporter", **fields)
    await system.be_at(fleet, moved(place, north_m=80), user="neighbour")
    await assert_alerted(system, fleet, place, receipt, expected=set(), among={"neighbour"})


async def test_who_walks_in_is_alerted_once_and_not_again_on_coming_back(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    far = moved(place, north_m=640)
    await system.be_at(fleet, far, user="walker")
    await system.be_at(fleet, place, user="neighbour")
    receipt = await system.report(fleet, place, user="reporter")
    await fleet.expect("u/neighbour/down/alert", incident=receipt["incident"])  # all were called
    await system.be_at(fleet, moved(place, north_m=100), user="walker")
    alert = await fleet.expect("u/walker/down/alert", incident=receipt["incident"])
    assert alert["reason"] == "walked_in"
    for there in (far, place, far, moved(place, east_m=50)):
        await system.be_at(fleet, there, user="walker")
    await assert_alerted(system, fleet, place, receipt, expected={"walker"}, among={"walker"})


async def test_who_comes_back_after_being_alerted_nearby_is_not_alerted_again(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    await system.be_at(fleet, place, user="walker")
    receipt = await system.report(fleet, place, user="reporter")
    alert = await fleet.expect("u/walker/down/alert", incident=receipt["incident"])
    assert alert["reason"] == "nearby"
    for there in (moved(place, north_m=650), place):
        await system.be_at(fleet, there, user="walker")
    await assert_alerted(system, fleet, place, receipt, expected={"walker"}, among={"walker"})


async def test_who_left_before_the_report_is_not_alerted(system: System, connect: Connect) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    await system.be_at(fleet, place, user="leaver")
    await system.be_at(fleet, moved(place, north_m=650), user="leaver")
    receipt = await system.report(fleet, place, user="reporter")
    await assert_alerted(system, fleet, place, receipt, expected=set(), among={"leaver"})


async def test_coming_back_from_muted_within_the_radius_is_walking_in(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    await system.be_at(fleet, place, user="sleeper", availability="muted")
    receipt = await system.report(fleet, place, user="reporter")
    await system.be_at(fleet, place, user="sleeper")
    await assert_alerted(system, fleet, place, receipt, expected={"sleeper"}, among={"sleeper"})


async def test_it_is_where_it_happens_that_counts_not_where_the_witness_stands(
    system: System, connect: Connect
) -> None:
    fleet = await fleet_of(connect)
    place = system.place()
    witness = moved(place, north_m=480)
    await system.be_at(fleet, place, user="by-the-fire")
    await system.be_at(fleet, moved(witness, north_m=190), user="by-the-witness")
    standing = {"lat": witness[0], "lon": witness[1]}
    receipt = await system.report(fleet, place, user="witness", reporter_location=standing)
    await assert_alerted(
        system,
        fleet,
        place,
        receipt,
        expected={"by-the-fire"},
        among={"by-the-fire", "by-the-witness"},
    )


async def test_crowd_is_claimed_by_portions_and_everybody_is_alerted_once(
    system: System, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "_AT_ONCE", 30)
    fleet, desk = await fleet_of(connect), await connect("nabij", "police/+/incident/+")
    place = system.place()
    crowd = [f"crowd-{number}" for number in range(100)]
    await asyncio.gather(*(system.be_at(fleet, place, user=user) for user in crowd))

    receipt = await system.report(fleet, place, user="reporter")

    await assert_alerted(
        system, fleet, place, receipt, expected=set(crowd), among={*crowd, "reporter"}
    )
    await desk.expect("police/gent/incident", incident=receipt["incident"], alerted=len(crowd))


async def test_a_batch_keeps_each_withdrawal_and_the_newest_place_on_either_side_of_it() -> None:
    on, muted, now_ms = Availability.AVAILABLE, Availability.MUTED, 1_000_000
    here, hidden = 0x8A1FA4A24C2FFFF, None
    came = [
        Update("ann", here, on, 50),
        Update("ann", here, on, 40),
        Update("bob", here, on, 70),
        Update("ann", hidden, muted, 10),
        Update("ann", here, on, 60),
        Update("ann", here, on, 61),
        Update("bob", here, on, now_ms + 9),
        Update("bob", here, on, now_ms),
    ]
    assert presence.worth_applying(came, now_ms) == [came[0], came[3], came[5], came[7]]
