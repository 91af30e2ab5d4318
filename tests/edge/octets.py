"""Packets as bytes, lawful or not, of both versions of MQTT."""

V311, V5 = 4, 5
CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 0x90, 0xB0, 0xD0, 0xE0
PINGREQ = b"\xc0\0"
GOODBYE = b"\xe0\0"
KEPT = b"\x11\0\0\0\x3c"  # a session expiry of 60 s

Frame = tuple[int, bytes]  # the first byte of a packet, and its body


def frame(first: int, *parts: bytes) -> bytes:
    """Return a packet with this first byte and this body."""
    body = b"".join(parts)
    return bytes([first]) + length(len(body)) + body


def length(number: int) -> bytes:
    """Return a variable byte integer."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def string(text: str | bytes) -> bytes:
    """Return a string or binary data, with its length."""
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(2, "big") + raw


def pair(name: str, value: str) -> bytes:
    """Return a user property."""
    return b"\x26" + string(name) + string(value)


def uint16(number: int) -> bytes:
    """Return a number of two bytes."""
    return number.to_bytes(2, "big")


def uint32(number: int) -> bytes:
    """Return a number of four bytes."""
    return number.to_bytes(4, "big")


def with_properties(version: int, properties: bytes) -> bytes:
    """Return properties with their length; in 3.1.1 there are none."""
    return length(len(properties)) + properties if version == V5 else b""


def connect(
    version: int,
    client_id: str | bytes = "c",
    *rest: bytes,
    flags: int = 2,
    keep_alive: int = 0,
    properties: bytes = b"",
) -> bytes:
    """Return a CONNECT; `rest` are the fields behind the client id."""
    return frame(
        0x10,
        string("MQTT"),
        bytes([version, flags]),
        uint16(keep_alive),
        with_properties(version, properties),
        string(client_id),
        *rest,
    )


def refusal(version: int, reason: int, return_code: int | None) -> list[Frame]:
    """Return the CONNACK of either version."""
    if version == V5:
        return [(CONNACK, bytes([0, reason, 0]))]
    return [] if return_code is None else [(CONNACK, bytes([0, return_code]))]


def keeping(version: int, client_id: str = "c", flags: int = 0, *rest: bytes) -> bytes:
    """Return a CONNECT of a session that is kept."""
    return connect(version, client_id, *rest, flags=flags, properties=KEPT)


def with_will(version: int, client_id: str = "c", flags: int = 0b110) -> bytes:
    """Return a CONNECT with a will on `gone`."""
    will = (with_properties(version, b""), string("gone"), string("!"))
    return connect(version, client_id, *will, flags=flags)


def publish(
    version: int,
    topic: str | bytes,
    payload: bytes = b"x",
    *,
    qos: int = 0,
    packet_id: int = 1,
    flags: int = 0,
    properties: bytes = b"",
) -> bytes:
    """Return a PUBLISH; `flags` are DUP (8) and RETAIN (1)."""
    return frame(
        PUBLISH | flags | qos << 1,
        string(topic),
        uint16(packet_id) if qos else b"",
        with_properties(version, properties),
        payload,
    )


def ack(kind: int, packet_id: int = 1, *rest: int) -> bytes:
    """Return a PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return frame(kind, uint16(packet_id), bytes(rest))


def subscribe(
    version: int,
    *filters: tuple[str | bytes, int],
    packet_id: int = 1,
    properties: bytes = b"",
    first: int = 0x82,
) -> bytes:
    """Return a SUBSCRIBE to filters with their options."""
    pairs = [string(pattern) + bytes([options]) for pattern, options in filters]
    return frame(first, uint16(packet_id), with_properties(version, properties), *pairs)


def unsubscribe(
    version: int, *filters: str | bytes, packet_id: int = 1, first: int = 0xA2
) -> bytes:
    """Return an UNSUBSCRIBE."""
    patterns = [string(pattern) for pattern in filters]
    return frame(first, uint16(packet_id), with_properties(version, b""), *patterns)


def frames(data: bytes) -> list[Frame]:
    """Cut what the MQTT broker has sent into packets."""
    found: list[Frame] = []
    at = 0
    while at < len(data):
        first, size, place = data[at], 0, 0
        while True:
            byte = data[at + 1 + place]
            size |= (byte & 0x7F) << (7 * place)
            place += 1
            if byte < 0x80:
                break
        body = at + 1 + place
        assert body + size <= len(data), "a packet is not whole"
        found.append((first, data[body : body + size]))
        at = body + size
    return found
