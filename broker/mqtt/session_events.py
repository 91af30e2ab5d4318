"""A session's settings, the state of its network connection, and its events."""

import enum
from dataclasses import dataclass

import msgspec

from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError


class State(enum.Enum):
    """The state of the current network connection."""

    DISCONNECTED = enum.auto()
    CONNECTING = enum.auto()  # CONNECT sent
    SUBSCRIBING = enum.auto()  # CONNACK received; publishing has begun
    ONLINE = enum.auto()
    CLOSED = enum.auto()  # nothing more is read or written on this connection


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What we ask of the MQTT broker in CONNECT and SUBSCRIBE."""

    client_id: str
    username: str | None = None
    password: str | None = None
    subscriptions: tuple[str, ...] = ()
    subscribe_qos: int = 1
    will: Message | None = None
    session_expiry_s: int = 86_400
    receive_maximum: int = 1_000
    keep_alive_s: int = 30
    window: int = 500
    max_packet_bytes: int = 1_048_576


class Accepted(msgspec.Struct, frozen=True):
    """CONNACK with success."""

    session_present: bool


class Subscribed(msgspec.Struct, frozen=True):
    """Every subscription is granted; deliveries may have come before."""


class PublishReceived(msgspec.Struct, frozen=True):
    """An inbound PUBLISH; `packet_id` is 0 for QoS 0. Acknowledge with both numbers."""

    message: Message
    duplicate: bool
    packet_id: int
    epoch: int


class Answered(msgspec.Struct, frozen=True):
    """The answer to a later `subscribe` or `unsubscribe`: what was refused, in words."""

    refused: tuple[str, ...]


class Closed(msgspec.Struct, frozen=True):
    """The network connection is over: write what `take` returns, then close it."""

    error: MqttError


Event = Accepted | Subscribed | PublishReceived | Answered | Closed
