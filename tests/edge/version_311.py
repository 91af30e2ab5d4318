"""Packets of MQTT 3.1.1 by way of the codec, which speaks MQTT 5: cuts out the properties, or adds none.

The MQTT broker has such a translation of its own, the other way round (`broker/edge/packets.py`).
"""

import struct

_CONNECT, _PUBLISH, _SUBSCRIBE, _UNSUBSCRIBE, _DISCONNECT = 1, 3, 8, 10, 14
_CONNACK, _SUBACK, _UNSUBACK = 2, 9, 11


def downgraded(packet: bytes) -> bytes:
    """Return the 3.1.1 packet that says the same as this one of a client, which has no properties."""
    body_at, _ = _body(packet, 0)
    kind, body = packet[0] >> 4, packet[body_at:]
    if kind == _CONNECT:
        has_will = body[7] & 4
        rest = body[11:]
        if has_will:
            client_id_ends = 2 + _uint16(rest)
            rest = _without(rest, client_id_ends)
        body = body[:6] + b"\4" + body[7:10] + rest
    elif kind == _PUBLISH:
        body = _without(body, _publish_properties_at(packet[0], body))
    elif kind in {_SUBSCRIBE, _UNSUBSCRIBE}:
        body = _without(body, 2)
    elif kind == _DISCONNECT:
        body = b""
    return _packet(packet[0], body)


def next_packet(data: bytes) -> bytes | None:
    """Return the first packet of these bytes, if it is whole."""
    if len(data) < 2:
        return None
    body_at, size = _body(data, 0)
    return data[: body_at + size] if len(data) >= body_at + size else None


def upgraded(packet: bytes) -> bytes:
    """Return the MQTT 5 packet that says the same as this one of a server."""
    body_at, _ = _body(packet, 0)
    kind, body = packet[0] >> 4, packet[body_at:]
    if kind == _CONNACK:
        body += b"\0"
    elif kind in {_SUBACK, _UNSUBACK}:
        body = body[:2] + b"\0" + body[2:]
    elif kind == _PUBLISH:
        at = _publish_properties_at(packet[0], body)
        body = body[:at] + b"\0" + body[at:]
    return _packet(packet[0], body)


def _publish_properties_at(first: int, body: bytes) -> int:
    return 2 + _uint16(body) + (2 if first & 6 else 0)


def _without(body: bytes, at: int) -> bytes:
    assert body[at] == 0, "3.1.1 has no properties"
    return body[:at] + body[at + 1 :]


def _uint16(data: bytes) -> int:
    (number,) = struct.unpack_from(">H", data)
    return int(number)


def _body(data: bytes, at: int) -> tuple[int, int]:
    """Return where the body begins, and its size as far as it is known."""
    size = 0
    for place in range(1, 5):
        if at + place >= len(data):
            return at + place, len(data)
        byte = data[at + place]
        size |= (byte & 0x7F) << (7 * (place - 1))
        if byte < 0x80:
            break
    return at + place + 1, size


def _packet(first: int, body: bytes) -> bytes:
    found, size = bytearray([first]), len(body)
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*found, size]) + body
