"""An application message on its way through the MQTT broker, and the packets that carry it."""

from collections.abc import Callable
from typing import Self

import mqtt5
import msgspec

from broker.edge.packets import V5, Publish, variable_byte_integer
from broker.edge.records import Holding, Key, PublishRecord

_NO_PROPERTIES = b"\0"
_TOPIC = b"\0\1t"


class Message(msgspec.Struct, eq=False):
    """An application message. `number` orders messages; `expires_at` and `came_at` are monotonic.

    `size` is what counts in quotas, `holders` the queues in the journal that have it. What its
    packets have in common (`forms`) is written once: they differ in flags and packet id alone.
    """

    number: int
    publish: Publish
    came_at: float
    size: int
    expires_at: float | None
    holders: dict[Key, Holding] = {}
    forms: dict[object, tuple[bytes, bytes]] = {}

    @classmethod
    def of(cls, number: int, publish: Publish, came_at: float) -> Self:
        """Return the message that a PUBLISH is."""
        properties, expires_at = publish.properties, None
        if properties is not None and (lasts_s := properties.message_expiry_interval) is not None:
            expires_at = came_at + lasts_s
        size = len(publish.topic) + len(publish.payload) + 64
        return cls(number, publish, came_at, size, expires_at)

    def form(
        self, version: int, qos: int, identifiers: tuple[int, ...], clock: Callable[[], float]
    ) -> tuple[bytes, bytes]:
        """Return what stands before the packet id, without the first byte, and what stands after."""
        waited_s = int(clock() - self.came_at) if self.expires_at is not None else 0
        key = (version, qos > 0, identifiers, waited_s)
        found = self.forms.get(key)
        if found is None:
            publish, after = self.publish, b""
            if version == V5:
                after = properties_of(publish.properties, identifiers, waited_s) or _NO_PROPERTIES
            name = publish.topic.encode()
            length = 2 + len(name) + (2 if qos else 0) + len(after) + len(publish.payload)
            before = variable_byte_integer(length) + len(name).to_bytes(2, "big") + name
            found = self.forms[key] = (before, after + publish.payload)
        return found


def properties_of(
    packet: mqtt5.PublishPacket | None, identifiers: tuple[int, ...] = (), waited_s: int = 0
) -> bytes:
    """Return the properties as they stand in a packet, or b"" if there are none.

    The codec writes them, in a packet with nothing else in it.
    """
    if packet is None and not identifiers:
        return b""
    packet = packet or mqtt5.PublishPacket("t", b"")
    lasts_s = packet.message_expiry_interval
    written = mqtt5.PublishPacket(
        "t",
        b"",
        payload_format_indicator=packet.payload_format_indicator,
        message_expiry_interval=None if lasts_s is None else max(0, lasts_s - waited_s),
        content_type=packet.content_type,
        response_topic=packet.response_topic,
        correlation_data=packet.correlation_data,
        subscription_ids=list(identifiers),
        user_properties=packet.user_properties,
    ).write()
    body = next(at for at in range(1, 5) if written[at] < 0x80) + 1
    return written[body + len(_TOPIC) :]


def recorded(publish: Publish) -> PublishRecord:
    """Return what has to be known of a message."""
    properties = properties_of(publish.properties)
    return PublishRecord(publish.topic, publish.payload, properties, publish.qos, publish.retain)


def restored(record: PublishRecord) -> Publish:
    """Return what `recorded` has written."""
    properties = None
    if record.properties:
        length = variable_byte_integer(len(_TOPIC) + len(record.properties))
        packet, _ = mqtt5.read(memoryview(b"\x30" + length + _TOPIC + record.properties))
        assert isinstance(packet, mqtt5.PublishPacket)
        properties = packet
    return Publish(record.topic, record.payload, record.qos, 0, record.retain, properties)
