"""Kill -9 of the real process: what it acknowledged is there afterwards, in seconds."""

import asyncio
import functools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import mqtt5
import pytest

from broker.edge.recovery import BrokerJournal
from tests.edge.edge_program import EdgeProgram, write_journal
from tests.edge.sockets import SocketClient, hosted

KILLS, PUBLISHERS = 4, 3
RECOVERY_S = 3.0


@pytest.fixture
def program(tmp_path: Path) -> Iterator[EdgeProgram]:
    program = EdgeProgram(tmp_path)
    yield program
    if program._process is not None and program._process.poll() is None:
        program.kill()


async def connected(program: EdgeProgram, name: str, *, expiry_s: int = 600) -> SocketClient:
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    client = SocketClient(reader, writer)
    options = {"session_expiry_interval": expiry_s, "clean_start": False, "password": b""}
    await client.connect(name, "u", **options)
    return client


class Publisher:
    """Publishes as fast as it may until it is told to stop; `acknowledged` is what it was promised."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: set[bytes] = set()
        self.is_over = False
        self._number = 0
        self._sent: dict[int, bytes] = {}

    async def run(self, program: EdgeProgram) -> None:
        while not self.is_over:
            try:
                client = await connected(program, self.name, expiry_s=0)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._send(client))
                    both.create_task(self._read(client))
            except* (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)

    async def _send(self, client: SocketClient) -> None:
        while not self.is_over and not client.writer.is_closing():
            for _ in range(10):
                self._number += 1
                payload = f"{self.name}-{self._number}".encode()
                client.publish(f"a/{self.name}", payload, 1, self._number % 65535 + 1)
                self._sent[self._number % 65535 + 1] = payload
            await client.writer.drain()
            await asyncio.sleep(0.01)
        client.writer.close()

    async def _read(self, client: SocketClient) -> None:
        while not self.is_over:
            packet = await client.packet()
            assert packet.reason_code.value == 0
            self.acknowledged.add(self._sent[packet.packet_id])


async def test_whatever_was_acknowledged_comes_after_kills_again_and_again(
    program: EdgeProgram,
) -> None:
    program.start()
    reader = await connected(program, "reader")
    await reader.subscribe("a/#")
    reader.writer.close()
    publishers = [Publisher(f"p{number}") for number in range(PUBLISHERS)]
    random, recoveries = Random(1), []
    async with asyncio.TaskGroup() as group:
        for one in publishers:
            group.create_task(one.run(program))
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.2, 0.5))
            program.kill()
            recoveries.append(await asyncio.to_thread(program.start))
        await asyncio.sleep(0.2)
        for one in publishers:
            one.is_over = True
    promised = set[bytes]().union(*(one.acknowledged for one in publishers))
    assert len(promised) > 100
    reader = await connected(program, "reader")
    got: list[bytes] = []
    while not promised <= set(got):
        message = await reader.next_of(mqtt5.PublishPacket)
        got.append(message.payload)
        reader.send(mqtt5.PubAckPacket(message.packet_id))
    for name in ("p0", "p1", "p2"):
        numbers = [int(one.split(b"-")[1]) for one in got if one.startswith(name.encode())]
        assert numbers == sorted(set(numbers))
    reader.writer.close()
    assert max(recoveries) <= RECOVERY_S


async def test_it_recovers_ten_thousand_sessions_and_messages_in_seconds(
    program: EdgeProgram,
) -> None:
    write_journal(program.journal, sessions=10_000, messages=10_000, payload=b"x" * 300)
    assert program.start() <= RECOVERY_S
    program.kill()
    assert program.start() <= RECOVERY_S
    last = await connected(program, "c10000")
    assert (await last.next_of(mqtt5.PublishPacket)).payload == b"x" * 300
    last.writer.close()


def test_a_second_process_on_its_directory_is_refused_in_a_line(program: EdgeProgram) -> None:
    program.start()
    other = EdgeProgram(program.directory)
    with pytest.raises(AssertionError) as refused:
        other.start()
    assert "another process uses this journal" in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert program.kill(signal.SIGTERM) == (0, "")


async def test_a_disk_that_is_full_ends_it_in_a_line_and_costs_no_promise(
    program: EdgeProgram,
) -> None:
    limit = "import os,resource,sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
    program.start(sys.executable, "-c", f"{limit} os.execv(sys.argv[1], sys.argv[1:])")
    reader = await connected(program, "reader")
    await reader.subscribe("a/#")
    reader.writer.close()
    publisher = await connected(program, "publisher")
    promised = 0
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):  # noqa: PT012
        while True:
            publisher.publish("a/b", b"x" * 1000, 1)
            assert (await publisher.packet()).reason_code.value == 0
            promised += 1
    publisher.writer.close()
    code, error = program.ended()
    assert (code, error.count("\n")) == (1, 1)
    assert "File too large" in error
    program.start()
    reader = await connected(program, "reader")
    for _ in range(promised):
        message = await reader.next_of(mqtt5.PublishPacket)
        reader.send(mqtt5.PubAckPacket(message.packet_id))
    reader.writer.close()


def files(directory: Path) -> set[str]:
    return {one.name for one in directory.glob("journal-*")}


async def test_a_journal_is_rewritten_while_messages_come_and_are_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(BrokerJournal, min_bytes=5_000, at_once=20)
    monkeypatch.setattr("broker.edge.server.BrokerJournal", small)
    numbers: set[str] = set()
    async with hosted(directory=tmp_path) as host:
        gone = await host.client("gone", topic="a", session_expiry_interval=600)
        gone.writer.close()
        reader = await host.client("reader", topic="a", session_expiry_interval=600)
        writer = await host.client("writer", "bob")
        for number in range(1, 501):
            writer.publish("a", b"%d" % number, 1, number)
            if number % 10 == 0:
                for _ in range(10):
                    message = await reader.next_of(mqtt5.PublishPacket)
                    reader.send(mqtt5.PubAckPacket(message.packet_id))
                    await writer.packet()
                numbers |= files(tmp_path)
        await reader.ping()  # all that it acknowledged has come
    assert len(numbers) > 2
    async with hosted(directory=tmp_path) as host:
        back = await host.raw()
        await back.connect("gone", session_expiry_interval=600, clean_start=False)
        got = []
        for _ in range(500):
            message = await back.next_of(mqtt5.PublishPacket)
            got.append(int(message.payload))
            back.send(mqtt5.PubAckPacket(message.packet_id))
        assert got == [*range(1, 501)]
        reader = await host.raw()
        await reader.connect("reader", session_expiry_interval=600, clean_start=False)
        reader.send(mqtt5.PingReqPacket())
        assert isinstance(await reader.packet(), mqtt5.PingRespPacket)  # it has had everything
