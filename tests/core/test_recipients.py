"""Who is alerted, against a brute force written from docs/protocol.md, "Who is alerted"."""

import h3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.core.grid import place_of
from broker.core.incidents import Incident
from broker.core.recipients import Located, distance_to, recipients
from schemas.messages import Availability, Status
from schemas.taxonomy import Audience
from tests.core.samples import KORENMARKT, START, incident, north

NOW_MS = int(START.timestamp() * 1000)
PRESENCE_S = 900
TAKES = ("on_duty", "available")

located = st.builds(
    Located,
    user=st.text("abc-1", min_size=1, max_size=4),
    place=st.builds(north, st.floats(-900, 900), st.floats(-900, 900)).map(
        lambda place: place_of(place.lat, place.lon)
    ),
    seen_ms=st.integers(NOW_MS - 2 * PRESENCE_S * 1000, NOW_MS + 1000)
    | st.sampled_from([NOW_MS - PRESENCE_S * 1000 + step for step in (-1, 0, 1)]),
    availability=st.sampled_from(Availability),
)
crowds = st.lists(located, max_size=30, unique_by=lambda person: person.user)


def metres(person: Located, one: Incident) -> float:
    here = (one.location.lat, one.location.lon)
    there = h3.cell_to_latlng(h3.int_to_str(person.place))
    return float(h3.great_circle_distance(here, there, unit="m"))


@given(
    people=crowds,
    radius_m=st.floats(0, 1_200),
    status=st.sampled_from(Status),
    audience=st.sampled_from(Audience),
    never=st.sets(st.text("abc-1", min_size=1, max_size=2)),
)
def test_recipients_are_those_of_the_brute_force(  # noqa: PLR0917 - Hypothesis gives them by name
    people: list[Located], radius_m: float, status: Status, audience: Audience, never: set[str]
) -> None:
    one = replace(incident(audience=audience), radius_m=radius_m, status=status)

    found = recipients(people, one, presence_s=PRESENCE_S, now=START, never=never)

    expected = {
        person.user
        for person in people
        if audience == "police_and_nearby"
        and status != "closed"
        and radius_m > 0
        and metres(person, one) <= radius_m
        and NOW_MS - person.seen_ms < PRESENCE_S * 1000
        and person.availability in TAKES
        and person.user not in never
    }
    assert set(found) == expected
    assert len(found) == len(expected)
    by_user = {person.user: person for person in people}
    ordered = [(distance_to(one, by_user[user].place), user) for user in found]
    assert ordered == sorted(ordered)  # nearest first, at equal distance by name


def test_participant_on_the_radius_is_alerted_and_one_beyond_it_is_not() -> None:
    place = place_of(north(400).lat, north(400).lon)
    person = Located("ann", place, NOW_MS)
    exactly_m = distance_to(incident(), place)

    def found(radius_m: float) -> list[str]:
        one = replace(incident(), radius_m=radius_m)
        return recipients([person], one, presence_s=PRESENCE_S, now=START)

    assert found(exactly_m) == ["ann"]
    assert found(exactly_m - 1e-6) == []


@pytest.mark.parametrize("code", ["graffiti", "bicycle-theft", "threat"])
def test_nobody_is_alerted_to_what_is_routine_or_for_the_police_alone(code: str) -> None:
    person = Located("ann", place_of(KORENMARKT.lat, KORENMARKT.lon), NOW_MS)
    audience = Audience.POLICE

    one = incident(code=code, audience=audience)

    assert recipients([person], one, presence_s=PRESENCE_S, now=START) == []
