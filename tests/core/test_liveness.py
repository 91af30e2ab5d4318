"""Who has died is told by looks, not by clocks."""

from broker.runtime.liveness import DEAD_LOOKS, Liveness


def looks(liveness: Liveness, count: int, sign: int = 1) -> None:
    for _ in range(count):
        liveness.look({"b": sign})


def test_a_worker_without_a_sign_of_life_over_several_looks_is_dead_and_not_sooner() -> None:
    liveness = Liveness()
    looks(liveness, DEAD_LOOKS)
    assert not liveness.is_dead("b")
    looks(liveness, 1)
    assert liveness.is_dead("b")
    looks(liveness, 1, sign=2)
    assert not liveness.is_dead("b")
    assert liveness.is_alive("b")


def test_who_was_only_ever_seen_once_is_neither_alive_nor_dead() -> None:
    liveness = Liveness()
    looks(liveness, 1)
    assert not liveness.is_alive("b")
    assert not liveness.is_dead("b")
    assert not liveness.is_alive("nobody")
    assert not liveness.is_dead("nobody")


def test_what_was_seen_before_redis_was_away_kills_nobody() -> None:
    liveness = Liveness()
    looks(liveness, DEAD_LOOKS)
    liveness.forget()
    looks(liveness, DEAD_LOOKS)
    assert not liveness.is_dead("b")
    looks(liveness, 1)
    assert liveness.is_dead("b")


def test_a_session_that_could_not_be_taken_over_is_left_alone_for_longer_each_time() -> None:
    liveness = Liveness()
    liveness.failed("b")
    looks(liveness, 2 * DEAD_LOOKS)
    assert not liveness.is_dead("b")
    looks(liveness, 1)
    assert liveness.is_dead("b")
    liveness.failed("b")
    assert not liveness.is_dead("b")
    liveness.forgive()
    assert liveness.is_dead("b")


def test_the_time_that_a_sign_tells_does_not_count_only_that_it_changes() -> None:
    liveness = Liveness()
    for sign in (1_000, 9_999_999, 5, 5_000, 4):  # a clock that jumps
        liveness.look({"b": sign})
        assert not liveness.is_dead("b")
    assert liveness.is_alive("b")
