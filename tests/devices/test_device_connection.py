"""A device's connection that is lost while messages are on their way costs them no time."""

import asyncio
import os
import signal

import pytest

from devices.device_connection import ANSWER_BASE_S, Broker, DeviceConnection, Identity
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
