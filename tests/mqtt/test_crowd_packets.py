"""A crowd as our client sees it: packets within a size, and an outcome for each topic."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt.crowd import Crowd, is_announced, outcomes_of, packets_for
from broker.mqtt.message import Message
from broker.mqtt.reason_codes import PubAckReasonCode as Code

MESSAGE = Message("u/x/down/alert", b"help", expiry_s=30, correlation=b"c")
MOST_BYTES = 128 * 1024


@pytest.mark.parametrize(
    ("properties", "takes"),
    [
        ((("crowd", "1"),), True),
        ((("a", "b"), ("crowd", "1")), True),
        ((("crowd", "2"),), False),
        ((), False),
    ],
)
def test_only_who_announces_it_is_sent_a_crowd(
    properties: tuple[tuple[str, str], ...],
    takes: bool,  # noqa: FBT001
) -> None:
    assert is_announced(properties) == takes


@given(sizes=st.lists(st.integers(1, 60_000), max_size=12))
def test_packets_are_as_full_as_their_size_lets_them_be(sizes: list[int]) -> None:
    topics = ["t" * size for size in sizes]
    packets = list(packets_for(MESSAGE, topics))
    found = [msgspec.msgpack.decode(one.payload) for one, _ in packets]
    assert [topic for some, _ in found for topic in some] == topics
    assert [count for _, count in packets] == [len(some) for some, _ in found]
    taken = [sum(len(topic) + 3 for topic in some) for some, _ in found]
    assert all(size <= MOST_BYTES for size in taken)
    following = [len(some[0]) + 3 for some, _ in found[1:]]
    assert all(a + b > MOST_BYTES for a, b in zip(taken, following, strict=False))
    for message, _ in packets:
        assert message == msgspec.structs.replace(MESSAGE, topic="$crowd", payload=message.payload)
    assert all(payload == b"help" for _, payload in found)


def test_a_packet_that_is_exactly_full_is_one() -> None:
    half = "t" * (MOST_BYTES // 2 - 3)
    assert [count for _, count in packets_for(MESSAGE, [half, half])] == [2]
    assert [count for _, count in packets_for(MESSAGE, [half, half + "t"])] == [1, 1]


def test_each_topic_has_the_outcome_that_the_puback_names() -> None:
    told = (("other", "16:0"), ("outcomes", "16:0,2-4;151:6"))
    found = outcomes_of(Code.SUCCESS, told, 8)
    nobody, full, fine = Code.NO_MATCHING_SUBSCRIBERS, Code.QUOTA_EXCEEDED, Code.SUCCESS
    assert found == [nobody, fine, nobody, nobody, nobody, fine, full, fine]
    assert outcomes_of(Code.NOT_AUTHORIZED, (("outcomes", ""),), 2) == [Code.NOT_AUTHORIZED] * 2


async def test_a_crowd_waits_for_its_puback() -> None:
    crowd = Crowd(MESSAGE, 3)
    waiting = asyncio.ensure_future(crowd.outcomes())
    await asyncio.sleep(0)
    assert not waiting.done()
    crowd.publication.note((("outcomes", "16:1"),))
    crowd.publication.settle(Code.SUCCESS)
    assert await waiting == [Code.SUCCESS, Code.NO_MATCHING_SUBSCRIBERS, Code.SUCCESS]
    assert crowd.publication.message is MESSAGE
