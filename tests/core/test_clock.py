"""A jump of the wall clock is seen at the very reading, held off for a grace, and then gone by."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.clock_jumps import (
    AGREE_S,
    GRACE_S,
    MAX_STEP_S,
    SharedTime,
    Timekeeper,
    Turn,
    read,
    started,
    started_from,
)

WALL_S = 1_790_000_000.0
steps = st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(-0.5, 0.5)), max_size=60)
jumps = st.one_of(st.floats(MAX_STEP_S * 2, 1e9), st.floats(-1e9, -MAX_STEP_S * 2))


def told(known: Timekeeper, steady_s: float) -> float:
    return steady_s + known.offset_s


@given(steps)
def test_small_corrections_are_followed_and_are_no_jump(some: list[tuple[float, float]]) -> None:
    wall, steady = WALL_S, 100.0
    known = started(wall, steady)
    for passed, corrected in some:
        wall, steady = wall + passed + corrected, steady + passed
        known, turn = read(known, wall, steady)
        assert turn is Turn.STEADY
        assert abs(told(known, steady) - wall) < 1e-3


@given(jumps, steps)
def test_during_the_grace_time_only_passes(jump_s: float, some: list[tuple[float, float]]) -> None:
    wall, steady = WALL_S, 100.0
    known = started(wall, steady)
    began, turns = told(known, steady), []
    wall += jump_s
    for passed, _ in [(0.0, 0.0), *some]:
        wall, steady = wall + passed, steady + passed
        known, turn = read(known, wall, steady)
        turns.append(turn)
        assert abs(told(known, steady) - began - (steady - 100.0)) < 1e-3
    assert turns == [Turn.JUMPED, *[Turn.STEADY] * len(some)]


@given(jumps, st.booleans())
def test_after_the_grace_the_new_time_counts_if_another_clock_agrees(
    jump_s: float,
    others_agree: bool,  # noqa: FBT001 - an example
) -> None:
    known, _ = read(started(WALL_S, 0.0), WALL_S + jump_s, 0.0)
    end = GRACE_S + 1
    known, turn = read(known, WALL_S + jump_s + end, end, others_agree=others_agree)
    if others_agree:
        assert turn is Turn.ADOPTED
        assert abs(told(known, end) - (WALL_S + jump_s + end)) < 1e-3
    else:
        assert turn is Turn.STEADY
        assert abs(told(known, end) - (WALL_S + end)) < 1e-3


@given(jumps)
def test_a_clock_that_comes_back_has_changed_nothing(jump_s: float) -> None:
    known, _ = read(started(WALL_S, 0.0), WALL_S + jump_s, 0.0)
    known, turn = read(known, WALL_S + 10, 10.0)
    assert turn is Turn.RETURNED
    assert known.jump_s == 0.0
    assert abs(told(known, 10.0) - (WALL_S + 10)) < 1e-3


def test_a_second_jump_begins_the_grace_again() -> None:
    known, _ = read(started(WALL_S, 0.0), WALL_S + 3_600, 0.0)
    known, turn = read(known, WALL_S - 3_600 + 800, 800.0)
    assert turn is Turn.JUMPED
    known, turn = read(known, WALL_S - 3_600 + 1_000, 1_000.0)
    assert turn is Turn.STEADY
    _, turn = read(known, WALL_S - 3_600 + 1_701, 1_701.0)
    assert turn is Turn.ADOPTED


def test_a_jump_that_drifts_while_it_is_held_off_is_known_by_where_it_is_now() -> None:
    known, _ = read(started(WALL_S, 0.0), WALL_S + 100, 0.0)
    for step in range(1, 5):  # each within one step of the last, all together beyond it
        known, turn = read(known, WALL_S + 100 + 11.5 * step, 10.0 * step)
        assert turn is Turn.STEADY
    assert known.jump_s == 106.0


@given(st.floats(-AGREE_S, AGREE_S))
def test_a_worker_starts_by_its_own_clock_if_that_agrees_with_the_others(off_s: float) -> None:
    known = started_from(SharedTime(WALL_S - off_s), WALL_S, 100.0)
    assert known == started(WALL_S, 100.0)


@given(jumps.filter(lambda off_s: abs(off_s) > AGREE_S))
def test_a_worker_whose_clock_differs_starts_by_the_time_of_the_others(off_s: float) -> None:
    known = started_from(SharedTime(WALL_S), WALL_S + off_s, 100.0)
    assert told(known, 100.0) == WALL_S
    assert abs(known.jump_s - off_s) < 1e-3
    assert known.jumped_at == 100.0  # held off for the whole grace


def test_a_worker_that_starts_holds_a_jump_off_no_longer_than_the_others() -> None:
    def adopts_after_s(held_for_s: float) -> float:
        known = started_from(SharedTime(WALL_S, held_for_s), WALL_S + 3_600, 0.0)
        return next(
            float(passed)
            for passed in range(1_000)
            if read(known, WALL_S + 3_600 + passed, float(passed))[1] is Turn.ADOPTED
        )

    assert adopts_after_s(0.0) == GRACE_S
    assert adopts_after_s(300.0) == 300.0
    assert adopts_after_s(GRACE_S) == GRACE_S
    assert adopts_after_s(GRACE_S + 1) == GRACE_S  # nobody holds one off for so long


def test_a_time_is_the_workers_own_and_no_jump_until_it_is_said() -> None:
    assert not SharedTime(WALL_S).from_redis
    assert Timekeeper(offset_s=1.0) == Timekeeper(offset_s=1.0, jump_s=0.0, jumped_at=0.0)
