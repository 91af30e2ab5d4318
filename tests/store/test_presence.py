"""Where people are, beside a model of it in plain Python."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import redis
import structlog
from h3.api import basic_int as h3
from msgspec.structs import replace

from broker.core.grid import centre_of, distance_m, filed, place_of
from broker.core.incidents import Incident
from broker.core.recipients import Located
from broker.store import Hit, Store, Update
from schemas.ids import new_id
from schemas.messages import AlertReason, Availability, Position
from tests.core.samples import KORENMARKT, START, north, report
from tests.store.places import AROUND, MUTED, ON, PLACES, PRESENCE_S, assert_one_place_each, moved
from tests.store.samples import NOW_MS, TIMERS, close, open_incident, widen


@dataclass
class There:
    place: int | None
    availability: Availability
    at_ms: int
    received_ms: int
    withdrew_ms: int | None = None  # what the last withdrawal said


@dataclass
class Model:
    """docs/protocol.md, "Who is alerted", without cells: everybody and every incident in a list."""

    people: dict[str, There] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    alerted: set[tuple[str, str]] = field(default_factory=set)

    def update(self, update: Update, now_ms: int) -> set[tuple[str, str]]:
        old = self.people.get(update.user)
        at_ms = min(update.at_ms, now_ms)
        if update.place is None:
            if old is not None and update.at_ms == old.withdrew_ms:
                return set()
            at_ms = max(min(update.at_ms, now_ms + 300_000), old.at_ms if old else 0, 0)
            self.people[update.user] = There(None, MUTED, at_ms, now_ms, update.at_ms)
            return set()
        if old is not None and (
            update.at_ms <= old.at_ms if old.place is None else at_ms < old.at_ms
        ):
            return set()
        withdrew_ms = old.withdrew_ms if old else None
        new = There(update.place, update.availability, at_ms, now_ms, withdrew_ms)
        self.people[update.user] = new
        old_place = None
        if old is not None and old.at_ms > now_ms - PRESENCE_S * 1000:
            old_place = old.place
        if old is not None and old_place == update.place and at_ms != old.at_ms:
            return set()
        into = {(update.user, str(one.id)) for one in self.incidents if inside(one, update.place)}
        if old is not None and old_place is not None:
            into |= {
                (update.user, str(one.id))
                for one in self.incidents
                if inside(one, old_place)
                and one.wave_at.timestamp() * 1000 >= old.received_ms - 10_000
            }
        return into - self.alerted

    def near(self, cells: Sequence[int]) -> set[Located]:
        return {
            Located(user, there.place, there.at_ms, there.availability)
            for user, there in self.people.items()
            if there.place is not None and filed(there.place)[0] in set(cells)
        }

    def sweep(self, now_ms: int) -> None:
        oldest_ms = now_ms - PRESENCE_S * 1000
        self.people = {u: there for u, there in self.people.items() if there.at_ms > oldest_ms}


def inside(incident: Incident, place: int) -> bool:
    here = incident.location
    return distance_m(here.lat, here.lon, *centre_of(place)) <= incident.radius_m


def measured(hits: Sequence[Hit]) -> set[tuple[str, str]]:
    return {
        (hit.user, str(hit.incident))
        for hit in hits
        if distance_m(hit.lat, hit.lon, *centre_of(hit.place)) <= hit.radius_m
    }


@pytest.mark.parametrize("seed", range(6))
async def test_presence_is_what_the_model_says(
    store: Store, client: redis.Redis, seed: int
) -> None:
    chance, model, now_ms = random.Random(seed), Model(), NOW_MS
    users = [f"u-{n}" for n in range(12)]
    last: list[Update] = []
    for turn in range(60):
        now_ms += chance.choice([0, 50, 2_000, 30_000])
        match chance.randrange(12):
            case 0 if len(model.incidents) < 8:
                place = north(chance.uniform(-900, 900), chance.uniform(-500, 500))
                one = await open_incident(store, report(place, turn * 61), user="zoe")
                model.incidents.append(one)
            case 1 if model.incidents:
                index = chance.randrange(len(model.incidents))
                one = model.incidents[index]
                model.incidents[index] = await widen(store, one, one.radius_m * 1.6)
            case 2 if len(model.incidents) > 4:
                await close(store, model.incidents.pop(0))
            case 3 if model.incidents:
                one, user = chance.choice(model.incidents), chance.choice(users)
                await store.alerts.claim(
                    one, [user], reason=AlertReason.NEARBY, now=START, retention_s=60
                )
                model.alerted.add((user, str(one.id)))
            case 4:
                now_ms += chance.choice([0, PRESENCE_S * 1000])
                await store.presence.sweep(now_ms=now_ms, presence_s=PRESENCE_S)
                model.sweep(now_ms)
            case _:
                batch = [
                    Update(
                        chance.choice(users),
                        *chance.choice(
                            [
                                (chance.choice(PLACES), ON),
                                (chance.choice(PLACES), ON),
                                (chance.choice(PLACES), Availability.ON_DUTY),
                                (None, MUTED),
                            ]
                        ),
                        now_ms - chance.choice([0, 0, 1_000, 40_000, -1_000, -400_000]),
                    )
                    for _ in range(chance.randrange(1, 8))
                ]
                batch += chance.sample(last, min(len(last), chance.randrange(3)))  # delivered again
                hits = await store.presence.update(batch, now_ms=now_ms, presence_s=PRESENCE_S)
                expected = set[tuple[str, str]]().union(
                    *(model.update(update, now_ms) for update in batch)
                )
                assert measured(hits) == expected
                last = batch
        assert set(await store.presence.near(AROUND)) == model.near(AROUND)
    assert_one_place_each(client)


async def test_older_presence_changes_nothing_not_even_after_muting(
    store: Store, client: redis.Redis
) -> None:
    await moved(store, "ann", PLACES[0], NOW_MS)
    await moved(store, "ann", PLACES[9], NOW_MS - 1)
    assert [person.place for person in await store.presence.near(AROUND)] == [PLACES[0]]

    await moved(store, "ann", None, NOW_MS + 5)
    await moved(store, "ann", PLACES[9], NOW_MS + 4)

    assert await store.presence.near(AROUND) == []
    assert_one_place_each(client)


@pytest.mark.parametrize("said_ms", [-62_135_596_800_000, NOW_MS - 1_000, 253_402_300_799_000])
async def test_a_withdrawal_counts_whatever_its_time_and_once(
    store: Store, client: redis.Redis, said_ms: int
) -> None:
    async def at(said_ms: int, place: int | None, now_ms: int) -> list[int]:
        await moved(store, "ann", place, said_ms, now_ms=now_ms)
        return [person.place for person in await store.presence.near(AROUND)]

    assert await at(NOW_MS, PLACES[0], NOW_MS) == [PLACES[0]]
    assert await at(said_ms, None, NOW_MS + 10) == []
    # Neither a repeat, nor what is older, brings the place back.
    assert await at(NOW_MS, PLACES[0], NOW_MS + 20) == []
    assert await at(NOW_MS - 5, PLACES[9], NOW_MS + 30) == []
    later_ms = NOW_MS + 300_011  # a clock ahead is believed for 5 minutes at most
    assert await at(later_ms, PLACES[3], later_ms) == [PLACES[3]]
    # The same withdrawal again is a repeat; another one is not, however old.
    assert await at(said_ms, None, later_ms + 1) == [PLACES[3]]
    assert await at(said_ms + 1, None, later_ms + 2) == []
    assert_one_place_each(client)


async def test_a_user_who_leaves_before_the_crowd_is_read_is_alerted_for_the_old_place(
    store: Store,
) -> None:
    inside_it, far = place_of(KORENMARKT.lat, KORENMARKT.lon), PLACES[0]
    await moved(store, "ann", inside_it, NOW_MS - 5_000)
    incident = await open_incident(store, report(), user="zoe")

    hits = await moved(store, "ann", far, NOW_MS + 20)

    assert measured(hits) == {("ann", str(incident.id))}
    # A user who had left before the incident was opened is not.
    await moved(store, "bob", inside_it, NOW_MS + 60_000)
    assert measured(await moved(store, "bob", far, NOW_MS + 61_000)) == set()


async def test_reporter_is_never_hit_and_a_user_alerted_never_again(store: Store) -> None:
    incident = await open_incident(store, report(), user="ann")
    here = place_of(KORENMARKT.lat, KORENMARKT.lon)

    assert await moved(store, "ann", here, NOW_MS) == []
    assert len(await moved(store, "bob", here, NOW_MS)) == 1
    await store.alerts.claim(
        incident, ["bob"], reason=AlertReason.WALKED_IN, now=START, retention_s=60
    )
    assert await moved(store, "bob", PLACES[0], NOW_MS + 1) == []
    assert await moved(store, "bob", here, NOW_MS + 2) == []


@pytest.mark.parametrize("seed", range(3))
async def test_a_user_who_comes_near_is_hit_anywhere_on_earth(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(40):
        lat, lon = math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180)
        incident = await open_incident(store, report(Position(lat, lon)))
        # The place of the incident itself, and its neighbours, which are often filed elsewhere.
        places = h3.grid_disk(place_of(lat, lon), 2)
        updates = [
            Update(f"w{number}-{one}", place, ON, NOW_MS) for one, place in enumerate(places)
        ]
        hits = await store.presence.update(updates, now_ms=NOW_MS, presence_s=PRESENCE_S)
        assert {hit.place for hit in hits if hit.incident == incident.id} == set(places)


@pytest.mark.parametrize("place", ["anywhere", "a pole", "the other side of the date line"])
async def test_only_who_is_within_the_radius_is_hit(store: Store, place: str) -> None:
    """So that a worker does not hear of every open incident of a district with each position."""
    chance = random.Random(place)
    lat, lon = {
        "anywhere": (math.degrees(math.asin(chance.uniform(-1, 1))), chance.uniform(-180, 180)),
        "a pole": (89.9999, 20.0),
        "the other side of the date line": (-16.8, 179.9999),
    }[place]
    incident = await open_incident(store, report(Position(lat, lon)))
    places = h3.grid_disk(place_of(lat, lon), 12)
    updates = [Update(f"w-{number}", one, ON, NOW_MS) for number, one in enumerate(places)]

    hits = await store.presence.update(updates, now_ms=NOW_MS, presence_s=PRESENCE_S)

    away = {one: distance_m(lat, lon, *centre_of(one)) for one in places}
    found = {hit.place for hit in hits}
    assert {one for one in places if away[one] <= incident.radius_m} <= found
    assert max(map(away.__getitem__, found)) <= incident.radius_m + 2
    assert len(found) < len(places)  # some are beyond


@pytest.mark.parametrize(
    "entry", ["51.0 3.7 x 1790000000000", "51.0 y 500.0 1790000000000", "junk"]
)
async def test_an_entry_that_cannot_be_read_costs_no_other_incident_and_no_place(
    store: Store, client: redis.Redis, entry: str
) -> None:
    incident = await open_incident(store, report())
    (district,) = {h3.cell_to_parent(place_of(KORENMARKT.lat, KORENMARKT.lon), 8)}
    client.hset(store.keys.reaching(district), str(new_id()), entry)
    here = place_of(KORENMARKT.lat, KORENMARKT.lon)
    updates = [Update(name, here, ON, NOW_MS) for name in ("bob", "cid")]

    with structlog.testing.capture_logs() as logged:
        hits = await store.presence.update(updates, now_ms=NOW_MS, presence_s=PRESENCE_S)

    assert measured(hits) == {("cid", str(incident.id)), ("bob", str(incident.id))}
    assert {one.user for one in await store.presence.near(AROUND)} == {"cid", "bob"}
    assert {one["what"] for one in logged} == {"an open incident"}


async def test_presence_repeated_after_a_crash_hits_again(store: Store) -> None:
    await open_incident(store, report(), user="zoe")
    here = place_of(KORENMARKT.lat, KORENMARKT.lon)

    first = await moved(store, "ann", here, NOW_MS)
    again = await moved(store, "ann", here, NOW_MS, now_ms=NOW_MS + 700)

    assert measured(again) == measured(first) != set()
    assert await moved(store, "ann", here, NOW_MS + 900) == []  # stayed: told already


async def test_crowd_in_one_batch_is_read_in_one_question(store: Store) -> None:
    updates = [Update(f"u-{n}", PLACES[n % len(PLACES)], ON, NOW_MS) for n in range(3_000)]
    await store.presence.update(updates, now_ms=NOW_MS, presence_s=TIMERS.presence_s)

    assert len(await store.presence.near(AROUND)) == 3_000
    assert await store.presence.near([]) == []
    assert replace(await open_incident(store, report()), version=1).reports == 1
