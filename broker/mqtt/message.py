"""A `Message` as the application sees it, and a `Delivery` of one to us."""

from collections.abc import Callable

import mqtt5
import msgspec

_QOS = (mqtt5.QoS.AT_MOST_ONCE, mqtt5.QoS.AT_LEAST_ONCE)


class Message(msgspec.Struct, frozen=True, gc=False):
    """An application message: topic, payload, and the MQTT 5 properties that Nabij uses.

    `expiry_s` is the message expiry interval in seconds (section 3.3.2.3.3), `correlation` the
    correlation data. `qos` is 0 or 1: Nabij never uses QoS 2, whose exactly-once ends at the MQTT
    broker, while ours must reach into the store. With several MQTT brokers, `broker_index` is the
    one that it goes to; None: all.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    broker_index: int | None = None

    @property
    def clears(self) -> bool:
        """Whether this only makes the MQTT broker forget a retained message (3.3.1.3)."""
        return self.retain and not self.payload


class Delivery:
    """An inbound message and the duty to acknowledge it.

    `received_at` is `time.monotonic()`; `duplicate` the DUP flag, a hint only (section 3.3.1.1).
    """

    __slots__ = ("_acknowledge", "_epoch", "_packet_id", "duplicate", "message", "received_at")

    def __init__(  # noqa: PLR0917 (built once per message on the hot path, by one caller)
        self,
        message: Message,
        received_at: float,
        duplicate: bool,  # noqa: FBT001
        packet_id: int,
        epoch: int,
        acknowledge: Callable[[int, int], None],
    ) -> None:
        self.message = message
        self.received_at = received_at
        self.duplicate = duplicate
        self._packet_id = packet_id
        self._epoch = epoch
        self._acknowledge = acknowledge

    def acknowledge(self) -> None:
        """Send the PUBACK, after which the MQTT broker forgets this message.

        A second call, one for QoS 0, or one after the loss of the connection does nothing. In the
        last case the MQTT broker delivers again, and that delivery needs its own PUBACK.
        """
        packet_id, self._packet_id = self._packet_id, 0
        if packet_id:
            self._acknowledge(packet_id, self._epoch)

    def __repr__(self) -> str:
        return f"Delivery({self.message.topic!r}, {len(self.message.payload)} bytes)"


def encode_publish(message: Message, packet_id: int | None, *, duplicate: bool = False) -> bytes:
    """One PUBLISH packet; ValueError, OverflowError or IndexError if MQTT cannot express it."""
    return mqtt5.PublishPacket(
        message.topic,
        message.payload,
        qos=_QOS[message.qos],
        retain=message.retain,
        packet_id=packet_id,
        duplicate=duplicate,
        message_expiry_interval=message.expiry_s,
        response_topic=message.response_topic,
        correlation_data=message.correlation,
        user_properties=list(message.user_properties) if message.user_properties else None,
    ).write()


def decode_publish(packet: mqtt5.PublishPacket) -> Message:
    """The application's view of an inbound PUBLISH."""
    return Message(
        packet.topic,
        packet.payload,
        packet.qos.value,
        packet.retain,
        packet.message_expiry_interval,
        packet.response_topic,
        packet.correlation_data,
        tuple(packet.user_properties),
    )


def encode_will(message: Message) -> mqtt5.Will:
    """A last will (section 3.1.3): published by the MQTT broker when we vanish."""
    return mqtt5.Will(
        message.topic,
        payload=message.payload,
        qos=_QOS[message.qos],
        retain=message.retain,
        message_expiry_interval=message.expiry_s,
        response_topic=message.response_topic,
        correlation_data=message.correlation,
        user_properties=list(message.user_properties),
    )
