"""The packets that the MQTT broker sends, besides PUBLISH, in MQTT 5 and in 3.1.1."""

from collections.abc import Sequence

import mqtt5

from broker.edge import crowd
from broker.edge.limits import Limits
from broker.edge.packets import PUBREL, V5, variable_byte_integer
from broker.edge.reasons import Reason

PINGRESP = b"\xd0\0"
_FAILURE = 0x80
_RETURN_CODES = {  # of CONNACK in 3.1.1 (its table 3.1); there is none for other reasons (3.2.2-6)
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_ID_NOT_VALID: 2,
    Reason.QUOTA_EXCEEDED: 3,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
}
_OF_DISCONNECT = {Reason.KEEP_ALIVE_TIMEOUT, Reason.SESSION_TAKEN_OVER, Reason.MAX_CONNECT_TIME}


def connack(
    version: int,
    limits: Limits,
    *,
    is_present: bool,
    assigned_id: str | None,
    expiry_s: int | None,
    takes_crowds: bool,
) -> bytes:
    """Let a client in; `expiry_s` where it is not what the client asked for."""
    if version != V5:
        return bytes([0x20, 2, is_present, 0])
    return mqtt5.ConnAckPacket(
        session_present=is_present,
        assigned_client_id=assigned_id,
        session_expiry_interval=expiry_s,
        receive_max=limits.receive_maximum,
        max_packet_size=limits.max_packet_bytes,
        topic_alias_max=limits.topic_aliases,
        user_properties=list(crowd.ANNOUNCED) if takes_crowds else None,
    ).write()


def refused(version: int, reason: Reason) -> bytes:
    """Do not let a client in; it speaks 3.1.1 as long as it has not said what it speaks."""
    if version == V5:
        return bytes((0x20, 3, 0, Reason.SERVER_BUSY if reason in _OF_DISCONNECT else reason, 0))
    code = _RETURN_CODES.get(reason)
    return b"" if code is None else bytes((0x20, 2, 0, code))


def disconnect(version: int, reason: Reason) -> bytes:
    """End the connection; of 3.1.1 without a word."""
    return bytes([0xE0, 1, reason]) if version == V5 else b""


def ack(version: int, kind: int, packet_id: int, reason: Reason = Reason.SUCCESS) -> bytes:
    """Answer a PUBLISH, PUBREC or PUBREL; in 3.1.1 there is no reason code."""
    first = kind << 4 | (2 if kind == PUBREL else 0)  # 3.6.1-1
    if not reason or version != V5:
        return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))
    return bytes((first, 3, packet_id >> 8, packet_id & 0xFF, reason))


def crowd_ack(packet_id: int, differing: str) -> bytes:
    """Answer a PUBLISH to a crowd."""
    properties = [(crowd.OUTCOMES, differing)] if differing else None
    return mqtt5.PubAckPacket(packet_id, user_properties=properties).write()


def suback(version: int, packet_id: int, reasons: Sequence[int]) -> bytes:
    """Answer a SUBSCRIBE."""
    if version == V5:
        return _packet(0x90, packet_id, b"\0" + bytes(reasons))
    return _packet(0x90, packet_id, bytes(min(one, _FAILURE) for one in reasons))


def unsuback(version: int, packet_id: int, reasons: Sequence[int]) -> bytes:
    """Answer an UNSUBSCRIBE."""
    return _packet(0xB0, packet_id, b"\0" + bytes(reasons) if version == V5 else b"")


def _packet(first: int, packet_id: int, rest: bytes) -> bytes:
    length = variable_byte_integer(2 + len(rest))
    return bytes([first]) + length + packet_id.to_bytes(2, "big") + rest
