"""The floor of the path: a bare relay that does one fsynced Redis write before it answers.

    python -m bench.relay_floor, with the URLs of MQTT and Redis on standard input

It decides nothing, keeps nothing that could be found again, and alerts nobody.
"""

import asyncio
from uuid import uuid4

from bench import peer_protocol
from broker.mqtt import Connection, ConnectionOptions, Delivery, Endpoint, Message
from broker.store.kernel.redis_connection import RedisConnection as Redis
from nabij.event_loop import run


async def relay(mqtt_url: str, redis_url: str) -> None:
    """Relay until the process is ended."""
    async with (
        Redis(redis_url) as redis,
        Connection(
            Endpoint.from_url(mqtt_url),
            client_id=f"bench-relay-{uuid4().hex[:8]}",
            subscriptions=[peer_protocol.REPORT],
            options=ConnectionOptions(session_expiry_s=0),
        ) as mqtt,
        asyncio.TaskGroup() as tasks,
    ):
        print(peer_protocol.READY, flush=True)

        async def pass_on(delivery: Delivery) -> None:
            payload = delivery.message.payload
            await redis.call("SET", "bench:relayed", payload)
            receipt = mqtt.publish_nowait(Message(peer_protocol.RECEIPT, payload))
            police = mqtt.publish_nowait(Message(peer_protocol.POLICE, payload))
            await receipt
            await police
            delivery.acknowledge()

        async for delivery in mqtt:
            tasks.create_task(pass_on(delivery))


if __name__ == "__main__":
    run(relay(*peer_protocol.urls()))
