"""A device's connection that is lost while messages are on their way costs them no time."""

import asyncio
import contextlib
import os
import signal

import aiomqtt
import pytest

from devices import device_connection
from devices.device_connection import (
    ANSWER_BASE_S,
    RETRY_MOST_S,
    Broker,
    BrokerUnreachable,
    DeviceConnection,
    Identity,
    WhenUnreachable,
)
from nabij.local.embedded import Account, EmbeddedMqtt
from schemas import topics

_MANY = 32  # more than aiomqtt sends at once


async def test_what_is_sent_on_a_lost_connection_returns_at_once(
    own_mqtt: EmbeddedMqtt, accounts: dict[str, Account]
) -> None:
    """Else a desk that confirms hundreds of messages is deaf for minutes after a loss."""
    ann = accounts["ann"]
    topic = topics.DELIVERED.topic(user="ann")
    broker = Broker("127.0.0.1", own_mqtt.port)
    identity = Identity(ann.username, ann.password, "ann-phone", 600)
    async with DeviceConnection(
        broker, identity, filters=[topics.RECEIPT.filter(user="ann")], on_message=print
    ) as connection:
        link = await connection.link()
        os.kill(own_mqtt.pid, signal.SIGSTOP)  # it answers nothing any more
        sending = [asyncio.create_task(link.publish(topic, b"{}", qos=1)) for _ in range(_MANY)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in sending)
        os.kill(own_mqtt.pid, signal.SIGKILL)
        await link.lost

        async with asyncio.timeout(ANSWER_BASE_S / 2):
            await asyncio.gather(*sending)
            await link.publish(topic, b"{}", qos=1)


@pytest.mark.parametrize("answers", [0, 1], ids=["before CONNACK", "before SUBACK"])
async def test_a_connection_that_is_lost_before_an_answer_is_made_again_at_once(
    own_mqtt: EmbeddedMqtt, accounts: dict[str, Account], answers: int
) -> None:
    """Else a device waits as long as an answer may take while the MQTT broker is back already."""
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        there, back = await asyncio.open_connection(own_mqtt.host, own_mqtt.port)
        for _ in range(answers if tries <= 2 else 1_000):
            back.write(await reader.read(65_536))
            writer.write(await there.read(65_536))
        await reader.read(65_536)
        writer.close()
        back.close()

    ann = accounts["ann"]
    identity = Identity(ann.username, ann.password, "ann-phone", 0)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1])
        async with (
            asyncio.timeout(ANSWER_BASE_S / 2),
            DeviceConnection(
                broker, identity, filters=[topics.RECEIPT.filter(user="ann")], on_message=print
            ),
        ):
            assert tries == 3
            server.close()


CONNACK = b"\x20\x03\x00\x00\x00"
ALERT = b"\x32\x0c\x00\x01x\x00\x07\x00alert!"


async def test_a_connection_that_was_given_up_takes_no_message() -> None:
    """Its session is kept: what it acknowledged would not be sent to the next one."""
    heard: list[object] = []
    is_over = asyncio.Event()
    answered = asyncio.get_running_loop().create_future()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        await is_over.wait()
        with contextlib.suppress(ConnectionError):
            writer.write(CONNACK + ALERT)
            answered.set_result(await reader.read(65_536))
        writer.close()

    async with await asyncio.start_server(late, "127.0.0.1", 0) as server:
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1])
        identity = Identity("ann", "secret", "ann-phone")
        with pytest.raises(BrokerUnreachable):
            async with DeviceConnection(
                broker, identity, filters=["x"], on_message=heard.append, connect_timeout_s=0.2
            ):
                pass
        is_over.set()
        assert await answered == b""  # it is closed
    assert heard == []
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not any("misc_loop" in str(task) for task in others)


async def test_a_device_tries_for_ever_with_a_bounded_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An MQTT broker may be away for a day: 2 to the power of 1,024 is no float."""
    enough, pauses = asyncio.Event(), list[float]()

    async def fails(_: DeviceConnection, answer_s: float) -> None:
        assert answer_s == ANSWER_BASE_S  # each was lost at once: that says nothing of answers
        raise aiomqtt.MqttError("away")

    def longest(_: float, most_s: float) -> float:
        pauses.append(most_s)
        if len(pauses) == 3_000:
            enough.set()
        return 0.0

    monkeypatch.setattr(DeviceConnection, "_connect_once", fails)
    monkeypatch.setattr(device_connection.random, "uniform", longest)
    identity = Identity("ann", "secret", "ann-phone")
    async with DeviceConnection(
        Broker("127.0.0.1", 1),
        identity,
        filters=[],
        on_message=print,
        connect_timeout_s=0.0,
        when_unreachable=WhenUnreachable.KEEP_TRYING,
    ):
        async with asyncio.timeout(10.0):
            await enough.wait()
    assert pauses[0] < pauses[1] < pauses[-1] == RETRY_MOST_S
