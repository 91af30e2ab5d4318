"""Turns a client's bytes into packets, of MQTT 5 or 3.1.1, and refuses what is against either.

Those of 3.1.1 are read as those of MQTT 5 without properties. The `mqtt5` codec is not used here: it
panics on a string that is not UTF-8, which prints to the log whoever sends it, and lets pass much
that is against the specification.
"""

# long: every packet of the specification

from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from broker.edge.reasons import Reason
from broker.edge.topic_filters import is_topic_name

T = TypeVar("T")
V311: Final = 4
V5: Final = 5
CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 3, 4, 5, 6, 7
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 8, 10, 12, 14
PLAIN_PUBACK = b"\x40\x02"  # most packets are: it is read without a look at anything else
_WILL = 0  # its properties are not those of CONNECT
_MAX_CONNECT_BYTES = 32 * 1024  # of a client that has not said yet who it is
_MAX_ITEMS = 1000  # topic filters or user properties in one packet: what takes long to handle
_DELIVERED = {0, 16, 128, 131, 135, 144, 145, 151, 153}
_REASONS = {  # that a client may give (2.4)
    PUBACK: _DELIVERED,
    PUBREC: _DELIVERED,
    PUBREL: {0, 146},
    PUBCOMP: {0, 146},
    DISCONNECT: {0, 4, *range(128, 132), 144, *range(147, 154)},
}


class BadPacketError(Exception):
    """What the client sent is against the specification, or too much."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Publish(msgspec.Struct, eq=False, gc=False, array_like=True):
    """A PUBLISH, or a will. `properties` are those that are passed on unaltered, as they came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes = b""
    expiry_s: int | None = None
    packet_id: int = 0
    topic_alias: int = 0


class Connect(msgspec.Struct, frozen=True):
    """CONNECT; what a client of 3.1.1 cannot say has its default."""

    client_id: str
    username: str | None
    password: bytes | None
    clean_start: bool
    keep_alive_s: int
    will: Publish | None = None
    will_delay_s: int = 0
    session_expiry_s: int = 0
    receive_max: int = 65535
    max_packet_bytes: int = 0
    takes_user_properties: bool = True  # Request Problem Information
    authentication_method: str | None = None
    authentication_data: bytes | None = None


class Signal(msgspec.Struct, frozen=True):
    """PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ or DISCONNECT, which are small: see `kind`."""

    kind: int
    packet_id: int = 0
    reason: int = 0
    session_expiry_s: int | None = None


class TopicFilter(msgspec.Struct, frozen=True):
    """What one subscribes to, and the options (3.8.3.1)."""

    pattern: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE."""

    packet_id: int
    filters: list[TopicFilter]
    subscription_id: int | None = None


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE."""

    packet_id: int
    patterns: list[str]


Packet = Connect | Publish | Signal | Subscribe | Unsubscribe | int  # an int: a plain PUBACK's id


def _refuse(reason: Reason = Reason.PROTOCOL_ERROR) -> NoReturn:
    raise BadPacketError(reason)


def _check(is_right: object, reason: Reason = Reason.MALFORMED_PACKET) -> None:
    """Refuse the packet unless it is right."""
    if not is_right:
        raise BadPacketError(reason)


def _length(buffer: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Return a variable byte integer, and where it ends; None: it is incomplete (1.5.5)."""
    number = 0
    for place in range(4):
        if at + place >= end:
            return None
        byte = buffer[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            _check(byte or not place)  # 1.5.5-1: the minimum number of bytes
            return number, at + place + 1
    raise BadPacketError(Reason.MALFORMED_PACKET)


def variable_byte_integer(number: int) -> bytes:
    """Encode a length (section 1.5.5)."""
    if number < 0x4000:  # nearly all
        return bytes((number & 0x7F | 0x80, number >> 7) if number > 0x7F else (number,))
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


# -- fields ----------------------------------------------------------------------------------------


class _Fields:
    """The fields of one packet, one after another."""

    __slots__ = ("_buffer", "at", "end", "version")

    def __init__(self, buffer: bytes, at: int, end: int, version: int) -> None:
        self._buffer = buffer
        self.end = end
        self.at = at
        self.version = version

    def rest(self) -> bytes:
        start, self.at = self.at, self.end
        return self._buffer[start : self.end]

    def take(self, size: int) -> bytes:
        at = self.at
        self.at = at + size
        if self.at > self.end:
            _refuse(Reason.MALFORMED_PACKET)
        return self._buffer[at : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def positive(self, size: int, reason: Reason = Reason.PROTOCOL_ERROR) -> int:
        return self.number(size) or _refuse(reason)

    def length(self) -> int:
        found = _length(self._buffer, self.at, self.end)
        if found is None:
            raise BadPacketError(Reason.MALFORMED_PACKET)
        number, self.at = found
        return number

    def binary(self) -> bytes:
        start = self.at + 2
        self.at = end = start + int.from_bytes(self._buffer[self.at : start])
        if end > self.end:
            _refuse(Reason.MALFORMED_PACKET)
        return self._buffer[start:end]

    def text(self) -> str:
        try:
            text = str(self.binary(), "utf-8")
        except UnicodeDecodeError:
            raise BadPacketError(Reason.MALFORMED_PACKET) from None
        if "\0" in text:
            _refuse(Reason.MALFORMED_PACKET)
        return text

    def properties(self, kind: int) -> dict[str, Any]:
        """Return those that have a name in `_PROPERTIES`; in 3.1.1 there are none.

        Those of a message that are passed on are `properties`, as they stand.
        """
        found: dict[str, Any] = {}
        if self.version != V5:
            return found
        if self.at < self.end and not self._buffer[self.at]:
            self.at += 1
            return found
        end = self.length() + self.at
        _check(end <= self.end)
        seen: list[int] = []
        passed_on: list[bytes] = []
        while self.at < end:
            start, identifier = self.at, self._buffer[self.at]
            name, kinds, read = _PROPERTIES.get(identifier, _UNKNOWN)
            if kind not in kinds:
                _refuse(Reason.MALFORMED_PACKET)  # 2.2.2.2
            if identifier in seen and identifier != _USER_PROPERTY:
                _refuse()
            seen.append(identifier)
            _check(len(seen) <= _MAX_ITEMS, Reason.QUOTA_EXCEEDED)
            self.at += 1
            value = read(self)
            if name:
                found[name] = value
            elif kind in _MESSAGE:
                passed_on.append(self._buffer[start : self.at])
        _check(self.at == end)
        if passed_on:
            found["properties"] = b"".join(passed_on)
        return found


def _flag(fields: _Fields) -> bool:
    number = fields.number(1)
    _check(number <= 1, Reason.PROTOCOL_ERROR)
    return number == 1


def _response_topic(fields: _Fields) -> str:
    topic = fields.text()
    _check(is_topic_name(topic), Reason.PROTOCOL_ERROR)  # 3.3.2-14
    return topic


_Property = tuple[str, set[int], Callable[[_Fields], Any]]
_MESSAGE, _USER_PROPERTY = {PUBLISH, _WILL}, 38
_UNKNOWN: _Property = ("", set(), _Fields.binary)
_PROPERTIES: dict[int, _Property] = {  # the name if it is of use here, the packets, the type
    1: ("", _MESSAGE, _flag),
    2: ("expiry_s", _MESSAGE, lambda one: one.number(4)),
    3: ("", _MESSAGE, _Fields.text),
    8: ("", _MESSAGE, _response_topic),
    9: ("", _MESSAGE, _Fields.binary),
    11: ("subscription_id", {PUBLISH, SUBSCRIBE}, lambda one: one.length() or _refuse()),
    17: ("session_expiry_s", {CONNECT, DISCONNECT}, lambda one: one.number(4)),
    21: ("authentication_method", {CONNECT}, _Fields.text),
    22: ("authentication_data", {CONNECT}, _Fields.binary),
    23: ("takes_user_properties", {CONNECT}, _flag),
    24: ("will_delay_s", {_WILL}, lambda one: one.number(4)),
    25: ("", {CONNECT}, _flag),
    31: ("", {PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT}, _Fields.text),
    33: ("receive_max", {CONNECT}, lambda one: one.positive(2)),
    34: ("", {CONNECT}, lambda one: one.number(2)),
    35: ("topic_alias", {PUBLISH}, lambda one: one.positive(2, Reason.TOPIC_ALIAS_INVALID)),
    38: ("", {*_MESSAGE, *range(1, 15)}, lambda one: (one.text(), one.text())),
    39: ("max_packet_bytes", {CONNECT}, lambda one: one.positive(4)),
}


# -- packets ---------------------------------------------------------------------------------------


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
        """
        buffer, at = self._buffer, self._at
        if at == len(buffer) and not self._chunks:
            return None
        if buffer[at : at + 2] == PLAIN_PUBACK and self.version and len(buffer) >= at + 4:
            self._at = at + 4
            return (buffer[at + 2] << 8 | buffer[at + 3]) or _refuse()
        if self.version and (plain := self._plain_publish()) is not None:
            return plain
        found = self._measured() or self._refilled()
        if found is None:
            return None
        start, body, end = found
        first = self._buffer[start]
        self._at = end
        fields = _Fields(self._buffer, body, end, self.version)
        if first >> 4 == PUBLISH:
            return _publish(fields, first)
        return self._other(fields, first >> 4, first & 15)

    def _plain_publish(self) -> Publish | None:
        """Return a PUBLISH without properties if that is next, in a third of the time of `_publish`.

        None: it is none, or not whole, or wrong.
        """
        buffer, start = self._buffer, self._at
        there, body = len(buffer), start + 3
        if there < start + 6 or buffer[start] & 0xF8 != 0x30:  # DUP is rare
            return None
        size = buffer[start + 1]
        if size >= 0x80:
            size += (buffer[start + 2] - 1) << 7
            if size < 0x80:  # 1.5.5-1
                return None
        else:
            body = start + 2
        end = body + size
        at = body + 2 + (buffer[body] << 8 | buffer[body + 1])
        qos, is_v5 = buffer[start] >> 1 & 3, self.version == V5
        payload_at = at + is_v5 + (2 if qos else 0)
        if not payload_at <= end <= there or size >> 14 or end - start > self._max_packet_bytes:
            return None
        raw, packet_id = buffer[body + 2 : at], buffer[at] << 8 | buffer[at + 1] if qos else 0
        if (is_v5 and buffer[payload_at - 1]) or b"\0" in raw or qos == 3 or packet_id < (qos > 0):
            return None
        try:
            topic = str(raw, "utf-8")
        except UnicodeDecodeError:
            return None
        self._at = end
        is_retained = buffer[start] & 1 == 1
        return Publish(topic, buffer[payload_at:end], qos, is_retained, packet_id=packet_id)

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
        if not self.version and buffer[at] >> 4 != CONNECT:
            _refuse()  # 3.1.0-1
        size, body = buffer[at + 1], at + 2
        if size >= 0x80:
            measured = _length(buffer, at + 1, there)
            if measured is None:
                self._needed = there - at + 1
                return None
            size, body = measured
        end = body + size
        if end - at > (self._max_packet_bytes if self.version else _MAX_CONNECT_BYTES):
            _refuse(Reason.PACKET_TOO_LARGE)
        self._needed = end - at
        return (at, body, end) if end <= there else None

    def _other(self, fields: _Fields, kind: int, flags: int) -> Packet:
        _check(flags == (2 if kind in {PUBREL, SUBSCRIBE, UNSUBSCRIBE} else 0))  # 2.1.3-1
        _check(kind in _READERS, Reason.PROTOCOL_ERROR)  # a server's, or AUTH (4.12.0-7)
        if kind == CONNECT:
            _check(not self.version, Reason.PROTOCOL_ERROR)  # 3.1.0-2
            level = fields.number(1) if fields.take(6) == b"\0\4MQTT" else 0
            self.version = fields.version = V311 if level == V311 else V5 if level >= V5 else 0
            _check(level in {V311, V5}, Reason.UNSUPPORTED_PROTOCOL_VERSION)
        packet = _READERS[kind](fields, kind)
        _check(fields.at == fields.end)
        return packet


def _publish(fields: _Fields, first: int) -> Publish:
    qos = first >> 1 & 3
    if qos == 3 or (not qos and first & 8):  # 3.3.1-4, 3.3.1-2
        _refuse(Reason.MALFORMED_PACKET)
    topic = fields.text()
    packet_id = fields.positive(2) if qos else 0
    found = fields.properties(PUBLISH)
    if "subscription_id" in found:  # 3.3.4-6
        _refuse()
    return Publish(topic, fields.rest(), qos, first & 1 == 1, packet_id=packet_id, **found)


def _connect(fields: _Fields, kind: int) -> Connect:
    flags = fields.number(1)
    has_will, qos = flags & 4, flags >> 3 & 3
    _check(not flags & 1 and qos < 3 and (has_will or not flags & 0x38))  # 3.1.2-3, 3.1.2-11 to -13
    _check(fields.version == V5 or flags & 0xC0 != 0x40)  # MQTT 3.1.1, 3.1.2-22
    keep_alive_s, found = fields.number(2), fields.properties(kind)
    _check(
        "authentication_method" in found or "authentication_data" not in found,
        Reason.PROTOCOL_ERROR,
    )
    client_id = fields.text()
    if has_will:
        of_will = fields.properties(_WILL)
        found["will_delay_s"] = of_will.pop("will_delay_s", 0)
        topic, payload = fields.text(), fields.binary()
        _check(is_topic_name(topic), Reason.TOPIC_NAME_INVALID)
        found["will"] = Publish(topic, payload, qos, flags & 0x20 > 0, **of_will)
    username = fields.text() if flags & 0x80 else None
    password = fields.binary() if flags & 0x40 else None
    return Connect(client_id, username, password, flags & 2 > 0, keep_alive_s, **found)


def _signal(fields: _Fields, kind: int) -> Signal:
    packet_id = fields.positive(2) if kind in range(PUBACK, PUBCOMP + 1) else 0
    if fields.version != V5 or fields.at == fields.end or kind == PINGREQ:
        return Signal(kind, packet_id)
    reason = fields.number(1)
    _check(reason in _REASONS[kind], Reason.PROTOCOL_ERROR)
    found = {} if fields.at == fields.end else fields.properties(kind)
    return Signal(kind, packet_id, reason, **found)


def _subscribe(fields: _Fields, kind: int) -> Subscribe:
    packet_id, found = fields.positive(2), fields.properties(kind)
    return Subscribe(packet_id, _filters(fields, _topic_filter), **found)


def _topic_filter(fields: _Fields) -> TopicFilter:
    pattern, options = fields.text(), fields.number(1)
    qos, handling = options & 3, options >> 4
    _check(not options & (0xC0 if fields.version == V5 else 0xFC))  # 3.8.3-5
    _check(qos < 3 and handling < 3, Reason.PROTOCOL_ERROR)
    return TopicFilter(pattern, qos, options & 4 > 0, options & 8 > 0, handling)


def _unsubscribe(fields: _Fields, kind: int) -> Unsubscribe:
    packet_id = fields.positive(2)
    fields.properties(kind)
    return Unsubscribe(packet_id, _filters(fields, _Fields.text))


def _filters(fields: _Fields, read: Callable[[_Fields], T]) -> list[T]:
    found: list[T] = []
    while fields.at < fields.end:
        found.append(read(fields))
        _check(len(found) <= _MAX_ITEMS, Reason.QUOTA_EXCEEDED)
    _check(found, Reason.PROTOCOL_ERROR)  # 3.8.3-2, 3.10.3-2
    return found


_READERS: dict[int, Callable[[_Fields, int], Packet]] = {
    CONNECT: _connect,
    SUBSCRIBE: _subscribe,
    UNSUBSCRIBE: _unsubscribe,
    **dict.fromkeys((PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ, DISCONNECT), _signal),
}
