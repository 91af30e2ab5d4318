"""What a report may join: found by its place, and held to by its commit."""

import asyncio
import random
from uuid import UUID

import pytest
from msgspec.structs import replace

from broker.core.grid import distance_m
from broker.core.incidents import Incident, merge_target
from broker.store import (
    Store,
)
from broker.store.place_index import joinable_by
from broker.store.stored_incident import NOTHING_NEAR
from schemas.messages import (
    Mode,
    Position,
    Report,
)
from tests.core.samples import category, north, placed, report
from tests.store.samples import (
    KEYS,
    candidates,
    close,
    commit,
    joined,
    names,
    open_incident,
    open_incidents,
    opened,
)


async def test_two_reports_that_meet_cannot_both_open_an_incident(
    store: Store, other_store: Store
) -> None:
    one, two = report(), report(north(150))
    seen = [await store.incidents.neighbourhood(placed(each)) for each in (one, two)]

    won = await asyncio.gather(
        commit(store, one, opened(one), seen=seen[0]),
        commit(other_store, two, opened(two), seen=seen[1]),
    )

    assert sorted(won, key=str) == [1, None]


async def test_report_far_away_of_another_kind_or_mode_is_not_held_up(store: Store) -> None:
    others = [report(north(900)), report(code="theft"), report(mode=Mode.DRILL)]
    seen = [await store.incidents.neighbourhood(placed(each)) for each in others]
    await open_incident(store, report())

    for each, before in zip(others, seen, strict=True):
        assert await commit(store, each, opened(each), seen=before) is not None


async def test_change_of_the_incident_that_a_report_would_join_makes_it_decide_again(
    store: Store,
) -> None:
    incident = await open_incident(store, report())
    second = report(north(20))
    seen = await store.incidents.neighbourhood(placed(second))
    assert names(seen.candidates) == [incident.id]
    await close(store, incident)

    assert await commit(store, second, joined(incident, second), seen=seen) is None
    assert await candidates(store, second) == []
    assert await store.incidents.received(second.id) is None
    assert await store.incidents.report(incident.id, second.id) is None


async def test_incident_opened_after_another_closed_is_noticed(store: Store) -> None:
    second = report(north(20))
    first = await open_incident(store, report())
    before = await store.incidents.neighbourhood(placed(second))
    await close(store, first)
    await open_incident(store, report(north(10)))

    assert await commit(store, second, opened(second), seen=before) is None


async def test_incident_opened_and_closed_in_between_changes_no_decision(store: Store) -> None:
    second = report(north(20))
    before = await store.incidents.neighbourhood(placed(second))
    await close(store, await open_incident(store, report()))

    assert await candidates(store, second) == []
    assert await commit(store, second, opened(second), seen=before) is not None


async def test_incident_opened_between_two_that_closed_is_noticed(store: Store) -> None:
    beyond = category("fire").merge_m * 1.1
    first, second = [await open_incident(store, report(north(way))) for way in (beyond, -beyond)]
    one = report()
    await close(store, first)
    before = await store.incidents.neighbourhood(placed(one))
    assert (names(before.candidates), before.marker) == ([], str(second.id))
    await open_incident(store, report(north(10)))
    await close(store, second)

    assert await commit(store, one, opened(one), seen=before) is None


async def test_nothing_is_left_in_place_of_the_last_incident_that_closed(store: Store) -> None:
    first, second = [await open_incident(store, report(north(way))) for way in (0.0, 400.0)]
    key = joinable_by(KEYS, placed(report()))
    await close(store, first)
    assert await store.incidents._redis.call("HLEN", key) in (0, 2)
    await close(store, second)

    assert not await store.incidents._redis.call("EXISTS", key)


async def test_nothing_near_holds_beyond_the_merging_distance_only(store: Store) -> None:
    merge_m = category("fire").merge_m
    await open_incident(store, report())

    for metres, is_near in ((merge_m * 0.99, True), (merge_m * 1.03, False)):
        one = report(north(metres))
        sequence = await commit(store, one, opened(one), seen=NOTHING_NEAR)
        assert (sequence is None) is is_near, metres


async def test_nothing_near_does_not_hold_for_a_report_that_was_committed(store: Store) -> None:
    one = report()
    await close(store, await open_incident(store, one))

    assert await commit(store, one, opened(one), seen=NOTHING_NEAR) is None


async def test_who_found_something_reads_before_the_next_decision_there(store: Store) -> None:
    one, near = report(), report(north(20))
    assert store.incidents.expected(placed(near)) is NOTHING_NEAR
    incident = await open_incident(store, one)

    assert await candidates(store, near) == [incident.id]
    assert store.incidents.expected(placed(near)) is None
    await close(store, incident)
    assert await candidates(store, near) == []
    assert store.incidents.expected(placed(near)) is NOTHING_NEAR


async def test_candidates_are_all_that_are_within_the_merging_distance(store: Store) -> None:
    chance = random.Random(5)
    one, merge_m = report(), category("fire").merge_m
    there = [
        await open_incident(
            store, report(north(chance.uniform(-500, 500), chance.uniform(-500, 500)))
        )
        for _ in range(60)
    ]
    place = one.location
    distances = {
        incident.id: distance_m(place.lat, place.lon, incident.location.lat, incident.location.lon)
        for incident in there
    }

    found = names((await store.incidents.neighbourhood(placed(one))).candidates)

    assert {name for name, metres in distances.items() if metres <= merge_m} <= set(found)
    assert all(distances[UUID(str(name))] <= merge_m + 0.1 for name in found)


@pytest.mark.parametrize("seed", range(3))
async def test_reports_from_everywhere_merge_as_if_one_after_another(
    store: Store, other_store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    reports = [
        report(
            north(chance.uniform(-400, 400), chance.uniform(-60, 60)),
            code=chance.choice(["fire", "theft"]),
        )
        for _ in range(24)
    ]
    order: dict[int, Report] = {}

    async def take(of: Store, one: Report) -> None:
        expected = of.incidents.expected(placed(one))
        while True:
            seen = expected or await of.incidents.neighbourhood(placed(one))
            expected = None
            target = merge_target(placed(one), seen.candidates)
            after = joined(target, one) if target else opened(one)
            sequence = await commit(of, one, after, seen=seen)
            if sequence is not None:
                order[sequence] = one
                return

    await asyncio.gather(*(take((store, other_store)[n % 2], one) for n, one in enumerate(reports)))

    assert sorted(order) == list(range(1, 25))
    alone: dict[UUID, Incident] = {}
    for _, one in sorted(order.items()):  # the oracle: one after another, over all incidents
        target = merge_target(placed(one), alone.values())
        after = joined(target, one) if target else opened(one)
        alone[after.id] = after
    for identifier, expected in alone.items():
        filed = await store.incidents.get(identifier)
        assert filed is not None
        assert filed.incident == expected
    assert await open_incidents(store) == len(alone)


@pytest.mark.parametrize(
    ("place", "other"),
    [
        (Position(-16.5, 179.9995), Position(-16.5, -179.9995)),
        (Position(89.9995, 10.0), Position(89.9995, -170.0)),
        (Position(89.9992, 10.0), Position(89.9992, -170.0)),  # 178 m, over the pole
        (Position(-89.9999, 0.0), Position(-89.9999, 90.0)),
        (Position(0.0001, 0.0005), Position(-0.0001, -0.0005)),
    ],
)
async def test_reports_merge_across_the_antimeridian_and_the_poles(
    store: Store, place: Position, other: Position
) -> None:
    incident = await open_incident(store, report(place))

    there = report(other)
    assert await candidates(store, there) == [incident.id]
    assert await commit(store, there, opened(there), seen=NOTHING_NEAR) is None


async def test_every_report_within_the_merge_distance_finds_the_incident(store: Store) -> None:
    chance = random.Random(4)
    for number in range(40):
        place = north(number * 3_000.0)
        incident = await open_incident(store, report(place))
        near = replace(place, lat=place.lat + chance.choice([-1, 1]) * 199.9 / 111_194.93)
        assert await candidates(store, report(near)) == [incident.id]
