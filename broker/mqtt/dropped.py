"""How many messages a Mosquitto has dropped because their receivers did not read fast enough.

It tells under `$SYS` (mosquitto(8), "Broker status"), retained, each `sys_interval`. Asked on a
connection of its own, for a moment: rumqttd closes the connection on such a SUBSCRIBE.
"""

import asyncio
from uuid import uuid4

from broker.mqtt.connection import Connection
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.errors import MqttError

TOPIC = "$SYS/broker/publish/messages/dropped"
_TIMEOUT_S = 2.0


async def dropped(endpoint: Endpoint) -> int | None:
    """Return the count since the MQTT broker started; None where there is no such count."""
    connection = Connection(
        endpoint,
        client_id=f"nabij-dropped-{uuid4().hex[:12]}",
        subscriptions=[TOPIC],
        session_expiry_s=0,
        connect_timeout_s=_TIMEOUT_S,
    )
    try:
        async with connection, asyncio.timeout(_TIMEOUT_S):
            delivery = (await connection.receive(1))[0]
            delivery.acknowledge()
            return int(delivery.message.payload)
    except (MqttError, TimeoutError, ValueError):
        return None
