"""A message is sent again if its desk has lost it, and not because its desk is slow."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.resending import (
    FIRST_RETRY_MS,
    GRACE_MS,
    LAST_RETRY_MS,
    NEW,
    TURN_MS,
    Pacing,
    Progress,
    again_after_ms,
)

NOW_MS = 1_772_366_400_000
SLOW_MS = 20_000


def confirming(*, took_ms: int, ago_ms: int = 0) -> Progress:
    """A desk that said `ago_ms` ago that it had read what was sent `took_ms` before."""
    at_ms = NOW_MS - ago_ms
    return NEW.after([at_ms - took_ms], [at_ms - took_ms], at_ms)


def sends(known: Progress, age_ms: int) -> bool:
    return Pacing({"gent": known}, NOW_MS).sends("gent", NOW_MS - age_ms)


def test_what_waits_in_a_desks_queue_is_not_sent_again() -> None:
    slow = confirming(took_ms=SLOW_MS)
    assert not any(sends(slow, age_ms) for age_ms in range(0, 2 * SLOW_MS + 1, 500))
    assert sends(slow, 2 * SLOW_MS + 1)


def test_a_quick_desk_has_lost_what_is_a_grace_older_than_what_it_confirms() -> None:
    quick = confirming(took_ms=30)
    assert not sends(quick, GRACE_MS + 30)
    assert sends(quick, GRACE_MS + 31)


def copies_in_a_turn(known: Progress | None) -> int:
    pacing = Pacing({"gent": known} if known else {}, NOW_MS)
    sent = [pacing.sends("gent", NOW_MS - 3_600_000) for _ in range(25)]
    assert sent == sorted(sent, reverse=True)
    assert pacing.sends("kortrijk", NOW_MS)  # is counted for itself
    return sum(sent)


def test_a_desk_that_confirms_nothing_any_more_is_sent_fewer_copies_the_longer_it_is_silent() -> (
    None
):
    assert [
        copies_in_a_turn(confirming(took_ms=30, ago_ms=silent_s * 1_000 + 1))
        for silent_s in (3, 6, 30, 59, 60, 86_400)
    ] == [19, 9, 1, 1, 1, 1]
    assert copies_in_a_turn(confirming(took_ms=30, ago_ms=-3_600_000)) == 1


@pytest.mark.parametrize("silent_s", [60, 3_600])
def test_each_of_a_burst_has_its_turn_though_its_desk_was_silent_before(silent_s: int) -> None:
    known = confirming(took_ms=30, ago_ms=silent_s * 1_000)
    burst = dict.fromkeys(range(200), NOW_MS + GRACE_MS)  # when each is looked at
    lost = set(burst)
    for now_ms in range(NOW_MS + GRACE_MS, NOW_MS + 300_000, TURN_MS):
        pacing = Pacing({"gent": known}, now_ms)
        for each in sorted((one for one in burst if burst[one] <= now_ms), key=burst.__getitem__):
            late_ms = now_ms - NOW_MS - GRACE_MS
            if pacing.sends("gent", NOW_MS):
                lost.discard(each)
                burst[each] = now_ms + pacing.again_after_ms("gent", late_ms)
            else:
                burst[each] = now_ms + pacing.unsent_for_ms("gent", NOW_MS, late_ms)
    assert not lost


def test_a_desk_that_never_confirmed_is_sent_twenty_in_a_turn() -> None:
    assert copies_in_a_turn(None) == 20


def test_a_slow_desk_may_be_silent_for_as_long_as_it_takes_but_a_minute() -> None:
    assert not sends(confirming(took_ms=SLOW_MS, ago_ms=SLOW_MS), SLOW_MS)
    assert sends(confirming(took_ms=SLOW_MS, ago_ms=SLOW_MS + 1), SLOW_MS)
    assert sends(confirming(took_ms=3_600_000, ago_ms=60_001), SLOW_MS)


def test_a_clock_that_went_back_leaves_no_message_unsent() -> None:
    assert sends(confirming(took_ms=30, ago_ms=-3_600_000), GRACE_MS)


def test_which_copy_was_read_is_not_known_so_it_tells_no_time() -> None:
    known = confirming(took_ms=30)
    assert known.after([NOW_MS - 50_000], [], NOW_MS).took_ms == 30
    assert known.after([NOW_MS - 50_000, NOW_MS - 90], [NOW_MS - 90], NOW_MS).took_ms == 90


def test_a_desk_is_as_far_as_the_latest_that_it_confirms() -> None:
    known = NEW.after([NOW_MS - 50_000, NOW_MS - 90, NOW_MS - 700], [], NOW_MS)
    assert (known.sent_ms, known.at_ms) == (NOW_MS - 90, NOW_MS)


def test_a_message_that_is_late_is_looked_at_again_after_half_of_that() -> None:
    assert again_after_ms(2 * (FIRST_RETRY_MS + 7)) == FIRST_RETRY_MS + 7
    assert again_after_ms(-2 * (FIRST_RETRY_MS + 7)) == FIRST_RETRY_MS + 7


@given(late_ms=st.integers(-10 * LAST_RETRY_MS, 10 * LAST_RETRY_MS), took_ms=st.integers(0, 90_000))
@example(late_ms=0, took_ms=SLOW_MS)
def test_a_copy_has_as_long_as_its_desk_takes(late_ms: int, took_ms: int) -> None:
    pacing = Pacing({"gent": confirming(took_ms=took_ms)}, NOW_MS)
    patience_ms = min(max(took_ms, GRACE_MS), 60_000)
    assert pacing.again_after_ms("gent", late_ms) == max(again_after_ms(late_ms), patience_ms)
    assert pacing.again_after_ms("kortrijk", late_ms) == again_after_ms(late_ms)
    assert pacing.unsent_for_ms("kortrijk", 0, late_ms) == again_after_ms(late_ms) // 2
    assert FIRST_RETRY_MS <= again_after_ms(late_ms) <= LAST_RETRY_MS


@given(took_ms=st.integers(30, 60_000), age_ms=st.integers(GRACE_MS, 120_000))
def test_what_waits_is_looked_at_again_when_it_is_lost_if_its_desk_has_not_read_it_by_then(
    took_ms: int, age_ms: int
) -> None:
    known = confirming(took_ms=took_ms)
    if sends(known, age_ms):
        return
    wait_ms = Pacing({"gent": known}, NOW_MS).unsent_for_ms("gent", NOW_MS - age_ms, 0)
    assert 1_000 <= wait_ms <= 120_000
    then = NOW_MS + wait_ms  # and the desk is as far behind as it was
    later = NEW.after([then - took_ms], [then - took_ms], then)
    assert wait_ms == 120_000 or Pacing({"gent": later}, then + 1).sends(
        "gent", NOW_MS - age_ms - 1
    )


@given(numbers=st.tuples(*[st.integers(0, 2**53)] * 3))
def test_progress_is_read_as_it_was_written(numbers: tuple[int, int, int]) -> None:
    assert Progress.parse(str(Progress(*numbers)).encode()) == Progress(*numbers)
