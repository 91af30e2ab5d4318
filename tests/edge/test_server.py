"""On sockets: who sends or reads too much, too slowly or never, costs nobody else anything."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import mqtt5
import pytest

from broker.edge.accounts import Grant, Quotas
from broker.edge.limits import Limits
from broker.edge.server import EdgeServer, Listener
from tests.edge.sockets import (
    DEADLINE_S,
    Host,
    SocketClient,
    certificates,
    eventually,
    hosted,
    open_files,
)

KIB = 1024
LOW = Quotas(publishes_per_s=2_000, queued_bytes=64 * KIB, turn_packets=8)


def resident_mib() -> float:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


async def rest_is_well(host: Host, *, within_s: float = 5.0) -> None:
    """Another account publishes and receives."""
    reader = await host.client("well-r", "well", topic="well")
    writer = await host.client("well-w", "well")
    began = time.perf_counter()
    for number in range(1, 51):
        writer.publish("well", b"x", qos=1, packet_id=number)
        assert (await writer.packet()).reason_code.value == 0
        assert (await reader.packet()).payload == b"x"
    assert time.perf_counter() - began < within_s
    for one in (reader, writer):
        one.writer.close()


async def fill(client: SocketClient, packet: bytes, most: int) -> int:
    """Write a packet again and again until nothing more is taken; return how many bytes were."""
    transport, sent = client.writer.transport, 0
    transport.set_write_buffer_limits(high=0)
    while sent < most:
        block = packet * (1 + 65_536 // len(packet))
        client.writer.write(block)
        sent += len(block)
        try:
            async with asyncio.timeout(1.0):
                await client.writer.drain()
        except TimeoutError:
            return sent
    return sent


async def test_a_message_goes_from_one_socket_to_another() -> None:
    async with hosted() as host:
        await rest_is_well(host)


async def test_who_publishes_too_fast_is_slowed_down_and_loses_nothing() -> None:
    async with hosted(quotas={"fast": LOW}) as host:
        reader = await host.client("r", topic="fast")
        writer = await host.client("w", "fast")
        began = time.monotonic()
        for number in range(1, 5_001):
            writer.publish("fast", number.to_bytes(2, "big"), qos=0)
        await rest_is_well(host)
        for number in range(1, 5_001):
            assert (await reader.packet()).payload == number.to_bytes(2, "big")
        assert time.monotonic() - began > 0.4  # 2,000 at once, as many saved, and a rest


async def test_who_floods_is_read_from_no_more_and_fills_no_memory() -> None:
    async with hosted(quotas={"flood": Quotas(publishes_per_s=10)}) as host:
        flooder = await host.client("f", "flood")
        packet = mqtt5.PublishPacket("flood", b"x" * 10_000).write()
        before = resident_mib()
        assert await fill(flooder, packet, 64 << 20) < 32 << 20
        (link,) = [one for one in host.server.broker.connections if one.unread]
        assert link.unread < 1 << 20
        assert resident_mib() - before < 48  # most of it the client's own
        await rest_is_well(host)


async def test_who_asks_and_reads_no_answer_is_asked_nothing_more() -> None:
    async with hosted(quotas={"deaf": Quotas(publishes_per_s=1e9)}) as host:
        deaf = await host.client("d", "deaf")
        packet = mqtt5.PublishPacket("x" * 10, b"", qos=mqtt5.QoS(1), packet_id=1).write()
        deaf.writer.transport.pause_reading()
        sent = await fill(deaf, packet, 256 << 20)
        assert sent < 128 << 20
        await rest_is_well(host)
        deaf.writer.transport.resume_reading()
        for _ in range(1_000):
            assert (await deaf.packet()).reason_code.value == 16


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_reader_that_stops_reading_costs_the_others_nothing(qos: int) -> None:
    quotas = {"slow": Quotas(queued_bytes=256 * KIB)}
    async with hosted(quotas=quotas) as host:
        slow = await host.client("slow", "slow", topic="news")
        slow.writer.transport.pause_reading()
        reader, writer = await host.client("r", topic="news"), await host.client("w")
        before = resident_mib()
        for number in range(1, 1_501):
            writer.publish("news", number.to_bytes(2, "big") * 10_000, qos=qos, packet_id=number)
            if qos:
                await writer.packet()
            message = await reader.packet()
            assert message.payload[:2] == number.to_bytes(2, "big")
            if qos:
                reader.send(mqtt5.PubAckPacket(message.packet_id))
        assert resident_mib() - before < 12  # of 30 MB; the kernel keeps some of its own
        counters = host.server.broker.router.counters
        assert counters.dropped > 500
        slow.writer.transport.resume_reading()
        first = [(await slow.packet()).payload[:2] for _ in range(5)]
        assert first == [number.to_bytes(2, "big") for number in range(1, 6)]


async def test_a_reader_that_was_full_gets_the_rest_when_it_reads_again() -> None:
    async with hosted(limits=Limits(unwritten_bytes=64 * KIB)) as host:
        slow = await host.client("slow", "slow", topic="news", receive_max=65_535)
        slow.writer.transport.pause_reading()
        writer = await host.client("w")
        for number in range(1, 1_001):
            writer.publish("news", number.to_bytes(2, "big") * 10_000, qos=1, packet_id=number)
            await writer.packet()
        slow.writer.transport.resume_reading()
        for number in range(1, 1_001):
            message = await slow.packet()
            assert message.payload[:2] == number.to_bytes(2, "big")
            slow.send(mqtt5.PubAckPacket(message.packet_id))
        await slow.ping()
        assert host.server.broker.accounts["slow"].queued_bytes == 0


async def test_thousands_who_say_nothing_keep_nobody_out_and_are_closed() -> None:
    limits = Limits(connect_timeout_s=0.5, strangers=300)
    async with hosted(limits=limits) as host:
        before = open_files()
        silent = [await host.raw() for _ in range(600)]
        await rest_is_well(host)
        await asyncio.gather(*(one.until_closed() for one in silent))
        host.close()
        await eventually(lambda: open_files() <= before)
        assert not host.server._links


async def test_packets_may_come_byte_by_byte() -> None:
    async with hosted() as host:
        client = await host.raw()
        packets = (
            mqtt5.ConnectPacket("c", username="ann"),
            mqtt5.PublishPacket("a", b"x" * 300, qos=mqtt5.QoS(1), packet_id=7),
            mqtt5.PingReqPacket(),
        )
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"".join(packet.write() for packet in packets):
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert isinstance(await client.packet(), mqtt5.ConnAckPacket)
        assert (await client.packet()).packet_id == 7
        assert isinstance(await client.packet(), mqtt5.PingRespPacket)


async def test_who_sends_too_large_a_packet_is_told_why() -> None:
    async with hosted(limits=Limits(max_packet_bytes=10_000)) as host:
        client = await host.client("c")
        client.publish("a", b"x" * 500_000, qos=1)
        (goodbye,) = await client.until_closed()
        assert goodbye.reason_code.value == 149
        await rest_is_well(host)


async def test_accounts_take_turns_whatever_the_number_of_their_connections() -> None:
    quotas = {name: Quotas(publishes_per_s=1e9, turn_packets=4) for name in ("many", "one")}
    async with hosted(quotas=quotas) as host:
        reader = await host.client("r", topic="#")
        crowd = [await host.client(f"m{number}", "many") for number in range(20)]
        one = await host.client("o", "one")
        for client in crowd:
            client.send(*[mqtt5.PublishPacket("many", b"")] * 200)
        one.send(*[mqtt5.PublishPacket("one", b"")] * 200)
        topics = [(await reader.packet()).topic for _ in range(4_200)]
        last = max(at for at, topic in enumerate(topics) if topic == "one")
        assert last < 2_000  # half of what was read until then, and what had come before it


async def test_with_a_certificate_it_speaks_tls_and_nothing_else(
    program: Callable[..., str], tmp_path: Path
) -> None:
    async with hosted(tls=certificates(program("openssl"), tmp_path)) as host:
        await rest_is_well(host)
        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.ports[0])
        writer.write(mqtt5.ConnectPacket("c", username="ann").write())
        assert not (await reader.read(100)).startswith(b"\x20")
        writer.close()


async def test_a_stranger_who_does_not_begin_tls_is_closed_as_one_who_does_not_connect(
    program: Callable[..., str], tmp_path: Path
) -> None:
    tls = certificates(program("openssl"), tmp_path)
    async with hosted(tls=tls, limits=Limits(connect_timeout_s=0.1)) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.server.ports[0])
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read(100) == b""
        writer.close()


async def test_it_listens_at_several_places_with_tls_or_without(
    program: Callable[..., str], tmp_path: Path
) -> None:
    server, client = certificates(program("openssl"), tmp_path)
    listeners = [Listener(host="127.0.0.1", port=0, tls=tls) for tls in (None, server)]
    grant = Grant(name="ann", reads=("#",), writes=("#",))
    async with EdgeServer(
        listeners=listeners, authenticate=lambda _, answer: answer(grant)
    ) as edge:
        for port, tls in zip(edge.ports, (None, client), strict=True):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            writer.write(mqtt5.ConnectPacket("c", username="ann").write())
            async with asyncio.timeout(DEADLINE_S):
                assert (await reader.readexactly(1)) == b"\x20"
            writer.close()


async def test_a_port_in_use_is_said_and_the_journal_left_to_others(tmp_path: Path) -> None:
    async with hosted() as host:
        other = EdgeServer(
            listeners=[
                Listener(host="127.0.0.1", port=0),
                Listener(host="127.0.0.1", port=host.server.ports[0]),
            ],
            authenticate=lambda _, answer: answer(None),
            directory=tmp_path,
        )
        with pytest.raises(OSError, match="in use"):
            async with other:
                pass
    async with hosted(directory=tmp_path):
        pass


async def test_when_it_stops_no_task_thread_or_descriptor_is_left(tmp_path: Path) -> None:
    async with hosted(directory=tmp_path / "journal") as host:
        await rest_is_well(host)  # the loop keeps some descriptors of its own
    tasks, files = len(asyncio.all_tasks()), open_files()
    for _ in range(3):
        async with hosted(directory=tmp_path / "journal") as host:
            gone = await host.client("gone", topic="a", session_expiry_interval=600)
            gone.writer.close()
            writers = [await host.client(f"w{number}", "bob") for number in range(10)]
            for number, writer in enumerate(writers):
                writer.send(
                    *(
                        mqtt5.PublishPacket("a", b"x", qos=mqtt5.QoS(1), packet_id=one)
                        for one in range(1, 200)
                    )
                )
                if number == 5:
                    await writer.packet()  # in the middle of it
            strangers = [await host.raw() for _ in range(20)]
            strangers[0].writer.write(b"\x10\xff")
    await eventually(lambda: open_files() <= files)
    assert len(asyncio.all_tasks()) == tasks


async def test_what_was_acknowledged_is_there_after_a_stop_in_the_middle(tmp_path: Path) -> None:
    async with hosted(directory=tmp_path) as host:
        gone = await host.client("gone", topic="a", session_expiry_interval=600)
        gone.writer.close()
        writer = await host.client("w", "bob")
        for number in range(1, 501):
            writer.publish("a", number.to_bytes(2, "big"), qos=1, packet_id=number)
        acknowledged = {(await writer.packet()).packet_id for _ in range(100)}
    async with hosted(directory=tmp_path) as host:
        back = await host.raw()
        answer = await back.connect("gone", session_expiry_interval=600, clean_start=False)
        assert answer.session_present
        there: set[int] = set()
        while not acknowledged <= there:
            message = await back.packet()
            there.add(int.from_bytes(message.payload, "big"))
            back.send(mqtt5.PubAckPacket(message.packet_id))
