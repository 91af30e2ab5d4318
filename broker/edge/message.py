"""An application message on its way through the MQTT broker, and the packets that carry it."""

import mqtt5

from broker.edge.packets import V5, Publish, variable_byte_integer
from broker.edge.records import Holding, Key, PublishRecord

_NO_PROPERTIES = b"\0"
_TOPIC = b"\0\1t"


class Message:
    """An application message. `number` orders messages; `expires_at` and `came_at` are monotonic.

    `holders` are the queues in the journal that have it. What its packets have in common is written
    once: they differ in flags and packet id alone.
    """

    __slots__ = ("_forms", "came_at", "expires_at", "holders", "number", "publish", "size")

    def __init__(self, number: int, publish: Publish, came_at: float) -> None:
        self.number = number
        self.publish = publish
        self.came_at = came_at
        properties = publish.properties
        lasts_s = properties.message_expiry_interval if properties is not None else None
        self.expires_at = None if lasts_s is None else came_at + lasts_s
        self.size = len(publish.topic) + len(publish.payload) + 64  # what counts in quotas
        self.holders: dict[Key, Holding] = {}
        self._forms: dict[object, tuple[bytes, bytes]] = {}

    def form(
        self, version: int, *, has_id: bool, identifiers: tuple[int, ...], now: float
    ) -> tuple[bytes, bytes]:
        """Return what stands before the packet id, without the first byte, and what stands after."""
        waited_s = int(now - self.came_at) if self.expires_at is not None else 0
        key = (version, has_id, identifiers, waited_s)
        found = self._forms.get(key)
        if found is None:
            publish, after = self.publish, b""
            if version == V5:
                after = properties_of(publish.properties, identifiers, waited_s) or _NO_PROPERTIES
            name = publish.topic.encode()
            length = 2 + len(name) + (2 if has_id else 0) + len(after) + len(publish.payload)
            before = variable_byte_integer(length) + len(name).to_bytes(2, "big") + name
            found = self._forms[key] = (before, after + publish.payload)
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
    return Publish(record.topic, record.payload, record.qos, 0, int(record.retain), properties)
