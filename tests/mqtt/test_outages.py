"""A `Connection` whose MQTT broker is killed, stopped, restarted, or taken away."""

import asyncio
import signal

import mqtt5
import pytest
import structlog

from broker.mqtt import (
    Connection,
    ConnectionClosed,
    ConnectionHooks,
    ConnectionOptions,
    Endpoint,
    Message,
    Overloaded,
    PubAckReasonCode,
    SessionTakenOver,
)
from nabij.local.embedded import MqttEngine
from tests.mqtt.brokers import BrokerProcess, StartMosquitto
from tests.mqtt.exchange import WITHIN_S, disconnected, drop, hold, numbered, take, until


async def test_what_was_not_acknowledged_comes_again_after_a_drop(
    mqtt_broker: BrokerProcess,
) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="c", subscriptions=["t"]) as connection:
        await connection.publish(Message("t", b"keep me"))
        async with asyncio.timeout(WITHIN_S):
            [first] = await connection.receive(10)
            drop(connection)
            [second] = await connection.receive(10)
            await connection.wait_connected()  # queued messages come before the SUBACK
        first.acknowledge()  # belongs to a connection that has gone: must not count
        assert second.message == first.message
        assert second.duplicate
        second.acknowledge()
        await connection.publish(Message("t", b"next"))
        assert await take(connection, 1) == [b"next"]
        assert connection.stats().reconnects == 1


async def collect(receiver: Connection, seen: set[int]) -> None:
    async for delivery in receiver:
        seen.add(int(delivery.message.payload))
        delivery.acknowledge()


async def test_a_batch_survives_kill_9_of_the_mqtt_broker(
    mqtt_broker: BrokerProcess, mqtt_engine: MqttEngine
) -> None:
    """Mosquitto's PUBACK means «in memory»: what it had acknowledged and not yet passed on dies with
    it, at most a Receive Maximum. Nothing else may be missing, and of our own broker nothing."""
    count, window, seen = 20_000, 20, set[int]()
    async with (
        Connection(mqtt_broker.endpoint, client_id="to", subscriptions=["t"]) as receiver,
        Connection(
            mqtt_broker.endpoint, client_id="from", options=ConnectionOptions(window=window)
        ) as sender,
        asyncio.timeout(60),
    ):
        collector = asyncio.create_task(collect(receiver, seen))
        batch = asyncio.create_task(sender.publish_batch(numbered(count)))
        await until(lambda: len(seen) >= 2_000)
        mqtt_broker.kill()
        await disconnected(sender)
        in_its_memory = max(seen) + 1_000 + window
        single = sender.publish_nowait(Message("t", b"20000"))
        await asyncio.to_thread(mqtt_broker.start)
        await receiver.wait_connected()
        outcomes = [*await batch, await single]
        assert not any(outcome.is_failure for outcome in outcomes)
        arrived = {n for n, outcome in enumerate(outcomes) if outcome is PubAckReasonCode.SUCCESS}
        if mqtt_engine is MqttEngine.MOSQUITTO:
            await until(lambda: max(arrived - seen, default=0) < in_its_memory)
        else:
            await until(lambda: arrived <= seen)
        assert sender.stats().reconnects == 1
        collector.cancel()


async def test_the_last_will_fires_when_a_process_vanishes(mqtt_broker: BrokerProcess) -> None:
    will = Message("status", b"gone", retain=True)
    async with Connection(mqtt_broker.endpoint, client_id="w", subscriptions=["status"]) as witness:
        doomed = Connection(mqtt_broker.endpoint, client_id="d", will=will)
        async with doomed:
            drop(doomed)
            assert await take(witness, 1) == [b"gone"]


async def test_a_graceful_end_leaves_no_last_will(mqtt_broker: BrokerProcess) -> None:
    will = Message("status", b"gone")
    async with Connection(mqtt_broker.endpoint, client_id="w", subscriptions=["status"]) as witness:
        async with Connection(mqtt_broker.endpoint, client_id="d", will=will) as polite:
            await polite.publish(Message("status", b"bye"))
        await witness.publish(Message("status", b"end"))
        assert await take(witness, 2) == [b"bye", b"end"]


async def test_a_stopped_mqtt_broker_is_noticed_by_keep_alive(mqtt_broker: BrokerProcess) -> None:
    async with Connection(
        mqtt_broker.endpoint, client_id="c", options=ConnectionOptions(keep_alive_s=1)
    ) as connection:
        mqtt_broker.send(signal.SIGSTOP)
        try:
            await disconnected(connection)
            waiting = connection.publish_nowait(Message("t", b"patience"))
        finally:
            mqtt_broker.send(signal.SIGCONT)
        async with asyncio.timeout(WITHIN_S):
            await connection.wait_connected()
            assert not (await waiting).is_failure


async def test_a_session_taken_over_ends_the_connection_for_good() -> None:
    """Mosquitto 2.0.11 only closes the socket; this server says why, as newer ones do."""
    taken_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(mqtt5.ConnAckPacket().write())
        await taken_over.wait()
        reason = mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
        writer.write(mqtt5.DisconnectPacket(reason_code=reason).write())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with server, Connection(endpoint, client_id="same") as connection:
        pending = connection.publish_nowait(Message("t", b"x"))
        waiting = asyncio.create_task(connection.receive(1))
        taken_over.set()
        async with asyncio.timeout(WITHIN_S):
            for future in (waiting, pending):
                with pytest.raises(SessionTakenOver):
                    await future
        with pytest.raises(SessionTakenOver):
            connection.publish_nowait(Message("t", b"x"))


async def test_who_waits_until_it_may_takes_its_session_back_from_another(
    mqtt_broker: BrokerProcess,
) -> None:
    may, seen = asyncio.Event(), set[int]()
    async with Connection(
        mqtt_broker.endpoint,
        client_id="same",
        subscriptions=["t"],
        hooks=ConnectionHooks(before_reconnect=lambda: until_set(may)),
    ) as first:
        async with Connection(
            mqtt_broker.endpoint, client_id="same", options=ConnectionOptions(reconnects=False)
        ) as second:
            assert second.session_present
            await disconnected(first)
            await second.publish_batch(numbered(3))
            assert len(await hold(second, 3)) == 3
            may.set()
            await disconnected(second)
        async with asyncio.timeout(WITHIN_S):
            collector = asyncio.create_task(collect(first, seen))
            await until(lambda: seen == {0, 1, 2})
        collector.cancel()


async def until_set(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_client_id_in_use_twice_is_fought_over_ever_more_slowly(
    start_mosquitto: StartMosquitto,
) -> None:
    """Mosquitto 2.0.11 does not say why it closes the connection."""
    endpoint = start_mosquitto().endpoint
    async with (
        Connection(endpoint, client_id="same") as one,
        Connection(endpoint, client_id="same") as two,
    ):
        async with asyncio.timeout(WITHIN_S):
            while one.stats().reconnects + two.stats().reconnects < 4:
                await one.wait_connected()
                await disconnected(one)
        with structlog.testing.capture_logs() as logs:
            one._log_loss(ConnectionClosed("again"), early_ends=5)
        assert logs[0]["log_level"] == "error"
        assert "client id in use twice" in logs[0]["event"]


async def test_what_waits_too_long_meets_a_bound(mqtt_broker: BrokerProcess) -> None:
    async with Connection(
        mqtt_broker.endpoint,
        client_id="c",
        options=ConnectionOptions(max_queue=3, drain_timeout_s=0.05),
    ) as connection:
        mqtt_broker.kill()
        await disconnected(connection)
        waiting = [connection.publish_nowait(Message("t", b"x")) for _ in range(3)]
        with pytest.raises(Overloaded):
            connection.publish_nowait(Message("t", b"x"))
    for future in waiting:
        with pytest.raises(ConnectionClosed):
            await future


async def test_the_owner_is_told_of_every_connect(mqtt_broker: BrokerProcess) -> None:
    connects = asyncio.Semaphore(0)
    async with Connection(
        mqtt_broker.endpoint, client_id="c", hooks=ConnectionHooks(on_connect=connects.release)
    ) as connection:
        async with asyncio.timeout(WITHIN_S):
            await connects.acquire()
            mqtt_broker.kill()
            await disconnected(connection)
            await asyncio.to_thread(mqtt_broker.start)
            await connects.acquire()
        assert connection.connected


async def test_a_session_with_more_in_flight_than_our_receive_maximum_is_resumed(
    mqtt_broker: BrokerProcess,
) -> None:
    async with (
        Connection(
            mqtt_broker.endpoint,
            client_id="to",
            subscriptions=["t"],
            options=ConnectionOptions(receive_maximum=100),
        ) as before,
        Connection(mqtt_broker.endpoint, client_id="from") as sender,
    ):
        await sender.publish_batch(numbered(60))
        await hold(before, 60)
    async with Connection(
        mqtt_broker.endpoint,
        client_id="to",
        subscriptions=["t"],
        options=ConnectionOptions(receive_maximum=5),
    ) as after:
        assert sorted(map(int, await take(after, 60))) == list(range(60))
