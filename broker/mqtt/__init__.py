"""MQTT 5 for the services: a sans-I/O session over the mqtt5 codec, on an asyncio transport."""

from broker.mqtt.connection import Connection
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.errors import (
    ConnectionClosed,
    ConnectionLost,
    ConnectRefused,
    MqttError,
    Overloaded,
    ProtocolError,
    ServerDisconnected,
    SessionTakenOver,
    Unreachable,
)
from broker.mqtt.message import Delivery, Message
from broker.mqtt.reasons import PubAckReasonCode
from broker.mqtt.several import Several, connections_of
from broker.mqtt.stats import ConnectionStats
from broker.mqtt.status import ServerStatus

__all__ = [
    "ConnectRefused",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionStats",
    "Delivery",
    "Endpoint",
    "Message",
    "MqttError",
    "Overloaded",
    "ProtocolError",
    "PubAckReasonCode",
    "ServerDisconnected",
    "ServerStatus",
    "SessionTakenOver",
    "Several",
    "Unreachable",
    "connections_of",
]
