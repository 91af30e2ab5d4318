"""A crowd as our client sees it: packets within a size, and an outcome for each topic."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt.batch import Batch
from broker.mqtt.crowd import is_announced, outcomes_of, packets_for
from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import ConnectionLost
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


# -- what a batch makes of it --------------------------------------------------------------------


HELP, OTHER = b"help", b"other"


def to(*names: str, payload: bytes = HELP, **more: Any) -> list[Message]:
    return [Message(name, payload, **more) for name in names]


def packets_of(batch: Batch) -> list[tuple[str, list[str] | None]]:
    """Each packet's topic, and those that it is for if it is one for many."""
    found: list[tuple[str, list[str] | None]] = []
    for publication in batch.publications():
        message = publication.message
        is_crowd = message.topic == "$crowd"
        found.append(
            (message.topic, msgspec.msgpack.decode(message.payload)[0] if is_crowd else None)
        )
    return found


@pytest.mark.parametrize(
    "other",
    [
        {"payload": bytes([*HELP])},  # equal, yet not known to be
        {"expiry_s": 3},
        {"correlation": b"c"},
    ],
    ids=str,
)
async def test_what_differs_in_its_topic_alone_is_one_packet(other: dict[str, Any]) -> None:
    messages = [*to(*"abcd"), *to(*"efgh", **other), *to(*"ijk")]
    assert packets_of(Batch(messages, takes_crowds=True)) == [
        ("$crowd", [*"abcd"]),
        ("$crowd", [*"efgh"]),
        ("i", None),
        ("j", None),
        ("k", None),
    ]
    assert packets_of(Batch(messages)) == [(name, None) for name in "abcdefghijk"]


@pytest.mark.parametrize(
    "other",
    [{"qos": 0}, {"retain": True}, {"response_topic": "r"}, {"user_properties": (("a", "b"),)}],
    ids=str,
)
async def test_what_a_crowd_cannot_say_is_a_packet_for_each(other: dict[str, Any]) -> None:
    batch = Batch(to(*"abcde", **other), takes_crowds=True)
    assert packets_of(batch) == [(name, None) for name in "abcde"]


async def test_a_batch_has_the_outcome_of_each_message_in_order() -> None:
    batch = Batch(
        [*to("x", payload=OTHER), *to(*"abcd"), *to("y", payload=OTHER)], takes_crowds=True
    )
    single, crowd, last = batch.publications()
    waiting = asyncio.ensure_future(batch.outcomes())
    last.settle(Code.QUOTA_EXCEEDED)
    assert crowd.note is not None
    crowd.note((("outcomes", "16:1"),))
    crowd.settle(Code.SUCCESS)
    await asyncio.sleep(0)
    assert not waiting.done()
    single.settle(Code.NO_MATCHING_SUBSCRIBERS)
    taken, nobody = Code.SUCCESS, Code.NO_MATCHING_SUBSCRIBERS
    expected = [nobody, taken, nobody, taken, taken, Code.QUOTA_EXCEEDED]
    assert await waiting == expected


async def test_a_batch_whose_caller_is_gone_sends_nothing_more() -> None:
    batch = Batch([*to(*"abcd"), *to(*"efgh", payload=OTHER)], takes_crowds=True)
    publications = batch.publications()
    next(publications).settle(ConnectionLost("gone"))
    assert list(publications) == []
    with pytest.raises(ConnectionLost):
        await batch.outcomes()
