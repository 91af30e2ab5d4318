"""Sixteen partitions, and a border of two that runs 400 m west of the Korenmarkt."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import pytest
import redis

from broker.core.grid import place_of, region_of
from broker.store.kernel.keys import partition_of
from tests.services.client import Connect
from tests.services.system import KORENMARKT, Place, System, a_report, ago, moved, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = 16


@pytest.fixture(scope="module")
def partitions() -> int:
    return PARTITIONS


def partition_at(place: Place) -> int:
    return partition_of(region_of(place_of(*place)), PARTITIONS)


def border(north_m: float) -> tuple[Place, Place]:
    """Two places some 40 m apart on an east-west line so far north, in two partitions."""
    east_m = 0.0
    here = moved(KORENMARKT, north_m=north_m)
    while partition_at(moved(here, east_m=east_m - 40)) == partition_at(here):
        east_m -= 20
    sides = moved(here, east_m=east_m), moved(here, east_m=east_m - 40)
    assert partition_at(sides[0]) != partition_at(sides[1])
    return sides


async def test_reports_on_both_sides_of_a_border_are_one_incident(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    here, there = border(0)
    first = await system.report(ann, here)
    report = a_report(there, "fight")
    second = await system.send_report(bob, report)

    assert (first["merge"], second["merge"]) == ("opened", "merged")
    assert second["incident"] == first["incident"]
    assert second["sequence"] != first["sequence"]
    assert await system.send_report(bob, report) == second  # a repeat finds it over there
    other = {**report, "text": "something else"}
    assert (await system.send_report(bob, other))["code"] == "id_reused"
    filed = await system.filed(first["incident"])
    assert filed is not None
    assert filed.incident.reports == 2


async def test_reports_on_both_sides_at_once_are_one_incident(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    sides = border(1_000)
    receipts = await asyncio.gather(
        *(system.report(fleet, sides[number % 2], user=f"p-{number}") for number in range(1, 25))
    )

    assert len({receipt["incident"] for receipt in receipts}) == 1
    assert sorted(receipt["merge"] for receipt in receipts) == ["merged"] * 23 + ["opened"]
    assert len({receipt["sequence"] for receipt in receipts}) == 24


async def test_a_repeat_after_the_incident_beyond_the_border_has_closed_keeps_its_receipt(
    system: System, connect: Connect
) -> None:
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/#")
    here, there = border(2_000)
    first = await system.report(ann, here)
    report = a_report(there, "fight")
    second = await system.send_report(ann, report)
    closed = await system.command(desk, "close", first["incident"], outcome="done")
    assert closed["outcome"] == "accepted"

    assert await system.send_report(ann, report) == second
    later = await system.report(ann, there)
    assert later["merge"] == "opened"
    assert later["incident"] != first["incident"]


async def test_alerts_reach_over_a_border_and_a_user_who_crosses_it_gets_one(
    system: System, connect: Connect
) -> None:
    names = ("ann", "bob", "cleo", "dirk", "eva")
    ann, bob, cleo, dirk, eva = [await connect(name) for name in names]
    here, there = border(3_000)
    await system.be_at(bob, moved(there, east_m=-100))
    await system.be_at(cleo, moved(here, east_m=100))
    await system.be_at(dirk, there)
    await system.be_at(dirk, moved(here, east_m=2_000))  # gone from where he was, over the border
    await system.be_at(eva, moved(there, east_m=-3_000))
    incident = (await system.report(ann, here))["incident"]
    for client in (bob, cleo):
        await client.expect(f"u/{client.name}/down/alert", incident=incident)
    await system.be_at(eva, there)  # walks in, beyond the border
    alert = await eva.expect("u/eva/down/alert", incident=incident)
    assert alert["reason"] == "walked_in"
    await system.be_at(bob, moved(here, east_m=50))  # crosses it, alerted already
    await system.be_at(eva, moved(here, east_m=50))
    await system.be_at(eva, there)
    await system.reply(bob, incident)
    for client in (bob, cleo, eva):
        assert len(client.on(f"u/{client.name}/down/alert", incident=incident)) == 1
    assert not dirk.on("u/dirk/down/alert", incident=incident)


async def test_a_sync_finds_what_was_missed_in_every_partition(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    before, incidents = ago(), set()
    for place in border(4_000):
        away = moved(place, east_m=1_500 if place[1] > KORENMARKT[1] else -1_500)
        await system.be_at(bob, away)
        incident = (await system.report(ann, away))["incident"]
        await bob.expect("u/bob/down/alert", incident=incident)
        incidents.add(incident)
    again = await connect("bob")
    await again.ask("u/bob/up/sync", {"since": before})

    assert {alert["incident"] for alert in again.on("u/bob/down/alert")} >= incidents


async def test_nothing_is_left_beyond_the_border_of_what_has_closed(
    system: System, connect: Connect
) -> None:
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/#")
    here, there = border(5_000)
    incident = (await system.report(ann, here))["incident"]
    await system.report(ann, there)
    beyond = partition_at(there)
    assert f"nabij:{{p{beyond}}}:" in str(_found_at(system, incident))
    await system.command(desk, "close", incident, outcome="done")

    async def is_gone() -> bool:
        return not _found_at(system, incident)

    await polled(is_gone)


def _found_at(system: System, incident: str) -> list[str]:
    """The keys by which `incident` is found from a place."""
    assert system.settings.redis_url is not None
    with redis.Redis.from_url(system.settings.redis_url, decode_responses=True) as client:
        families = [*client.scan_iter("nabij:*:join:*"), *client.scan_iter("nabij:*:open:*")]
        return [str(key) for key in families if client.hexists(str(key), incident)]


async def test_what_is_filed_stays_in_as_many_partitions_as_it_was(system: System) -> None:
    counts: Mapping[int, int] = {
        store.keys.partition: store.keys.count for store in system.partitions
    }
    assert counts == dict.fromkeys(range(PARTITIONS), PARTITIONS)
    assert await system.store.partition_count() == PARTITIONS
    region = UUID("00000000-0000-0000-0000-000000000013")
    assert system.partitions.of(region).keys.partition == 0x13 % PARTITIONS
