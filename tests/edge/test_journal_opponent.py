"""Whatever clients do and whenever the broker is killed, its journal keeps what was promised."""

import itertools
from typing import get_args

import pytest

from broker.edge import recovery
from broker.edge.recorder import Recorder
from broker.edge.records import MessageRecord, Record, RetainedRecord, SessionRecord
from tests.edge.journal_opponent import Opponent, play

SEEDS, A_TEST = 45, 15


@pytest.mark.parametrize("first", range(0, SEEDS, A_TEST))
def test_what_was_acknowledged_outlives_kills_and_rewrites(first: int) -> None:
    for seed in range(first, first + A_TEST):
        play(seed)


def assert_is_seen() -> None:
    with pytest.raises(AssertionError):  # noqa: PT012 - one of them is to fail
        for seed in range(100):
            play(seed)


def test_it_is_seen_when_answers_do_not_wait_for_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recorder, "awaited", 0)
    assert_is_seen()


@pytest.mark.parametrize(
    ("kind", "may_compare"),
    [
        *((kind, True) for kind in get_args(Record)),
        *((kind, False) for kind in (MessageRecord, RetainedRecord, SessionRecord)),
    ],
)
def test_it_is_seen_when_a_start_forgets_every_other_record_of_a_kind(
    monkeypatch: pytest.MonkeyPatch, kind: type, *, may_compare: bool
) -> None:
    take, count = recovery._Replay.take, itertools.count()

    def forgetful(self: recovery._Replay, record: Record) -> None:
        if not isinstance(record, kind) or next(count) % 2:
            take(self, record)

    monkeypatch.setattr(recovery._Replay, "take", forgetful)
    if not may_compare:  # by what clients get alone
        monkeypatch.setattr(Opponent, "look", lambda _: None)
    assert_is_seen()


def test_it_is_seen_when_a_copy_says_again_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*args: int) -> list[list[Record]]:
        return list(snapshot(*args))  # type: ignore[arg-type]

    snapshot = recovery.snapshot
    monkeypatch.setattr(recovery, "snapshot", lambda *args: iter(stale(*args)))
    assert_is_seen()
