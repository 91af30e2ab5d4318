"""Turns a client's bytes into packets of MQTT 5, also where the client speaks 3.1.1.

A 3.1.1 packet is an MQTT 5 one without properties, so it is read as that with none (`_upgraded`).
What the `mqtt5` codec does not look at is checked here. A PUBLISH without properties is read
without the codec: most packets are, and it takes a quarter of the time.
"""

from typing import Final

import mqtt5
import msgspec

from broker.edge.reasons import Reason
from broker.edge.topic_filters import is_topic_name

V311: Final = 4
V5: Final = 5
_CONNECT, _SUBSCRIBE, _UNSUBSCRIBE = 1, 8, 10
_PUBLISH = 0x30  # as the first byte, without flags
_ACKS = range(4, 8)
_HEADER_BYTES = 5
_ACK_PACKETS = (mqtt5.PubAckPacket, mqtt5.PubRecPacket, mqtt5.PubRelPacket, mqtt5.PubCompPacket)


class BadPacketError(Exception):
    """What the client sent is against the specification."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class UnknownVersionError(Exception):
    """CONNECT with another protocol version than 3.1.1 or 5."""


class Publish(msgspec.Struct, eq=False, gc=False):
    """A PUBLISH; `properties` is the codec's packet if it has any."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    retain: bool
    properties: mqtt5.PublishPacket | None


Packet = mqtt5.Packet | Publish | int  # an int is a plain PUBACK's packet id


class PacketReader:
    """Cuts one network connection's bytes into packets, in linear time."""

    def __init__(self, max_packet_bytes: int) -> None:
        self.version = 0  # until CONNECT tells
        self._max_packet_bytes = max_packet_bytes
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._needed = 0
        self._buffer = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self._at == len(self._buffer) and not self._chunks:
            self._buffer, self._at = data, 0
        else:
            self._chunks.append(data)
            self._waiting += len(data)

    @property
    def unread(self) -> int:
        """Bytes that are not read yet."""
        return self._waiting + len(self._buffer) - self._at

    def next(self) -> Packet | None:
        """Return the next packet, or None until more bytes come.

        Raises:
            BadPacketError: the connection has to be closed.
            UnknownVersionError: so has this one.
        """
        found = self._measured()
        if found is None:
            found = self._refilled()
            if found is None:
                return None
        start, body, end = found
        buffer = self._buffer
        first = buffer[start]
        self._at = end
        if not self.version:
            self._read_version(first, body, end)
        if first & 0xF0 == _PUBLISH:
            return self._publish(first, start, body, end)
        if first == 0x40 and end - body == 2:
            return _packet_id(buffer, body)
        packet = buffer[start:end]
        if self.version == V311:
            packet = _upgraded(packet, body - start)
        return _checked(_read(packet), packet, self.version)

    def _refilled(self) -> tuple[int, int, int] | None:
        """`_measured`, with all bytes that have come."""
        rest = len(self._buffer) - self._at
        if not self._chunks or rest + self._waiting < self._needed:
            return None  # joined before it is whole, a large packet would cost quadratic time
        self._buffer = b"".join((self._buffer[self._at :], *self._chunks))
        self._at = self._waiting = 0
        self._chunks.clear()
        return self._measured()

    def _measured(self) -> tuple[int, int, int] | None:
        """Return where the next packet, its body, and what follows it begin, if it is in the buffer.

        Else say how many bytes are needed.
        """
        buffer, at = self._buffer, self._at
        there = len(buffer)
        if there - at < 2:
            self._needed = 2
            return None
        if not self.version and buffer[at] >> 4 != _CONNECT:
            raise BadPacketError(Reason.PROTOCOL_ERROR, "the first packet is no CONNECT")
        size, body = buffer[at + 1], at + 2
        if size >= 0x80:
            measured = _size(buffer, at)
            if measured is None:
                self._needed = there - at + 1
                return None
            size, body = measured
        end = body + size
        if end - at > self._max_packet_bytes:
            raise BadPacketError(Reason.PACKET_TOO_LARGE, f"a packet of {end - at} bytes")
        if end <= there:
            return at, body, end
        self._needed = end - at
        return None

    def _read_version(self, first: int, body: int, end: int) -> None:
        if first != 0x10:
            raise BadPacketError(Reason.MALFORMED_PACKET, "flags in the fixed header of CONNECT")
        name = self._buffer[body : body + 6]
        if end - body < 8 or name != b"\0\4MQTT":
            raise UnknownVersionError(f"protocol {name[2:]!r}")
        level = self._buffer[body + 6]
        if level not in {V311, V5}:
            raise UnknownVersionError(f"protocol version {level}")
        self.version = level

    def _publish(self, first: int, start: int, body: int, end: int) -> Publish:
        buffer = self._buffer
        qos = first >> 1 & 3
        if qos == 3 or (not qos and first & 8):
            raise BadPacketError(Reason.MALFORMED_PACKET, "PUBLISH with QoS 3, or DUP with QoS 0")
        at = body + 2 + (buffer[body] << 8 | buffer[body + 1] if end - body >= 2 else end)
        packet_id, after = 0, at
        if qos:
            after += 2
            if after <= end:
                packet_id = _packet_id(buffer, at)
        if self.version == V311:
            payload_at = after
        elif after < end and not buffer[after]:
            payload_at = after + 1
        else:
            payload_at = end + 1
        if payload_at <= end:
            topic = _text(buffer[body + 2 : at])
            return Publish(topic, buffer[payload_at:end], qos, packet_id, first & 1 == 1, None)
        if after >= end or self.version == V311:
            raise BadPacketError(Reason.MALFORMED_PACKET, "a field is longer than its packet")
        packet = _read(buffer[start:end])
        assert isinstance(packet, mqtt5.PublishPacket)
        _check_properties(packet)
        return Publish(packet.topic, packet.payload, qos, packet_id, packet.retain, packet)


def _size(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Return the remaining length, and where the body begins (2.1.4); None: it is incomplete."""
    size = 0
    for place in range(1, _HEADER_BYTES):
        if at + place >= len(buffer):
            return None
        byte = buffer[at + place]
        size |= (byte & 0x7F) << (7 * (place - 1))
        if byte < 0x80:
            if not byte:
                break  # 1.5.5-1: the minimum number of bytes
            return size, at + place + 1
    raise BadPacketError(
        Reason.MALFORMED_PACKET, "the remaining length is no variable byte integer"
    )


def _uint16(buffer: bytes, at: int) -> int:
    return buffer[at] << 8 | buffer[at + 1]


def _packet_id(buffer: bytes, at: int) -> int:
    number = buffer[at] << 8 | buffer[at + 1]
    if not number:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "packet id 0")  # 2.2.1-3
    return number


def _text(raw: bytes) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise BadPacketError(Reason.MALFORMED_PACKET, "a string is not UTF-8") from None


def _read(packet: bytes) -> mqtt5.Packet:
    try:
        found, size = mqtt5.read(memoryview(packet))
    except IndexError:
        raise BadPacketError(Reason.MALFORMED_PACKET, "a field is longer than its packet") from None
    except ValueError as error:
        raise BadPacketError(_reason_of(str(error)), str(error)) from None
    except BaseException as error:
        # PyO3's PanicException cannot be imported and does not derive from Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise BadPacketError(Reason.MALFORMED_PACKET, "a string is not UTF-8") from None
    if size != len(packet):
        raise BadPacketError(Reason.MALFORMED_PACKET, "a packet is longer than its fields")
    return found


def _reason_of(text: str) -> Reason:
    """Return whether what the codec refuses is malformed, or against the protocol (1.2, 4.13)."""
    if text == "Topic alias must be != 0":
        return Reason.TOPIC_ALIAS_INVALID
    is_protocol = "must be" in text or text.startswith(("Duplicate value", "Invalid boolean"))
    return Reason.PROTOCOL_ERROR if is_protocol else Reason.MALFORMED_PACKET


# -- what the codec does not look at ----------------------------------------------------------------


def _checked(packet: mqtt5.Packet, raw: bytes, version: int) -> mqtt5.Packet:
    if isinstance(packet, mqtt5.ConnectPacket):
        _check_connect(packet, raw)
    elif isinstance(packet, mqtt5.SubscribePacket):
        _check_subscribe(packet, raw, 0b1100_0000 if version == V5 else 0b1111_1100)
    elif isinstance(packet, mqtt5.UnsubscribePacket):
        _check_id(packet.packet_id)
        if not packet.patterns:  # 3.10.3-2
            raise BadPacketError(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a topic filter")
    elif isinstance(packet, _ACK_PACKETS):
        _check_id(packet.packet_id)
    return packet


def _check_connect(packet: mqtt5.ConnectPacket, raw: bytes) -> None:
    measured = _size(raw, 0)
    assert measured is not None
    flags = raw[measured[1] + 7]
    if flags & 1 or (not flags & 4 and flags & 0b0011_1000):  # 3.1.2-3, 3.1.2-11, 3.1.2-13
        raise BadPacketError(Reason.MALFORMED_PACKET, "reserved or unused connect flags are set")
    if packet.authentication_data is not None and packet.authentication_method is None:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "authentication data without its method")
    texts = [packet.client_id, packet.username or ""]
    if any("\0" in text for text in texts):
        raise BadPacketError(Reason.MALFORMED_PACKET, "a string has the null character")
    will = packet.will
    if will is not None and not is_topic_name(will.topic):
        raise BadPacketError(Reason.TOPIC_NAME_INVALID, "the will's topic is no topic name")
    if will is not None and will.payload_format_indicator > 1:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "a payload format that is neither 0 nor 1")


def _check_subscribe(packet: mqtt5.SubscribePacket, raw: bytes, reserved: int) -> None:
    _check_id(packet.packet_id)
    if not packet.topic_filters:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a topic filter")  # 3.8.3-2
    end = len(raw)
    for one in reversed(packet.topic_filters):
        if raw[end - 1] & reserved:  # 3.8.3-5
            raise BadPacketError(Reason.MALFORMED_PACKET, "reserved subscription options are set")
        end -= 3 + len(one.pattern.encode())


def _check_id(packet_id: int) -> None:
    if not packet_id:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "packet id 0")  # 2.2.1-3


def _check_properties(packet: mqtt5.PublishPacket) -> None:
    if packet.subscription_ids:  # 3.3.4-6
        raise BadPacketError(Reason.PROTOCOL_ERROR, "a subscription id from a client")
    if packet.payload_format_indicator > 1:
        raise BadPacketError(Reason.PROTOCOL_ERROR, "a payload format that is neither 0 nor 1")
    if packet.response_topic is not None and not is_topic_name(packet.response_topic):
        raise BadPacketError(
            Reason.PROTOCOL_ERROR, "the response topic is no topic name"
        )  # 3.3.2-14


# -- 3.1.1 ------------------------------------------------------------------------------------------


def _upgraded(packet: bytes, body: int) -> bytes:
    """Return the MQTT 5 packet that says the same as this one of 3.1.1."""
    kind = packet[0] >> 4
    if kind == _CONNECT:
        flags = packet[body + 7]
        if flags & 0b1100_0000 == 0b0100_0000:  # MQTT 3.1.1, 3.1.2-22
            raise BadPacketError(Reason.MALFORMED_PACKET, "a password without a user name")
        fields = packet[body : body + 6] + b"\5" + packet[body + 7 : body + 10] + b"\0"
        rest = packet[body + 10 :]
        if flags & 4 and len(rest) >= 2:  # a will has properties after the client id
            cut = 2 + _uint16(rest, 0)
            rest = rest[:cut] + b"\0" + rest[cut:]
        return _packet(packet[0], fields + rest)
    if kind in {_SUBSCRIBE, _UNSUBSCRIBE}:
        options = packet[body:]
        return _packet(packet[0], options[:2] + b"\0" + options[2:])
    if kind in _ACKS and len(packet) - body != 2:
        raise BadPacketError(
            Reason.MALFORMED_PACKET, "an acknowledgement of 3.1.1 with more fields"
        )
    if kind not in _ACKS and len(packet) != body:
        raise BadPacketError(Reason.MALFORMED_PACKET, "a packet of 3.1.1 with more fields")
    return packet


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + variable_byte_integer(len(body)) + body


def variable_byte_integer(number: int) -> bytes:
    """Encode a length (section 1.5.5)."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
