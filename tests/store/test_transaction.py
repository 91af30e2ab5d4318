"""The commit: every guard holds and all is carried out, or nothing is."""

import asyncio

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import UnavailableError
from broker.store import Store, Transaction
from services import routes

KEY, SET, OTHER = "nabij:{p0}:t:hash", "nabij:{p0}:t:zset", "nabij:{p0}:t:other"


def guarded(store: Store, guards: list[tuple[str, bool]]) -> Transaction:
    """Guards over a hash with v=3 and a sorted set with m at 7; False makes one that fails."""
    transaction = store.transaction()
    for kind, holds in guards:
        match kind:
            case "absent":
                transaction.require_absent(OTHER if holds else KEY)
            case "field":
                transaction.require_field(KEY, "v", 3 if holds else 4)
            case "no field":
                transaction.require_field(KEY, "w" if holds else "v", "")
            case _:
                transaction.require_score(SET, "m", 7 if holds else 8)
    return transaction


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(
    guards=st.lists(
        st.tuples(st.sampled_from(["absent", "field", "no field", "score"]), st.booleans()),
        max_size=5,
    )
)
def test_one_failing_guard_stops_every_call(
    redis_url: str, client: redis.Redis, guards: list[tuple[str, bool]]
) -> None:
    client.flushall()
    client.hset(KEY, "v", "3")
    client.zadd(SET, {"m": 7})

    async def run() -> list[object] | None:
        async with Store(redis_url, routes=routes()) as store:
            transaction = guarded(store, guards)
            transaction.call("SET", OTHER, "1")
            transaction.call("HSET", KEY, "v", "9")
            return await transaction.run()

    results = asyncio.run(run())

    if all(holds for _, holds in guards):
        assert results == [b"OK", 0]
        assert client.hget(KEY, "v") == "9"
    else:
        assert results is None
        assert client.hgetall(KEY) == {"v": "3"}
        assert not client.exists(OTHER)


async def test_result_of_a_call_can_be_a_word_of_a_later_one(
    store: Store, client: redis.Redis
) -> None:
    transaction = store.transaction()
    transaction.call("SET", OTHER, 41)
    number = transaction.call("INCR", OTHER)
    transaction.call_with(number, "HSET", KEY, "number")
    transaction.call_with(number, "HSET", KEY, "other", "x", "again")

    assert await transaction.run() == [b"OK", 42, 1, 2]
    assert client.hgetall(KEY) == {"number": "42", "other": "x", "again": "42"}


async def test_one_call_for_each_key_of_a_list(store: Store, client: redis.Redis) -> None:
    transaction = store.transaction()
    transaction.call_each([f"{KEY}:{n}" for n in range(300)], "HSET", "field", "a b")
    transaction.call_each([], "HSET", "field", "a b")
    after = transaction.call("INCR", OTHER)
    transaction.call_with(after, "HSET", KEY, "n")

    await transaction.run()

    assert client.hgetall(f"{KEY}:299") == {"field": "a b"}
    assert client.hget(KEY, "n") == "1"  # results keep their numbers
    assert len(client.keys(f"{KEY}:*")) == 300


async def test_words_are_binary_safe_and_may_be_empty(store: Store, client: redis.Redis) -> None:
    transaction = store.transaction()
    transaction.call("HSET", KEY, "é\n", b"\xff\x01\r\n", "empty", "")

    await transaction.run()

    assert await store._redis.call("HGETALL", KEY) == [
        "é\n".encode(),
        b"\xff\x01\r\n",
        b"empty",
        b"",
    ]
    assert client.type(KEY) == "hash"


async def test_of_two_transactions_on_one_version_one_wins(
    store: Store, other_store: Store
) -> None:
    async def bump(of: Store, version: int) -> bool:
        transaction = of.transaction()
        transaction.require_field(KEY, "v", version or "")
        transaction.call("HSET", KEY, "v", version + 1)
        return await transaction.run() is not None

    for version in range(50):
        won = await asyncio.gather(bump(store, version), bump(other_store, version))
        assert sorted(won) == [False, True]


async def test_script_that_redis_has_forgotten_is_loaded_again(
    store: Store, client: redis.Redis
) -> None:
    for _ in range(3):
        client.script_flush()
        transaction = store.transaction()
        transaction.call("INCR", OTHER)
        await asyncio.gather(transaction.run(), store.presence.near([1]))
    assert client.get(OTHER) == "3"


async def test_call_that_redis_refuses_is_ours_to_mend(store: Store) -> None:
    transaction = store.transaction()
    transaction.call("NO-SUCH-COMMAND")

    with pytest.raises(UnavailableError, match="Redis"):
        await transaction.run()
