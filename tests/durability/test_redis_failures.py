"""A Redis that cannot write, or has lost its tail: no receipt, the reason in the log, no lie."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
import redis
import structlog

from broker.core.health import redis_cause, with_mend
from broker.errors import UnavailableError
from broker.store import Store
from broker.store.kernel.keys import Keys
from broker.store.kernel.redis_connection import CorruptError, RedisConnection
from broker.store.kernel.streams import Events
from nabij.local.embedded import Account, EmbeddedMqtt, EmbeddedRedis
from nabij.local.surroundings import disk
from services import routes
from tests.core.samples import north, placed, report
from tests.services.client import Client
from tests.services.system import Servers, a_report, polled, running
from tests.store.samples import commit, opened

KEYS = Keys()

REPORTS = 60


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path, *, leave: int) -> Path:
    """Write a file until only `leave` bytes are free."""
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4_096) == 4_096:
            pass
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - leave)
    return filler


async def receipted(client: Client, sent: dict[str, str], within_s: float) -> set[str]:
    """Send each once; return the ids of those whose receipts come in time."""
    for user, body in sent.items():
        await client.publish(f"u/{user}/up/report", body.encode())
    with contextlib.suppress(AssertionError, TimeoutError):
        async with asyncio.timeout(within_s):
            await client.expect("u/", subject="report", outcome="accepted", count=len(sent))
    return _accepted(client)


def _accepted(client: Client) -> set[str]:
    return {one["id"] for one in client.on("u/", subject="report", outcome="accepted")}


async def test_a_full_disk_stops_the_receipts_and_with_space_again_all_is_confirmed(
    own_mqtt: EmbeddedMqtt, accounts: dict[str, Account], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk), structlog.testing.capture_logs() as logs:
        async with EmbeddedRedis(disk) as own_redis:
            servers = Servers(
                mqtt=own_mqtt,
                redis_url=own_redis.url,
                accounts=accounts,
                directory=tmp_path,
            )
            async with running(servers) as system:
                fleet = await system.connect("nabij", "u/+/down/receipt")
                filler = fill(disk, leave=40_000)
                bodies = {
                    f"u-{number}": _body(a_report(system.place())) for number in range(REPORTS)
                }
                confirmed = await receipted(fleet, bodies, 3.0)
                assert len(confirmed) < REPORTS
                # What Redis does when it cannot fsync: it ends, rather than answer. `nabij up` and
                # docker-compose start it again; here, once there is room.
                await polled(lambda: _dead(own_redis))
                filler.unlink()
                await own_redis.restart()

                await fleet.until(lambda: len(_accepted(fleet)) == REPORTS, "every receipt")
                stored = {one for one in await _received(system.store, bodies) if one is not None}
                assert confirmed <= stored
                assert len(stored) == REPORTS
    whys = {entry["why"] for entry in logs if entry["event"] == "unavailable, trying again"}
    assert any(why.startswith("Redis") for why in whys)


async def test_a_full_disk_is_named_by_what_redis_says_and_by_what_is_free(tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    with small_disk(directory):
        almost = disk(directory)
        assert almost is not None
        assert almost.code == "disk_low"
        async with EmbeddedRedis(directory) as server, Store(server.url, routes=routes()) as store:
            with redis.Redis.from_url(server.url) as client:
                client.config_set("appendfsync", "everysec")  # else it ends rather than refuse
            filler = fill(directory, leave=0)
            full = disk(directory)
            assert full is not None
            assert full.code == "disk_full"
            assert str(directory) in full.what

            async def is_told() -> bool:
                try:
                    await store.server.write()
                except UnavailableError as error:
                    cause = redis_cause(str(error), "of Redis")
                    return cause.code == "disk_full" and "the disk is full" in with_mend(str(error))
                return False

            await polled(is_told)
            filler.unlink()


def _body(report: dict[str, object]) -> str:
    return json.dumps(report)


async def _dead(server: EmbeddedRedis) -> bool:
    return not server.running


async def _received(store: Store, bodies: dict[str, str]) -> list[str | None]:
    found = []
    for body in bodies.values():
        identifier = json.loads(body)["id"]
        received = await store.incidents.received(UUID(identifier))
        found.append(identifier if received else None)
    return found


@pytest.mark.parametrize(
    ("broken", "mended", "code"),
    [
        (["CONFIG", "SET", "maxmemory", "1mb"], ["CONFIG", "SET", "maxmemory", "0"], "OOM"),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], "READONLY"),
        (
            ["CONFIG", "SET", "min-replicas-to-write", "1"],
            ["CONFIG", "SET", "min-replicas-to-write", "0"],
            "NOREPLICAS",
        ),
    ],
    ids=["OOM", "READONLY", "NOREPLICAS"],
)
async def test_while_redis_refuses_to_write_there_is_no_receipt_and_the_log_says_why(
    broken: list[str], mended: list[str], code: str, own_servers: Servers
) -> None:
    with (
        redis.Redis.from_url(own_servers.redis_url) as client,
        structlog.testing.capture_logs() as logs,
    ):
        async with running(own_servers) as system:
            ann = await system.connect("ann")
            client.execute_command(*broken)
            report = a_report(system.place())
            await ann.publish("u/ann/up/report", report)

            async def said() -> bool:
                return any(code in str(entry.get("why")) for entry in logs)

            await polled(said)
            assert ann.on("u/ann/down/receipt") == []
            client.execute_command(*mended)

            receipt = await ann.expect("u/ann/down/receipt", id=report["id"])
            assert receipt["outcome"] == "accepted"


async def test_a_truncated_aof_loses_whole_commits_from_its_end_and_nothing_before_the_cut(
    own_redis: EmbeddedRedis,
) -> None:
    reports = [report(north(3_000.0 * number)) for number in range(40)]
    async with Store(own_redis.url, routes=routes()) as store:
        await store.events.ensure_groups()
        for one in reports:
            assert await commit(store, one, opened(one)) is not None
        await own_redis.kill()
        (tail,) = (own_redis.directory / "appendonlydir").glob("*.incr.aof")
        size = tail.stat().st_size
        with tail.open("r+b") as file:
            file.truncate(size - 300)  # inside the last commit: each is some 4 KB
        await own_redis.restart()

        receipts = [await store.incidents.received(one.id) for one in reports]
        kept = [receipt is not None for receipt in receipts]
        assert kept == [True] * 39 + [False]
        with redis.Redis.from_url(own_redis.url) as client:
            assert client.get(KEYS.sequence) == b"39"
            for one in reports[:39]:
                incident = opened(one).id
                assert await store.incidents.report(incident, one.id) is not None
                assert client.hget(KEYS.incident(incident), "v") == b"1"
                assert client.llen(KEYS.history(incident)) == 1
            lost = opened(reports[39]).id
            assert list(client.scan_iter(f"*{lost}*")) == []
            assert client.xlen(KEYS.events("alerting")) == 39

        # The device that had no receipt, or had it and asks again, is served as if for the first
        # time.
        seen = await store.incidents.neighbourhood(placed(reports[39]))
        assert await commit(store, reports[39], opened(reports[39]), seen=seen) == 40


# -- the client ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server, no cluster, that gives each command the next answer; b"" closes the connection."""
    commands: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65_536):
                if b"CLUSTER" in data:
                    writer.write(b"-ERR This instance has cluster support disabled\r\n")
                    continue
                commands.append(data)
                answer = left.pop(0) if left else b"+OK\r\n"
                if not answer:
                    return
                writer.write(answer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"redis://127.0.0.1:{port}/0", commands


@pytest.mark.parametrize(
    "answer",
    [
        "MISCONF Errors writing to the AOF file: No space left on device",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
    ],
)
async def test_what_redis_refuses_for_now_is_unavailable_and_sent_once(answer: str) -> None:
    async with answering(f"-{answer}\r\n".encode()) as (url, commands):
        connection = RedisConnection(url)
        with pytest.raises(UnavailableError, match=answer.split(maxsplit=1)[0]):
            await connection.call("INCR", "n")
        assert len(commands) == 1
        assert await connection.call("PING") == b"OK"  # the connection is in step
        await connection.__aexit__()


async def test_an_error_that_no_repetition_mends_is_poison_and_not_unavailable(
    redis_url: str,
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        with redis.Redis.from_url(redis_url) as client:
            client.set(KEYS.deadlines, "no sorted set")
        with pytest.raises(CorruptError, match="WRONGTYPE"):
            await store.deadlines.due(1)


async def test_a_command_whose_answer_is_lost_is_never_sent_again(own_redis: EmbeddedRedis) -> None:
    async with answering(b"") as (url, commands):
        connection = RedisConnection(url)
        with pytest.raises(UnavailableError):
            await connection.call("INCR", "n")
        assert len(commands) == 1
        assert b"INCR" in commands[0]
        await connection.__aexit__()

    # The same against the real one, killed while a command that had its effect waits for an answer.
    async with RedisConnection(own_redis.url) as connection:
        await connection.call("SET", "n", 0)
        own = await connection.call("CLIENT", "ID")
        with redis.Redis.from_url(own_redis.url) as client:
            waiting = asyncio.create_task(connection.call("BLPOP", "nothing", 0))
            await polled(lambda: _is_blocked(client))
            counting = asyncio.create_task(connection.call("INCR", "n"))
            client.client_kill_filter(_id=own)
        for task in (waiting, counting):
            with pytest.raises(UnavailableError):
                await task
        assert int(await connection.call("GET", "n")) <= 1


async def _is_blocked(client: redis.Redis) -> bool:
    info = client.info("clients")
    assert isinstance(info, dict)
    return int(info["blocked_clients"]) == 1


async def test_cancelled_callers_leave_the_connection_in_step(redis_url: str) -> None:
    async with RedisConnection(redis_url) as connection:
        for turn in range(20):
            tasks = [
                asyncio.create_task(connection.call("ECHO", f"{turn}-{number}"))
                for number in range(200)
            ]
            await asyncio.sleep(0)  # every command is on its way
            for task in tasks[turn % 3 :: 3]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in enumerate(answers):
                if number % 3 == turn % 3:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert answer == f"{turn}-{number}".encode()


async def test_what_a_reader_could_not_acknowledge_is_its_again_at_once(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the entries of a Redis that was killed waited half a minute for a take-over."""
    acknowledge, failed = Events.acknowledge, 0

    async def unavailable_at_first(self: Events, group: str, identifiers: Sequence[str]) -> None:
        nonlocal failed
        if failed < len(routes().readers):
            failed += 1
            raise UnavailableError("Redis: the connection broke")
        await acknowledge(self, group, identifiers)

    monkeypatch.setattr(Events, "acknowledge", unavailable_at_first)
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        place = system.place()
        await system.be_at(bob, place)
        receipt = await system.report(ann, place)
        await bob.expect("u/bob/down/alert", incident=receipt["incident"])

        async def all_done() -> bool:
            lengths = [await system.store.events.length(reader) for reader in routes().readers]
            return failed == len(routes().readers) and not any(lengths)

        async with asyncio.timeout(5.0):  # a take-over comes after 30 s
            await polled(all_done)
