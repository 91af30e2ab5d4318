"""Invariant I9: what grows without bound is told from what has found its size."""

from typing import Any

import pytest

from verify.chaos.growth import EVERY_S, Growth, Series

Run = Any  # tests/chaos/conftest.py: SmallRun


def test_memory_that_rises_through_the_second_half_grows() -> None:
    growth = _series([50.0 + second for second in range(60)]).growth(0.0, 60.0)
    assert growth == "83, 90, 97, 104 in the quarters of the second half"


@pytest.mark.parametrize(
    "values",
    [
        [50.0] * 60,
        [float(second) for second in range(30)] + [30.0] * 30,  # it has found its size
        [50.0 + second % 20 * 3 for second in range(60)],  # it goes up and down
        [50.0 + second / 10 for second in range(60)],  # less than a fifth, and than 20 MB
    ],
)
def test_memory_that_does_not_rise_all_the_time_does_not_grow(values: list[float]) -> None:
    assert _series(values).growth(0.0, 60.0) is None


def test_a_process_that_was_started_late_is_not_judged() -> None:
    series = Series(20.0, [(40.0 + n / 2, 50.0 + 3 * n) for n in range(40)])

    assert series.growth(0.0, 60.0) is None


def test_a_queue_that_grows_is_named_and_violates_i9(small_run: Run) -> None:
    growth = Growth()
    for number in range(120):
        growth.queues(number * EVERY_S, {"outbox": number * 100, "stream city": 5})
    small_run.growth = growth.judged(0.0, 120 * EVERY_S)

    assert [text.partition(" ")[0] for text in small_run.growth] == ["outbox"]
    assert small_run.violated() == {"I9": 1}


def _series(values: list[float]) -> Series:
    return Series(20.0, [(float(second), value) for second, value in enumerate(values)])
