"""Two and four workers of each service come to the same result as one, on a seeded scenario."""

import asyncio
import random
from typing import Any

import pytest
import redis

from broker.store import Store, outbox_messages
from schemas.ids import new_id
from tests.services.system import KORENMARKT, Servers, ago, moved, polled, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATEGORIES = ("fight", "fire", "theft", "noise", "threat", "bicycle-theft")
Result = dict[str, Any]


def seeded_reports(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Reports by many users over a square of 1.2 km, close enough that many merge."""
    chance = random.Random(7)
    reports = []
    for number in range(count):
        north_m, east_m = chance.uniform(-600, 600), chance.uniform(-600, 600)
        lat, lon = moved(KORENMARKT, north_m=north_m, east_m=east_m)
        report = {
            "id": str(new_id()),
            "category": chance.choice(CATEGORIES),
            "location": {"lat": lat, "lon": lon},
            # Not near the hour after which nobody is alerted: the runs come one after another.
            "seen_at": ago(seconds=chance.uniform(0, 3_000)),
        }
        reports.append((f"witness-{number % 40}", report))
    return reports


async def result_of(
    servers: Servers, reports: list[tuple[str, dict[str, Any]]], workers: int
) -> Result:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()
    timers = {"accept_s": 1_500, "acknowledge_s": 1_500}
    async with running(servers, timers=timers, workers=workers) as system:
        fleet = await system.connect("nabij", "u/+/down/#")
        everything = await system.connect("nabij", "police/+/escalation/#", "city/#")
        chance = random.Random(11)
        people = [
            (
                f"near-{n}",
                moved(
                    KORENMARKT, north_m=chance.uniform(-900, 900), east_m=chance.uniform(-900, 900)
                ),
            )
            for n in range(60)
        ]
        await asyncio.gather(*(system.be_at(fleet, place, user=user) for user, place in people))
        receipts = [await system.send_report(fleet, report, user=user) for user, report in reports]
        await everything.until(
            lambda: len({one.payload.get("id") for one in everything.received}) >= len(reports),
            "all reports",
        )
        sentinel_place = moved(KORENMARKT, north_m=5_000)
        await system.be_at(fleet, sentinel_place, user="sentinel")
        last = await system.report(fleet, sentinel_place, user="last")
        await fleet.expect("u/sentinel/down/alert", incident=last["incident"])
        await _drained(system.store)
        await system.be_at(fleet, sentinel_place, user="sentinel")  # behind all that was published
        return {
            "receipts": [(one["id"], one["incident"], one.get("merge")) for one in receipts],
            "alerts": sorted(
                (one.topic, one.payload["incident"], one.payload["id"])
                for one in fleet.received
                if one.topic.endswith("/alert") and one.payload["incident"] != last["incident"]
            ),
            "desks": sorted(
                (one.topic, one.payload["id"], one.payload.get("kind", ""))
                for one in everything.received
                if "incident" in one.payload and one.payload["incident"] != last["incident"]
            ),
        }


async def _drained(store: Store) -> None:
    """Wait until every service has finished what was on its stream."""

    async def are_empty() -> bool:
        lengths = [await store.events.length(name) for name in ("alerting", "police", "city")]
        return not any(lengths)

    await polled(are_empty)


async def test_several_workers_of_each_service_come_to_the_same_result_as_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is sent again for want of a receipt in time, so what comes twice was published twice.
    monkeypatch.setattr(outbox_messages, "GRACE_MS", 600_000)
    reports = seeded_reports(120)
    one = await result_of(servers, reports, workers=1)
    assert await result_of(servers, reports, workers=2) == one
    assert await result_of(servers, reports, workers=4) == one
    assert len(one["alerts"]) == len(set(one["alerts"])) > 100
    assert len(one["desks"]) == len(reports)
    assert 10 < sum(merge == "merged" for _, _, merge in one["receipts"]) < 110
