"""What several brokers' answers come to."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt import PubAckReasonCode
from broker.mqtt.broker_pool import best_of

TAKEN, NOBODY = PubAckReasonCode.SUCCESS, PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
FAILED = PubAckReasonCode.UNSPECIFIED_ERROR


@pytest.mark.parametrize(
    ("outcomes", "best"),
    [
        ([TAKEN, NOBODY], TAKEN),
        ([FAILED, TAKEN], TAKEN),
        ([NOBODY, NOBODY], NOBODY),
        ([NOBODY, FAILED], FAILED),
    ],
)
def test_taken_by_one_is_taken_and_what_one_did_not_get_has_failed(
    outcomes: Sequence[PubAckReasonCode], best: PubAckReasonCode
) -> None:
    assert best_of(outcomes) is best


@given(st.lists(st.sampled_from(PubAckReasonCode), min_size=1))
def test_the_order_of_the_brokers_does_not_matter(outcomes: list[PubAckReasonCode]) -> None:
    assert best_of(outcomes) is best_of(outcomes[::-1])
    assert best_of(outcomes) in outcomes
