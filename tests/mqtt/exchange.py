"""What tests do with a connection: take, wait, drop."""

import asyncio
from collections.abc import Callable

from broker.mqtt import Connection, Delivery, Message

WITHIN_S = 15.0
EVERY_PROPERTY = Message(
    "t/1",
    b"\x00\xff",
    expiry_s=60,
    response_topic="answers/1",
    correlation=b"\x01\x02",
    user_properties=(("traceparent", "00-ab"), ("traceparent", "twice")),
)


async def take(connection: Connection, count: int, *, acknowledging: bool = True) -> list[bytes]:
    """The payloads of the next `count` deliveries."""
    payloads: list[bytes] = []
    async with asyncio.timeout(WITHIN_S):
        while len(payloads) < count:
            for delivery in await connection.receive(count - len(payloads)):
                payloads.append(delivery.message.payload)
                if acknowledging:
                    delivery.acknowledge()
    return payloads


async def hold(connection: Connection, count: int) -> list[Delivery]:
    """The next `count` deliveries, not acknowledged."""
    deliveries: list[Delivery] = []
    async with asyncio.timeout(WITHIN_S):
        while len(deliveries) < count:
            deliveries += await connection.receive(count - len(deliveries))
    return deliveries


def numbered(count: int, topic: str = "t") -> list[Message]:
    return [Message(topic, str(number).encode()) for number in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds: what it looks at has no event of its own."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def disconnected(connection: Connection) -> None:
    """Until the loss of the MQTT broker has been noticed."""
    await until(lambda: not connection.connected)


def drop(connection: Connection) -> None:
    """Break the network connection without a word."""
    assert connection._wire is not None
    assert connection._wire._transport is not None
    connection._wire._transport.abort()
