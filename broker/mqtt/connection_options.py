"""How a connection behaves, what it calls and gets from outside; the defaults suit most."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Message
from broker.mqtt.session import Session
from broker.mqtt.session_events import SessionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How a connection behaves. The first six describe its session to the MQTT broker.

    Up to `window` messages are on their way at once, and `max_queue` wait in all. With `reconnects`
    false the first loss is the end; without `must_connect` the first attempt may fail. `shown_as`
    stands in logs for a client id that is a secret.
    """

    subscribe_qos: int = 1
    session_expiry_s: int = 86_400
    receive_maximum: int = 1_000
    keep_alive_s: int = 30
    max_packet_bytes: int = 1_048_576
    window: int = 500
    max_queue: int = 20_000
    connect_timeout_s: float = 10.0
    drain_timeout_s: float = 5.0
    must_connect: bool = True
    reconnects: bool = True
    shown_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionHooks:
    """What a connection calls.

    `on_connect` after every connect, the first included, for retained state that must be restored on
    a replaced MQTT broker; `on_lost` as soon as the connection is gone; `before_reconnect` is awaited
    before every further attempt, and may then take back a session that another client took over.
    """

    before_reconnect: Callable[[], Awaitable[None]] | None = None
    on_connect: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None


async def open_socket(endpoint: Endpoint, protocol: asyncio.Protocol) -> None:
    """Open a network connection to the MQTT broker, and let `protocol` have it."""
    await asyncio.get_running_loop().create_connection(
        lambda: protocol, endpoint.host, endpoint.port, ssl=endpoint.tls
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionExternals:
    """What a connection gets from outside: time, dice and network, which a simulation replaces."""

    wall_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic
    dice: random.Random = field(default_factory=random.Random)
    open_network: Callable[[Endpoint, asyncio.Protocol], Awaitable[None]] = open_socket


DEFAULTS = ConnectionOptions()
NO_HOOKS = ConnectionHooks()
EXTERNALS = ConnectionExternals()


def session_of(
    endpoint: Endpoint,
    options: ConnectionOptions,
    *,
    client_id: str,
    subscriptions: Sequence[str],
    will: Message | None,
) -> Session:
    """Return the session that a connection with these options has."""
    config = SessionConfig(
        client_id=client_id,
        username=endpoint.username,
        password=endpoint.password,
        subscriptions=tuple(subscriptions),
        subscribe_qos=options.subscribe_qos,
        will=will,
        session_expiry_s=options.session_expiry_s,
        receive_maximum=options.receive_maximum,
        keep_alive_s=options.keep_alive_s,
        window=options.window,
        max_packet_bytes=options.max_packet_bytes,
    )
    return Session(config)
