"""Turns bytes, in chunks of any size, into packets in linear time."""

from collections.abc import Iterator

import mqtt5
from mqtt5 import DisconnectReasonCode

from broker.mqtt.mqtt_errors import ProtocolError

_MAX_HEADER_BYTES = 5
PLAIN_PUBACK = b"\x40\x02"  # success, without properties (section 3.4): most incoming packets


class PacketDecoder:
    """Cuts one network connection's bytes into packets.

    `mqtt5.read` signals an incomplete packet by IndexError and a malformed one by ValueError, but
    it says IndexError too when a complete packet's contents point beyond its end, and panics (a
    BaseException) on invalid UTF-8. Taking either for «wait for more» would hang forever.
    """

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes
        self._rest = bytearray()
        self._needed = 0

    def packets(self, data: bytes) -> Iterator[mqtt5.Packet | int]:
        """Yield every packet that `data` completes; of a plain PUBACK only the packet id.

        Raises:
            ProtocolError: after the packets before the offending one.
        """
        if self._rest:
            # Only parse once the packet can be complete, else a large packet that arrives in small
            # chunks would cost quadratic time.
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        view = memoryview(data)
        offset, end = 0, len(data)
        while offset < end:
            if data.startswith(PLAIN_PUBACK, offset) and offset + 4 <= end:
                yield data[offset + 2] << 8 | data[offset + 3]
                offset += 4
                continue
            found = self._read(view[offset:])
            if found is None:
                return
            yield found[0]
            offset += found[1]

    def _read(self, view: memoryview) -> tuple[mqtt5.Packet, int] | None:
        try:
            found = mqtt5.read(view)
        except IndexError:
            self._keep(view)
            return None
        except ValueError as error:
            raise _malformed(str(error)) from None
        except BaseException as error:
            # PyO3's PanicException cannot be imported and does not derive from Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise _malformed("a string is not UTF-8") from None
        if found[1] > self._max_packet_bytes:
            raise _too_large(found[1])
        return found

    def _keep(self, view: memoryview) -> None:
        size = _packet_size(view)
        if size is None:
            self._needed = len(view) + 1
        elif size > self._max_packet_bytes:
            raise _too_large(size)
        elif size <= len(view):
            raise _malformed("a field is longer than its packet")
        else:
            self._needed = size
        self._rest += view


def _packet_size(view: memoryview) -> int | None:
    """Fixed header plus remaining length (section 2.1.4), or None while that is incomplete."""
    remaining = 0
    for position, byte in enumerate(view[1:_MAX_HEADER_BYTES]):
        remaining |= (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            return 2 + position + remaining
    return None


def _malformed(text: str) -> ProtocolError:
    return ProtocolError(DisconnectReasonCode.MALFORMED_PACKET, text)


def _too_large(size: int) -> ProtocolError:
    return ProtocolError(DisconnectReasonCode.PACKET_TOO_LARGE, f"a packet of {size} bytes")
