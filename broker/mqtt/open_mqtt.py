"""How a connection to an MQTT broker is made, so that it can be given from outside."""

from collections.abc import Sequence
from typing import Protocol

from broker.mqtt.connection import Connection
from broker.mqtt.connection_options import DEFAULTS, NO_HOOKS, ConnectionHooks, ConnectionOptions
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Message


class OpenMqtt(Protocol):
    """Makes a connection, which `async with` opens: the class `Connection`, or what stands for it.

    The simulation gives it time, dice and network of its own.
    """

    def __call__(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        subscriptions: Sequence[str] = (),
        will: Message | None = None,
        options: ConnectionOptions = DEFAULTS,
        hooks: ConnectionHooks = NO_HOOKS,
    ) -> Connection:
        """Return a connection to the MQTT broker at `endpoint`."""
