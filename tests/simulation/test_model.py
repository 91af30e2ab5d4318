"""The modelled Redis beside a real one: what a simulated city asked, asked again, same answers."""

import time
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.store.kernel.redis_connection import _SCRIPTS
from nabij.local.embedded import EmbeddedRedis
from verify.simulation.redis_model import Database, Word, raw
from verify.simulation.script_models import SCRIPTS, Script
from verify.simulation.simulated_world import SimulatedWorld
from verify.simulation.strings import unpacked
from verify.simulation.virtual_time import silence

Asked = tuple[str, Sequence[str], Sequence[Word], Any]  # script or "", keys, words, answer


def test_every_script_of_the_store_has_its_model() -> None:
    assert set(SCRIPTS) == set(_SCRIPTS)


def recorded(seed: int) -> list[Asked]:
    """What the services of a world asked in its first minute: no place has expired by then."""
    world = SimulatedWorld(seed)
    asked: list[Asked] = []
    inside: list[str] = []

    def listening(name: str, script: Script) -> Script:
        def run(database: Database, keys: Sequence[str], words: Sequence[Word]) -> Any:
            inside.append(name)
            answer = script(database, keys, words)
            inside.pop()
            if world.loop.now < 60:
                asked.append((name, keys, list(words), answer))
            return answer

        return run

    execute = world.redis.database.execute

    def listen(*words: Word) -> Any:
        answer = execute(*words)
        if not inside and world.loop.now < 60:
            asked.append(("", (), list(words), answer))
        return answer

    world.redis.database.execute = listen  # type: ignore[method-assign]
    for name, script in SCRIPTS.items():
        world.redis.scripts[name] = listening(name, script)
    with silence():
        world.run()
    return asked


def is_of_the_server(words: Sequence[Word]) -> bool:
    """Whether the answer is the server's own settings, or its time."""
    own = words[:1] and words[0] in {"TIME", "PTTL", "CONFIG", "INFO"}
    return bool(own) or (words[:1] == ["HGETALL"] and "worker-beats" in str(words[1]))


def plain(answer: Any) -> Any:
    """An answer without what says nothing: the order in hashes, and integers' types."""
    if isinstance(answer, (list, tuple)):
        return sorted((plain(item) for item in answer), key=repr)
    return b"%d" % answer if isinstance(answer, int) else answer


def numbered(words: Sequence[Word], entries: Counter[bytes]) -> list[Word]:
    """A transaction with the entries' ids that the model gives: 1-0, 2-0, …, for each stream."""
    assert isinstance(words[0], bytes)
    guards, calls, references = unpacked(words[0])
    for call in calls:
        if call[0] == b"XADD":
            entries[call[1]] += 1
            call[2] = b"%d-0" % entries[call[1]]
    return [packed((guards, calls, references))]


def packed(value: object) -> bytes:
    """The converse of `unpacked`."""
    return msgspec.msgpack.encode(as_strings(value))


def as_strings(value: Any) -> Any:
    if isinstance(value, bytes):
        return msgspec.Raw(b"\xdb" + len(value).to_bytes(4, "big") + value)
    return [*map(as_strings, value)] if isinstance(value, (list, tuple)) else value


@given(
    st.recursive(
        st.binary() | st.floats(allow_nan=False) | st.integers(0, 2**53),
        lambda some: st.lists(some, max_size=20),
    )
)
@example([b"x" * size for size in (0, 31, 32, 255, 256, 65_535, 65_536)])
@example([b""] * 70_000)
def test_what_is_packed_is_read_back(value: Any) -> None:
    assert unpacked(packed(value)) == value
    assert unpacked(msgspec.msgpack.encode([["é" * 20, 7], [0.5]])) == [
        ["é".encode() * 20, 7],
        [0.5],
    ]


@pytest.mark.parametrize("seed", [2, 9, 73])
def test_the_model_answers_as_a_real_server(redis_url: str, seed: int) -> None:
    client = redis.Redis.from_url(redis_url, protocol=2)
    server = client.connection_pool.get_connection()
    folder = resources.files("broker.store.kernel").joinpath("scripts")
    scripts = {
        name: asked_of(server, ["SCRIPT", "LOAD", folder.joinpath(f"{name}.lua").read_text()])
        for name in _SCRIPTS
    }
    entries: Counter[bytes] = Counter()
    compared = 0
    for name, keys, words, answer in recorded(seed):
        claims = name == "worker" and b'"state":"claimed"' in raw(words[3])
        if claims or words[:1] == ["XCLAIM"] or (words[:1] == ["XAUTOCLAIM"] and answer[1]):
            break  # since when something was idle is another time there
        if is_of_the_server(words):
            continue
        if name:
            committed = name == "commit" and answer[0] == 1
            again = numbered(words, entries) if committed else words
            found = asked_of(server, ["EVALSHA", scripts[name], len(keys), *keys, *again])
        elif words[0] == "XADD":  # what poisons a stream
            entries[raw(words[1])] += 1
            found = asked_of(server, [*words[:2], answer, *words[3:]])
        else:
            found = asked_of(server, words)
        if words[:1] == ["XINFO"]:
            assert plain([row[:4] for row in found]) == plain([row[:4] for row in answer])
        else:
            assert plain(found) == plain(answer), (name, keys, words)
        compared += 1
    client.connection_pool.disconnect()
    assert compared > 500


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            *(
                st.sampled_from(words)
                for words in (
                    "ab",
                    ("", "x", "y"),
                    ("", "7"),
                    ("", "x", "y"),
                    ("", "a", "b"),
                    ("x", "y"),
                )
            )
        ),
        max_size=12,
    )
)
def test_a_workers_record_changes_in_the_model_as_on_a_real_server(
    redis_server: EmbeddedRedis, changes: list[tuple[str, ...]]
) -> None:
    """In the simulation this is asked with few of the words that it may have."""
    source = resources.files("broker.store.kernel").joinpath("scripts", "worker.lua").read_text()
    keys = ["{m}workers", "{m}beats"]
    database = Database(lambda: 1_000, lambda _: None)
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        client.delete(*keys)
        for change in changes:
            found = client.eval(source, 2, *keys, *change)
            assert found == SCRIPTS["worker"](database, keys, change)
        records = client.hgetall(keys[0])
        assert records == dict(database.value(raw(keys[0])) or {})
        assert set(client.hgetall(keys[1])) == set(records)
        client.delete(*keys)


NAMES = st.sampled_from("abcdef")
KEPT = st.tuples(
    NAMES, st.integers(-9, 9), st.integers(1, 6), st.sampled_from("xy"), st.lists(NAMES)
)


@settings(max_examples=40)
@given(st.lists(KEPT | st.lists(NAMES, min_size=1), min_size=1, max_size=14))
def test_dead_letters_are_kept_and_dropped_in_the_model_as_on_a_real_server(
    redis_server: EmbeddedRedis, changes: list[tuple[str, int, int, str, list[str]] | list[str]]
) -> None:
    """The simulation lays few aside, so that it never comes to a limit."""
    source = resources.files("broker.store.kernel").joinpath("scripts", "bury.lua").read_text()
    keys = ["{m}letters", "{m}times", "{m}counts", "{m}shares", "{m}sizes"]
    hour_ms = 3_600_000
    now_ms = 1_000 * int(time.time())
    database = Database(lambda: now_ms, lambda _: None)
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        client.delete(*keys, "{m}of-x", "{m}of-y")
        for change in changes:
            words: list[Word] = [4, 15, 0, 0, "{m}of-", "", 0, "", "", *change]
            if isinstance(change, tuple):
                name, hours, size, sender, replaced = change
                at_ms = now_ms + hours * hour_ms
                words = [4, 15, 5 * hour_ms + hour_ms // 2, 2, "{m}of-", name, at_ms]
                words += [name * size, sender, *replaced]
            found = client.eval(source, len(keys), *keys, *words)
            assert found == SCRIPTS["bury"](database, keys, words)
            for key in (keys[0], keys[2], keys[3]):
                assert client.hgetall(key) == dict(database.value(raw(key)) or {}), change
            for key in (keys[1], keys[4], "{m}of-x", "{m}of-y"):
                rows = client.execute_command("ZRANGE", key, 0, -1, "WITHSCORES")
                assert rows == database.execute("ZRANGE", key, 0, -1, "WITHSCORES"), change
                due_ms = client.pexpiretime(key)
                assert abs(due_ms - database._expires.get(raw(key), min(0, due_ms))) < 60_000
        client.delete(*keys, "{m}of-x", "{m}of-y")


def test_a_consumer_is_deleted_in_the_model_as_on_a_real_server(redis_url: str) -> None:
    """In the simulation few workers are gone for good."""
    source = resources.files("broker.store.kernel").joinpath("scripts", "forget.lua").read_text()
    database = Database(lambda: 0.0, lambda _: None)
    stream, group = "{m}forget", "readers"
    with redis.Redis.from_url(redis_url) as client:
        client.xgroup_create(stream, group, mkstream=True)
        database.execute("XGROUP", "CREATE", stream, group, "0")
        client.xadd(stream, {"e": 1})
        database.execute("XADD", stream, "*", "e", "1")
        for consumer in ("busy", "idle"):
            words: list[Word] = ["GROUP", group, consumer, "COUNT", 9, "STREAMS", stream, ">"]
            client.execute_command("XREADGROUP", *words)
            database.execute("XREADGROUP", *words)
        for consumer, deleted in (("busy", 0), ("idle", 1), ("never-was", 1)):
            words = [group, consumer]
            assert client.eval(source, 1, stream, *words) == deleted
            assert SCRIPTS["forget"](database, [stream], words) == deleted
        assert [one["name"] for one in client.xinfo_consumers(stream, group)] == [b"busy"]
        client.delete(stream)


def asked_of(server: Any, words: Sequence[Word]) -> Any:
    """The bare answer of a real server, which is not to wait for what does not come."""
    if "BLOCK" in words:
        at = list(words).index("BLOCK")
        words = [*words[:at], *words[at + 2 :]]
    server.send_command(*words)
    return server.read_response()


def test_what_is_due_moves_with_the_clock_in_the_model_as_on_a_real_server(redis_url: str) -> None:
    """The simulation's clocks do not jump, so it does not ask for this."""
    source = resources.files("broker.store.kernel").joinpath("scripts", "rebase.lua").read_text()
    keys = ["{m}jump", "{m}deadlines", "{m}empty"]
    database = Database(lambda: 0.0, lambda _: None)
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(keys[1], {"a": 1_000, "b": 5_000_000})
        database.execute("ZADD", keys[1], 1_000, "a", 5_000_000, "b")
        # The same jump noticed by another worker, then one back.
        for words in (
            [100_000, 3_600_000, 99_000],
            [100_400, 3_600_000, 99_000],
            [9_000_000, -3_600_000, 99_000],
        ):
            found = client.eval(source, len(keys), *keys, *words)
            assert found == SCRIPTS["rebase"](database, keys, words)
            scores = client.zrange(keys[1], 0, -1, withscores=True)
            assert [word for row in scores for word in (row[0], b"%d" % row[1])] == (
                database.execute("ZRANGE", keys[1], 0, -1, "WITHSCORES")
            )
            assert client.get(keys[0]) == database.execute("GET", keys[0])
        assert dict(scores) == {b"a": 1_000.0, b"b": 5_000_000.0}
