"""An operator who hears everything, and sends what is garbled, retained too, on every topic.

So a run can say which topics of the contract it did not exercise, and that nothing which was
published retained on `up/` topics and commands stays at the MQTT broker.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from broker.mqtt import Connection, Endpoint, Message
from schemas import topics
from verify.chaos.chaos_world import ChaosWorld
from verify.world.exercised import Exercised, sent_topics

EXEMPT = {
    topics.UNATTENDED.template: "the desks of chaos are never gone for long; simulated ones are",
}
_AT_ONCE = 200
_EVERY_S = 2.0
_GARBLED = b"{"
_LEVELS = {"user": "probe", "zone": "gent", "municipality": "gent"}


class Observer:
    """Counts what is heard; `left` are the topics on which a message is still retained."""

    def __init__(self, world: ChaosWorld) -> None:
        self.exercised = Exercised()
        self.left: set[str] = set()
        self._garbled = {topic.topic(**_levels(topic.template)) for topic in sent_topics()}
        self._connection = Connection(
            Endpoint.from_url(world.mqtt.url_for(world.accounts["operator"])),
            client_id="observer",
            subscriptions=[f"{topics.ROOT}/#"],
        )

    async def listen(self) -> None:
        """Count all that comes, forever."""
        while True:
            for delivery in await self._connection.receive(_AT_ONCE):
                delivery.acknowledge()
                message = delivery.message
                self.exercised.take(message.topic, message.payload)
                if message.topic in self._garbled and message.retain:
                    (self.left.discard if message.clears else self.left.add)(message.topic)

    async def garble(self) -> None:
        """Send what must be refused on every topic, again and again, retained each second time."""
        retain = False
        while True:
            retain = not retain
            for topic in sorted(self._garbled):
                await self._connection.publish(Message(topic, _GARBLED, retain=retain))
            await asyncio.sleep(_EVERY_S)

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.__aexit__(None, None, None)


def _levels(template: str) -> dict[str, str]:
    return {name: level for name, level in _LEVELS.items() if f"{{{name}}}" in template}


@contextlib.asynccontextmanager
async def observing(world: ChaosWorld) -> AsyncIterator[Observer]:
    """Have an observer listen while the context lasts."""
    async with Observer(world) as observer:
        listening = asyncio.create_task(observer.listen(), name="observer")
        try:
            yield observer
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
