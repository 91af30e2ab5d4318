"""A `Connection` against a real MQTT broker."""

import asyncio
import signal
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from broker.mqtt import (
    Connection,
    ConnectionLost,
    ConnectionOptions,
    ConnectRefused,
    Endpoint,
    Message,
    PubAckReasonCode,
    Unreachable,
)
from nabij.local.embedded import MqttEngine
from tests.conftest import missing
from tests.mqtt.brokers import BrokerProcess, StartMosquitto
from tests.mqtt.exchange import EVERY_PROPERTY, WITHIN_S, drop, hold, numbered, take, until


async def test_every_property_survives_the_round_trip(mqtt_broker: BrokerProcess) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="c", subscriptions=["t/#"]) as connection:
        assert await connection.publish(EVERY_PROPERTY) is PubAckReasonCode.SUCCESS
        async with asyncio.timeout(WITHIN_S):
            async for delivery in connection:
                assert delivery.message == EVERY_PROPERTY
                assert not delivery.duplicate
                delivery.acknowledge()
                break


async def test_a_message_without_subscribers_says_so(mqtt_broker: BrokerProcess) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="c") as connection:
        outcome = await connection.publish(Message("nobody", b""))
    assert outcome is PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
    assert not outcome.is_failure


async def test_a_batch_arrives_complete_and_in_order(mqtt_broker: BrokerProcess) -> None:
    async with (
        Connection(mqtt_broker.endpoint, client_id="to", subscriptions=["t"]) as receiver,
        Connection(
            mqtt_broker.endpoint, client_id="from", options=ConnectionOptions(window=50)
        ) as sender,
    ):
        batch = asyncio.create_task(sender.publish_batch(numbered(3_000)))
        assert await take(receiver, 3_000) == [str(number).encode() for number in range(3_000)]
        assert await batch == [PubAckReasonCode.SUCCESS] * 3_000
        assert sender.stats().published == receiver.stats().received == 3_000


async def test_a_shared_subscription_splits_the_messages(mqtt_broker: BrokerProcess) -> None:
    shared = ["$share/secret/t"]
    async with (
        Connection(mqtt_broker.endpoint, client_id="one", subscriptions=shared) as one,
        Connection(mqtt_broker.endpoint, client_id="two", subscriptions=shared) as two,
        Connection(mqtt_broker.endpoint, client_id="from") as sender,
    ):
        await sender.publish_batch(numbered(100))
        parts = await asyncio.gather(take(one, 50), take(two, 50))
    assert sorted(map(int, [*parts[0], *parts[1]])) == list(range(100))


async def test_a_session_that_ends_takes_nothing_that_is_queued_with_it(
    mqtt_broker: BrokerProcess,
) -> None:
    shared, count = ["$share/secret/t"], 3_000  # more than the MQTT broker sends at a time
    async with Connection(mqtt_broker.endpoint, client_id="dead", subscriptions=shared):
        pass
    async with Connection(mqtt_broker.endpoint, client_id="from") as sender:
        await sender.publish_batch(numbered(count))
        async with Connection(
            mqtt_broker.endpoint, client_id="dead", options=ConnectionOptions(reconnects=False)
        ) as adopter:
            assert adopter.session_present
            taking = asyncio.create_task(take(adopter, count))
            await adopter.end_session(shared, Message("last", b"", correlation=b"1", retain=True))
            assert sorted(map(int, await taking)) == list(range(count))
            outcome = await sender.publish(Message("t", b"late"))
            assert outcome is PubAckReasonCode.NO_MATCHING_SUBSCRIBERS
        async with Connection(mqtt_broker.endpoint, client_id="dead") as fresh:
            assert not fresh.session_present


async def test_a_session_has_ended_when_its_connection_is_closed_also_at_a_slow_mqtt_broker(
    mqtt_broker: BrokerProcess,
) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="dead") as adopter:
        await adopter.end_session([], Message("last", b"", correlation=b"1"))
        mqtt_broker.send(signal.SIGSTOP)
        for _ in range(500):  # before the goodbye: it reads few packets of a client in turn
            adopter.publish_nowait(Message("t", b"", qos=0))
        asyncio.get_running_loop().call_later(0.2, mqtt_broker.send, signal.SIGCONT)
    async with Connection(mqtt_broker.endpoint, client_id="dead") as fresh:
        assert not fresh.session_present


async def test_a_session_ends_only_when_all_is_acknowledged(mqtt_broker: BrokerProcess) -> None:
    async with (
        Connection(mqtt_broker.endpoint, client_id="one", subscriptions=["t"]) as leaving,
        Connection(mqtt_broker.endpoint, client_id="from") as sender,
    ):
        await sender.publish(Message("t", b"slow"))
        [delivery] = await leaving.receive(1)
        last = Message("last", b"", correlation=b"1")
        ending = asyncio.create_task(leaving.end_session(["t"], last))
        await until(lambda: leaving.stats().in_flight == 0 and leaving.stats().published == 1)
        assert not ending.done()
        delivery.acknowledge()
        async with asyncio.timeout(WITHIN_S):
            await ending


async def test_a_connection_that_is_lost_while_its_session_ends_says_so(
    mqtt_broker: BrokerProcess,
) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="from") as sender:
        async with Connection(
            mqtt_broker.endpoint,
            client_id="one",
            subscriptions=["t"],
            options=ConnectionOptions(reconnects=False),
        ) as leaving:
            await sender.publish(Message("t", b"in hand"))
            await leaving.receive(1)
            ending = asyncio.create_task(leaving.end_session(["t"], Message("last", b"")))
            await until(lambda: leaving.stats().published == 1)
            drop(leaving)
            with pytest.raises(ConnectionLost):
                await ending
        async with Connection(mqtt_broker.endpoint, client_id="one") as again:
            assert again.session_present
            assert await take(again, 1) == [b"in hand"]


async def test_a_consumer_that_does_not_acknowledge_is_sent_no_more(
    mqtt_broker: BrokerProcess,
) -> None:
    async with (
        Connection(
            mqtt_broker.endpoint,
            client_id="slow",
            subscriptions=["t"],
            options=ConnectionOptions(receive_maximum=5),
        ) as slow,
        Connection(mqtt_broker.endpoint, client_id="from") as sender,
    ):
        await sender.publish_batch(numbered(20))
        held = await hold(slow, 5)
        await slow.publish(Message("elsewhere", b""))  # a round trip: nothing more has come
        assert slow.stats().received == 5
        for delivery in held:
            delivery.acknowledge()
        assert len(await take(slow, 15)) == 15


async def test_bad_credentials_are_refused_by_name_at_the_first_connect(
    mqtt_engine: MqttEngine, request: pytest.FixtureRequest
) -> None:
    if mqtt_engine is MqttEngine.MOSQUITTO:
        broker: BrokerProcess = request.getfixturevalue("start_mosquitto")(anonymous=False)
    else:
        broker = request.getfixturevalue("own_edge")
    for password in (None, "wrong"):
        stranger = replace(broker.endpoint, username=password and "u", password=password)
        with pytest.raises(ConnectRefused, match=r"NOT_AUTHORIZED|BAD_USER_NAME_OR_PASSWORD"):
            async with Connection(stranger, client_id="c"):
                pass


async def test_nobody_there_is_unreachable_after_the_timeout() -> None:
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(Unreachable, match=r"no MQTT broker at 127\.0\.0\.1"):
            async with Connection(
                endpoint, client_id="c", options=ConnectionOptions(connect_timeout_s=0.2)
            ):
                pass


async def test_a_silent_server_is_unreachable_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(host="127.0.0.1", port=silent.getsockname()[1])
        with pytest.raises(Unreachable):
            async with Connection(
                endpoint, client_id="c", options=ConnectionOptions(connect_timeout_s=0.2)
            ):
                pass


async def test_leaving_sends_what_was_still_waiting(mqtt_broker: BrokerProcess) -> None:
    async with Connection(mqtt_broker.endpoint, client_id="to", subscriptions=["t"]) as receiver:
        async with Connection(
            mqtt_broker.endpoint, client_id="from", options=ConnectionOptions(window=1)
        ) as sender:
            futures = [sender.publish_nowait(message) for message in numbered(50)]
        assert all(future.result() is PubAckReasonCode.SUCCESS for future in futures)
        assert len(await take(receiver, 50)) == 50


async def test_a_batch_given_up_sends_no_more_of_itself(mqtt_broker: BrokerProcess) -> None:
    async with Connection(
        mqtt_broker.endpoint, client_id="c", options=ConnectionOptions(window=10)
    ) as connection:
        batch = asyncio.create_task(connection.publish_batch(numbered(100_000)))
        await asyncio.sleep(0)
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        assert not (await connection.publish(Message("t", b"after"))).is_failure
        assert connection.stats().waiting == 0


async def test_qos_0_beyond_the_inbox_is_dropped_and_counted(mqtt_broker: BrokerProcess) -> None:
    async with (
        Connection(
            mqtt_broker.endpoint,
            client_id="to",
            subscriptions=["t"],
            options=ConnectionOptions(max_queue=10),
        ) as receiver,
        Connection(mqtt_broker.endpoint, client_id="from") as sender,
    ):
        await sender.publish_batch([Message("t", b"x", qos=0) for _ in range(30)])
        await sender.publish(Message("t", b"last"))
        await until(lambda: receiver.stats().received == 31)
        assert receiver.stats().dropped_qos0 == 20
        assert (await take(receiver, 11))[-1] == b"last"


async def test_back_pressure_of_the_network_bounds_what_is_buffered(
    mqtt_broker: BrokerProcess,
) -> None:
    async with Connection(
        mqtt_broker.endpoint, client_id="c", options=ConnectionOptions(drain_timeout_s=0.05)
    ) as connection:
        mqtt_broker.send(signal.SIGSTOP)
        try:
            messages = [Message("t", bytes(100_000), qos=0) for _ in range(500)]
            batch = asyncio.create_task(connection.publish_batch(messages))
            await asyncio.sleep(0)
            assert connection._wire is not None
            assert connection._wire._transport is not None
            assert connection._wire._transport.get_write_buffer_size() < 10_000_000
            assert not batch.done()
        finally:
            mqtt_broker.send(signal.SIGCONT)
        async with asyncio.timeout(WITHIN_S):
            assert await batch == [PubAckReasonCode.SUCCESS] * 500


def make_certificate(openssl: str, directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key, certificate = directory / "key.pem", directory / "cert.pem"
    options = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    alternative = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *options, *alternative, *files], check=True, capture_output=True)
    return key, certificate


def make_passwords(mosquitto_passwd: str, directory: Path) -> Path:
    path = directory / "passwords"
    command = [mosquitto_passwd, "-b", "-c", str(path), "u", "p"]
    subprocess.run(command, check=True, capture_output=True)
    return path


async def test_tls_and_a_password_work_together(
    start_mosquitto: StartMosquitto, tmp_path: Path
) -> None:
    openssl, passwd = which("openssl"), which("mosquitto_passwd")
    if openssl is None or passwd is None:
        missing("openssl and mosquitto_passwd on the PATH")
    key, certificate = make_certificate(openssl, tmp_path)
    broker = start_mosquitto(
        f"certfile {certificate}",
        f"keyfile {key}",
        f"password_file {make_passwords(passwd, tmp_path)}",
        anonymous=False,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    endpoint = Endpoint(host="127.0.0.1", port=broker.port, username="u", password="p", tls=context)
    async with Connection(endpoint, client_id="c", subscriptions=["t"]) as connection:
        await connection.publish_batch(numbered(1_000))
        assert len(await take(connection, 1_000)) == 1_000
    stranger = Endpoint(host="127.0.0.1", port=broker.port, tls=ssl.create_default_context())
    with pytest.raises(Unreachable, match="certificate"):
        async with Connection(stranger, client_id="c"):
            pass
