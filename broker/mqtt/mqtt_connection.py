"""What services need of a connection to an MQTT broker, so that it can be given from outside.

`broker.mqtt.Connection` is the one in use; the simulation gives it time, dice and network of its own.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, Self

from broker.mqtt.connection_options import DEFAULTS, NO_HOOKS, ConnectionHooks, ConnectionOptions
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Delivery, Message
from broker.mqtt.reason_codes import PubAckReasonCode
from broker.mqtt.stats import ConnectionStats


class MqttConnection(Protocol):
    """One MQTT session, kept alive. `broker.mqtt.Connection` says what each part means."""

    is_held_back: bool
    session_present: bool

    @property
    def connected(self) -> bool:
        """Whether it is connected and subscribed."""

    @property
    def heard(self) -> tuple[float, float] | None:
        """Since and until when one and the same server was heard (Unix s)."""

    @property
    def where(self) -> str:
        """Host and port of the MQTT broker."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    def stats(self) -> ConnectionStats:
        """Counters, for metrics."""

    async def receive(self, max_items: int) -> list[Delivery]:
        """Wait for one delivery at least, then return all that is queued, up to `max_items`."""

    def publish_nowait(self, message: Message) -> asyncio.Future[PubAckReasonCode]:
        """Publish; the future resolves on the PUBACK."""

    async def publish(self, message: Message) -> PubAckReasonCode:
        """`publish_nowait`, awaited."""

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        """Publish many; outcomes in the order of `messages`."""

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions of this connection, until it is made again."""

    async def end_session(self, filters: Sequence[str], last: Message) -> None:
        """Unsubscribe, and wait until all that is queued was taken and acknowledged."""


class OpenMqtt(Protocol):
    """Makes a connection, which `async with` opens: the class `Connection`, or what stands for it."""

    def __call__(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        subscriptions: Sequence[str] = (),
        will: Message | None = None,
        options: ConnectionOptions = DEFAULTS,
        hooks: ConnectionHooks = NO_HOOKS,
    ) -> MqttConnection:
        """Return a connection to the MQTT broker at `endpoint`."""
