"""Reports are committed once, in order, and beside each other only if they do not meet."""

import asyncio
import random
from uuid import UUID

import pytest
import redis
from msgspec.structs import replace

from broker.core.grid import distance_m
from broker.core.groups import Member, Part
from broker.core.incidents import Incident, merge_target
from broker.events import Change, Erased
from broker.store import (
    DeadlineKind,
    Filing,
    Posted,
    Store,
    Transaction,
    file_question,
    file_receipt,
    file_reply,
    keys,
)
from broker.store.incidents import NOTHING_NEAR
from schemas.ids import group_event_id, new_id, question_id
from schemas.messages import (
    AlertReason,
    GroupEvent,
    GroupEventKind,
    Mode,
    Position,
    Question,
    Report,
)
from tests.core.samples import START, category, north, report
from tests.store.samples import (
    NEARBY,
    NOW_MS,
    TIMERS,
    change,
    changed,
    close,
    commit,
    joined,
    names,
    open_incident,
    opened,
    receipt_of,
    widen,
)


async def candidates(store: Store, one: Report) -> list[object]:
    return list(names((await store.incidents.neighbourhood(one, NEARBY)).candidates))


# -- committing ----------------------------------------------------------------------------------


async def open_incidents(store: Store) -> int:
    return int(await store.incidents._redis.call("ZCARD", keys.OPEN_INCIDENTS))


async def test_commit_can_be_read_back_whole(store: Store) -> None:
    one = report(text="rook\n«é»")
    incident = opened(one)
    posted = Posted(id="p", topic="t", payload=b"\x00\xff", due_ms=NOW_MS)

    assert await commit(store, one, incident, posted=posted) == 1

    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert (filed.incident, filed.group_events, filed.active_at) == (incident, 0, START)
    assert filed.people == {"ann": Member(part=Part.REPORTER, name="reporter-1")}
    found = await store.incidents.report(incident.id, one.id)
    assert found is not None
    assert (found.user, found.report) == ("ann", one)
    received = await store.incidents.received(one.id)
    assert received is not None
    assert (received.user, received.digest) == ("ann", "digest")
    assert received.receipt == replace(receipt_of(one.id), sequence=1)
    assert await store.outbox.take(NOW_MS, lease_ms=0) == [posted]
    [missed] = await store.missed.since("ann", START, 100)
    assert missed.incident.id == incident.id
    assert await open_incidents(store) == 1
    assert await store.incidents.get(new_id()) is None


async def test_report_is_committed_once_whoever_repeats_it(
    store: Store, other_store: Store
) -> None:
    one = report()
    seen = await store.incidents.neighbourhood(one, NEARBY)

    sequences = await asyncio.gather(
        *(commit(of, one, opened(one), seen=seen) for of in (store, other_store) * 4)
    )

    assert sorted(sequences, key=str) == [1] + [None] * 7
    again = await store.incidents.neighbourhood(one, NEARBY)
    assert again.received is not None
    assert again.received.receipt.sequence == 1
    assert await store.events.length("police") == 1


async def test_two_reports_that_meet_cannot_both_open_an_incident(
    store: Store, other_store: Store
) -> None:
    one, two = report(), report(north(150))
    seen = [await store.incidents.neighbourhood(each, NEARBY) for each in (one, two)]

    won = await asyncio.gather(
        commit(store, one, opened(one), seen=seen[0]),
        commit(other_store, two, opened(two), seen=seen[1]),
    )

    assert sorted(won, key=str) == [1, None]


async def test_report_far_away_of_another_kind_or_mode_is_not_held_up(store: Store) -> None:
    others = [report(north(900)), report(code="theft"), report(mode=Mode.DRILL)]
    seen = [await store.incidents.neighbourhood(each, NEARBY) for each in others]
    await open_incident(store, report())

    for each, before in zip(others, seen, strict=True):
        assert await commit(store, each, opened(each), seen=before) is not None


async def test_change_of_the_incident_that_a_report_would_join_makes_it_decide_again(
    store: Store,
) -> None:
    incident = await open_incident(store, report())
    second = report(north(20))
    seen = await store.incidents.neighbourhood(second, NEARBY)
    assert names(seen.candidates) == [incident.id]
    await close(store, incident)

    assert await commit(store, second, joined(incident, second), seen=seen) is None
    assert await candidates(store, second) == []
    assert await store.incidents.received(second.id) is None
    assert await store.incidents.report(incident.id, second.id) is None


async def test_incident_opened_after_another_closed_is_noticed(store: Store) -> None:
    second = report(north(20))
    first = await open_incident(store, report())
    before = await store.incidents.neighbourhood(second, NEARBY)
    await close(store, first)
    await open_incident(store, report(north(10)))

    assert await commit(store, second, opened(second), seen=before) is None


async def test_incident_opened_and_closed_meanwhile_changes_no_decision(store: Store) -> None:
    second = report(north(20))
    before = await store.incidents.neighbourhood(second, NEARBY)
    await close(store, await open_incident(store, report()))

    assert await candidates(store, second) == []
    assert await commit(store, second, opened(second), seen=before) is not None


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
    assert store.incidents.expected(near, NEARBY) is NOTHING_NEAR
    incident = await open_incident(store, one)

    assert await candidates(store, near) == [incident.id]
    assert store.incidents.expected(near, NEARBY) is None
    await close(store, incident)
    assert await candidates(store, near) == []
    assert store.incidents.expected(near, NEARBY) is NOTHING_NEAR


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

    found = names((await store.incidents.neighbourhood(one, NEARBY, merge_m)).candidates)

    assert {name for name, metres in distances.items() if metres <= merge_m} <= set(found)
    assert all(distances[UUID(str(name))] <= merge_m * 1.02 + 2 for name in found)


@pytest.mark.parametrize("seed", range(3))
async def test_reports_from_everywhere_merge_as_if_one_after_another(
    store: Store, other_store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    reports = [report(north(chance.uniform(-400, 400), chance.uniform(-60, 60)),
                      code=chance.choice(["fire", "theft"])) for _ in range(24)]  # fmt: skip
    order: dict[int, Report] = {}

    async def take(of: Store, one: Report) -> None:
        expected = of.incidents.expected(one, NEARBY)
        while True:
            seen = expected or await of.incidents.neighbourhood(
                one, NEARBY, category(one.category).merge_m
            )
            expected = None
            target = merge_target(one, category(one.category), NEARBY, seen.candidates)
            after = joined(target, one) if target else opened(one)
            sequence = await commit(of, one, after, seen=seen)
            if sequence is not None:
                order[sequence] = one
                return

    await asyncio.gather(*(take((store, other_store)[n % 2], one) for n, one in enumerate(reports)))

    assert sorted(order) == list(range(1, 25))
    alone: dict[UUID, Incident] = {}
    for _, one in sorted(order.items()):  # the oracle: one after another, over all incidents
        target = merge_target(one, category(one.category), NEARBY, alone.values())
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
        (Position(-89.9999, 0.0), Position(-89.9999, 90.0)),
        (Position(0.0001, 0.0005), Position(-0.0001, -0.0005)),
    ],
)
async def test_reports_merge_across_the_antimeridian_and_the_poles(
    store: Store, place: Position, other: Position
) -> None:
    incident = await open_incident(store, report(place))

    assert await candidates(store, report(other)) == [incident.id]


async def test_every_report_within_the_merge_distance_finds_the_incident(store: Store) -> None:
    chance = random.Random(4)
    for number in range(40):
        place = north(number * 3_000.0)
        incident = await open_incident(store, report(place))
        near = replace(place, lat=place.lat + chance.choice([-1, 1]) * 199.9 / 111_194.93)
        assert await candidates(store, report(near)) == [incident.id]


# -- changing ------------------------------------------------------------------------------------


async def test_change_needs_the_version_that_was_read(store: Store) -> None:
    incident = await open_incident(store, report())
    after = replace(incident, version=2, assigned=("a",))
    assert await store.incidents.change(incident, after, active_at=START, timers=TIMERS)
    lost = replace(incident, version=2, assigned=("b",))

    assert not await store.incidents.change(
        incident, lost, active_at=START, timers=TIMERS, events=[changed(incident)]
    )
    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert filed.incident.assigned == ("a",)
    assert await store.incidents.version(incident.id) == 2


async def test_touch_changes_the_version_alone(store: Store) -> None:
    incident = await open_incident(store, report())
    after = replace(incident, version=2)
    transaction = Transaction()
    event = GroupEvent(
        id=group_event_id(incident.id, "x"), incident=incident.id, sequence=1,
        kind=GroupEventKind.JOINED, at=START, member="helper-1", members=2,
    )  # fmt: skip
    member = Member(part=Part.HELPER, name="helper-1")
    file_reply(transaction, incident, user="bob", member=member, event=event)

    assert await store.incidents.touch(incident, after, transaction)
    assert not await store.incidents.touch(incident, after, Transaction())

    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert (filed.incident, filed.people["bob"], filed.group_events) == (after, member, 1)
    assert await store.incidents.group_events(incident.id) == [event]
    assert await store.incidents.group_events(incident.id, since=1) == []


@pytest.mark.parametrize("code", ["fire", "theft"])
async def test_incident_opened_widened_and_closed_is_open_nowhere(
    store: Store, client: redis.Redis, code: str
) -> None:
    incident = await open_incident(store, report(code=code))
    for radius_m in (800.0, 1_700.0, 3_000.0):
        incident = await widen(store, incident, radius_m)
    other = await open_incident(store, report(north(5_000), code=code))
    await close(store, incident)

    left = {key: client.hkeys(key) for key in client.scan_iter("nabij:{p0}:open:*")}
    joining = {key: client.hkeys(key) for key in client.scan_iter("nabij:{p0}:join:*")}
    assert {member for members in left.values() for member in members} == {str(other.id)}
    assert {m for members in joining.values() for m in members} == {"#", str(other.id)}
    assert client.zrange("nabij:{p0}:open-incidents", 0, -1) == [str(other.id)]
    deadlines = map(str, client.zrange("nabij:{p0}:deadlines", 0, -1))
    assert [one for one in deadlines if str(incident.id) in one] == [f"erase {incident.id}"]


async def test_incident_stays_joinable_when_its_neighbour_of_the_same_kind_closes(
    store: Store, client: redis.Redis
) -> None:
    first = await open_incident(store, report())
    second_report = report(north(10), 300)  # long after: an incident of its own, in the same cells
    second = await open_incident(store, second_report)
    await close(store, first)

    assert await candidates(store, second_report) == [second.id]
    keys_of_second = [key for key in client.scan_iter("nabij:{p0}:join:*")
                      if client.hexists(key, str(second.id))]  # fmt: skip
    assert keys_of_second
    assert {client.ttl(key) for key in keys_of_second} == {-1}


async def test_erasing_leaves_no_key_of_the_incident(store: Store, client: redis.Redis) -> None:
    incident = await open_incident(store, report())
    claimed = await store.alerts.claim(
        incident, ["bob", "cleo"], reason=AlertReason.NEARBY, now=START, retention_s=600
    )
    await store.alerts.record_alerts(
        incident.id, claimed[:1], claimed[1:], now=START, event=changed(incident, Change.ALERTED)
    )
    filed = await store.incidents.get(incident.id)
    assert filed is not None
    done = await close(store, filed.incident)
    people = filed.people

    await store.incidents.erase(done, people, Erased(incident=done.id, zone=done.zone))

    assert set(people) == {"ann", "bob", "cleo"}
    for key in client.scan_iter("nabij:*"):
        if ":events:" in key:
            continue  # what happened, for whoever has still to act on it
        content = _content(client, str(key))
        assert str(incident.id) not in key
        assert str(incident.id) not in content or ":receipt:" in key
    assert await store.incidents.get(incident.id) is None
    assert await store.missed.since("bob", START, 100) == []


def _content(client: redis.Redis, key: str) -> str:
    match client.type(key):
        case "hash":
            return str(client.hgetall(key))
        case "zset":
            return str(client.zrange(key, 0, -1))
        case "list":
            return str(client.lrange(key, 0, -1))
        case _:
            return str(client.get(key))


async def test_questions_and_receipts_are_kept_for_a_while(
    store: Store, client: redis.Redis
) -> None:
    asked = Question(
        id=question_id(new_id()), incident=new_id(), report=new_id(), text="?", asked_at=START
    )
    message = new_id()
    transaction = Transaction()
    file_question(transaction, asked, "ann")
    file_receipt(transaction, Filing(message, "ann", "d", receipt_of(message), group_sequence=4))
    await transaction.run(store._redis)

    assert await store.incidents.question(asked.id) == ("ann", asked)
    assert await store.incidents.question(new_id()) is None
    received = await store.incidents.received(message)
    assert received is not None
    assert received.group_sequence == 4
    assert all(0 < client.ttl(key) <= 7 * 86_400
               for key in client.scan_iter("nabij:*") if "events" not in key)  # fmt: skip


async def test_deadlines_are_set_when_an_incident_opens(store: Store) -> None:
    incident = await open_incident(store, report())

    due = await store.deadlines.due(NOW_MS + 10**9)

    assert [(deadline.kind, deadline.incident, deadline.due_ms - NOW_MS) for deadline in due] == [
        (DeadlineKind.OVERDUE, incident.id, TIMERS.acknowledge_s * 1000),
        (DeadlineKind.WIDEN, incident.id, TIMERS.accept_s * 1000),
        (DeadlineKind.SILENCE, incident.id, TIMERS.silence_s * 1000),
    ]
    assert await change(store, incident, incident)
