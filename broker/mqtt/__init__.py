"""MQTT 5 for the services: a sans-I/O session over the mqtt5 codec, on an asyncio transport."""

from broker.mqtt.broker_pool import BrokerPool, connections_of
from broker.mqtt.connection import Connection
from broker.mqtt.connection_options import ConnectionHooks, ConnectionOptions
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Delivery, Message
from broker.mqtt.mqtt_errors import (
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
from broker.mqtt.open_mqtt import OpenMqtt
from broker.mqtt.reason_codes import PubAckReasonCode
from broker.mqtt.stats import ConnectionStats
from broker.mqtt.status import ServerStatus

__all__ = [
    "BrokerPool",
    "ConnectRefused",
    "Connection",
    "ConnectionClosed",
    "ConnectionHooks",
    "ConnectionLost",
    "ConnectionOptions",
    "ConnectionStats",
    "Delivery",
    "Endpoint",
    "Message",
    "MqttError",
    "OpenMqtt",
    "Overloaded",
    "ProtocolError",
    "PubAckReasonCode",
    "ServerDisconnected",
    "ServerStatus",
    "SessionTakenOver",
    "Unreachable",
    "connections_of",
]
