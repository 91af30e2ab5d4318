"""Simulated people: what they decide follows from the seed, and they never jump."""

import math
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import NAMESPACE
from schemas.messages import Position, ReplyKind
from verify.world.habits import Habits, Person
from verify.world.tracks import moved, offset_between, synthetic_tracks

GHENT = Position(lat=51.0543, lon=3.7217)
INCIDENTS = [uuid5(NAMESPACE, str(number)) for number in range(400)]


def person(user: str = "ann", seed: int = 1) -> Person:
    (track,) = synthetic_tracks(1, 5, GHENT)
    return Person(user, track, seed, Habits())


def apart_m(one: Position, other: Position) -> float:
    return math.hypot(*offset_between(one, other))


def test_the_same_seed_decides_the_same_about_the_same_incidents() -> None:
    first, again, other = (
        [someone.decide(incident) for incident in INCIDENTS]
        for someone in (person(), person(), person(seed=2))
    )
    assert first == again
    assert first != other


def test_a_decision_does_not_depend_on_what_came_before() -> None:
    forth, back = person(), person()
    back.next_presence_s(3.0)
    decided = {incident: forth.decide(incident) for incident in INCIDENTS}
    assert decided == {incident: back.decide(incident) for incident in reversed(INCIDENTS)}


def test_people_accept_as_often_as_each_of_them_is_inclined_to() -> None:
    for number in range(20):
        someone = person(f"p-{number}")
        answers = [someone.decide(incident).answer for incident in INCIDENTS]
        share = answers.count(ReplyKind.ACCEPTED) / len(answers)
        assert 0.17 <= someone.acceptance <= 0.47
        assert share == pytest.approx(someone.acceptance, abs=0.1)


def test_who_does_not_come_neither_speaks_nor_leaves() -> None:
    for decision in map(person().decide, INCIDENTS):
        assert 1.0 <= decision.seen_after_s <= 5.0
        if decision.answer is not ReplyKind.ACCEPTED:
            assert decision.words is None
            assert decision.leaves_after_s is None


@given(st.floats(0.0, 5_000.0), st.floats(-800.0, 800.0), st.floats(-800.0, 800.0))
def test_helping_takes_as_long_as_walking_there_and_nobody_jumps(
    now_s: float, x_m: float, y_m: float
) -> None:
    someone = person()
    place = moved(GHENT, x_m, y_m)
    before = someone.position_at(now_s)
    errand = someone.go_to(place, now_s)
    arrived_s = now_s + errand.eta_s
    assert apart_m(before, someone.position_at(now_s)) < 0.01
    assert errand.eta_s == pytest.approx(apart_m(before, place) / 1.4, abs=0.01)
    assert apart_m(place, someone.position_at(arrived_s)) < 0.1
    someone.walk_on(errand, arrived_s + 60.0)
    assert apart_m(place, someone.position_at(arrived_s + 60.0)) < 0.1
    assert apart_m(place, someone.position_at(arrived_s + 70.0)) < 15.0


def test_a_finished_errand_does_not_end_the_next_one() -> None:
    someone = person()
    first = someone.go_to(moved(GHENT, 500.0, 0.0), 0.0)
    second = someone.go_to(moved(GHENT, 0.0, 500.0), 10.0)
    someone.walk_on(first, 20.0)
    assert apart_m(moved(GHENT, 0.0, 500.0), someone.position_at(10.0 + second.eta_s)) < 0.1


@given(st.floats(0.0, 5_000.0))
def test_the_next_presence_comes_within_30_s_and_before_25_m_are_long_past(now_s: float) -> None:
    someone = person()
    wait_s = someone.next_presence_s(now_s)
    assert 0.0 < wait_s <= 30.0
    walked_m = apart_m(someone.position_at(now_s), someone.position_at(now_s + wait_s))
    assert walked_m <= 25.0 + 2 * 1.5
