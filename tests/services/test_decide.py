"""Deciding and committing: again until nothing has changed, and never for ever."""

import pytest

from broker.errors import UnavailableError
from broker.runtime.decide import ATTEMPTS, decide_and_commit


class Reads:
    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> int:
        self.count += 1
        return self.count


async def test_it_reads_again_after_each_commit_that_came_too_late() -> None:
    tried: list[int] = []

    async def commit(version: int) -> str | None:
        tried.append(version)
        return "committed" if version == 3 else None

    assert await decide_and_commit(Reads(), commit) == "committed"
    assert tried == [1, 2, 3]  # what was read for one attempt serves no other


async def test_an_empty_result_is_a_result() -> None:
    reads = Reads()

    async def commit(_: int) -> str:
        return ""

    assert await decide_and_commit(reads, commit) == ""
    assert reads.count == 1


async def test_a_guard_that_never_holds_is_left_for_later_and_not_tried_for_ever() -> None:
    reads = Reads()

    async def commit(_: int) -> str | None:
        return None

    with pytest.raises(UnavailableError, match="has changed"):
        await decide_and_commit(reads, commit)
    assert reads.count == ATTEMPTS


async def test_what_the_decision_refuses_is_not_tried_again() -> None:
    reads = Reads()

    async def commit(_: int) -> str | None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await decide_and_commit(reads, commit)
    assert reads.count == 1
