"""Whether every service answers every message: a session without a worker swallows some.

Each message is sent once, and is one that its service rejects, so that nothing follows from it.
Where one of n sessions in a shared subscription has no worker, one message in n gets no receipt.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.device_connection import Broker, DeviceConnection, Identity, Incoming
from schemas import topics
from schemas.ids import new_id
from verify.world.exercised import sent_topics

EACH = 24
_TOPICS = {one.name: one for one in sent_topics() if "{user}" in one.template}
KINDS = tuple(_TOPICS)


async def unanswered(
    broker_url: str,
    user: str,
    password: str,
    kinds: Sequence[str] = KINDS,
    *,
    within_s: float = 10.0,
) -> dict[str, int]:
    """Return how many of so many messages of each kind got no answer, where any did not."""
    asked = {new_id().bytes: _TOPICS[kind] for kind in [*kinds] * EACH}
    waiting, all_came = dict(asked), asyncio.Event()  # whole before the first answer comes

    def take(incoming: Incoming) -> None:
        waiting.pop(incoming.correlation or b"", None)
        if not waiting:
            all_came.set()

    device = DeviceConnection(
        Broker.from_url(broker_url),
        Identity(user, password, f"{user}-{new_id()}", 0),
        filters=[topics.RECEIPT.topic(user=user)],
        on_message=take,
    )
    async with device:
        link = await device.link()
        for correlation, topic in asked.items():
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
            await link.publish(topic.topic(user=user), b"{}", qos=1, properties=properties)
        try:
            async with asyncio.timeout(within_s):
                await all_came.wait()
        except TimeoutError:
            return dict(Counter(topic.name for topic in waiting.values()))
    return {}
