"""A jump of the wall clock is seen at the very reading, held off for a grace, and then gone by."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core.clock_jumps import GRACE_S, MAX_STEP_S, Timekeeper, Turn, read, started

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
