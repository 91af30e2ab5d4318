"""One network connection: bytes that come and go, and answers that wait for the journal."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from broker.edge import answers
from broker.edge.accounts import Account
from broker.edge.limits import Limits
from broker.edge.packets import (
    PLAIN_PUBACK,
    PUBREL,
    V5,
    BadPacketError,
    Connect,
    Packet,
    PacketReader,
)
from broker.edge.reasons import Reason
from broker.edge.recorder import Recorder
from broker.edge.session import Delivery, Session

_SMALL_BYTES = 256
_BYTE = [bytes([number]) for number in range(256)]


class Owner(Protocol):
    """What a connection tells its MQTT broker."""

    limits: Limits
    recorder: Recorder
    now: Callable[[], float]

    def handle(self, connection: "Connection", packet: Packet) -> None:
        """A packet has come."""

    def mark(self, connection: "Connection") -> None:
        """This connection has something to write, or is over."""

    def hold(self, connection: "Connection") -> None:
        """An answer of it waits for the journal."""

    def disconnected(self, connection: "Connection") -> None:
        """The network connection is over."""


class Connection:
    """A client's network connection, from its first byte to its last."""

    def __init__(self, owner: Owner) -> None:
        self.session: Session | None = None
        self.is_closed = False  # nothing is read any more; what is to be written, is
        self.opened_at = self.heard_at = owner.now()
        self.paused_until = 0.0
        self.keep_alive_s = 0
        self.is_connecting = False  # CONNECT has come, CONNACK has not gone yet
        self.window = owner.limits.window_v311
        self.max_packet_bytes = 0  # that the client takes; 0: any
        self.takes_user_properties = False  # also in PUBACK (3.1.2-29)
        self.max_unanswered = owner.limits.receive_maximum
        self.unanswered = 0  # messages of the client whose acknowledgement waits for the journal
        self.aliases: dict[int, str] = {}
        self._owner = owner
        self._reader = PacketReader(owner.limits.max_packet_bytes)
        self._out: list[bytes] = []
        self.is_stopped = False  # the last turn has left packets
        self.has_room = True  # for more messages; else nothing is read either
        self._unwritten = 0
        self._unwritten_bytes = owner.limits.unwritten_bytes
        self._held: deque[tuple[int, bytes, bool]] = deque()

    @property
    def version(self) -> int:
        """The version of MQTT that the client speaks; 0 until it says."""
        return self._reader.version

    @property
    def account(self) -> Account | None:
        """Whose client it is, once that is known."""
        return None if self.session is None else self.session.account

    # -- reading ----------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes have come; `turn` reads them."""
        if not self.is_closed:
            self.heard_at = self._owner.now()
            self._reader.feed(data)

    def feed_puback(self, data: bytes) -> bool:
        """Handle four bytes that are a PUBACK, as most are, without a turn; False: they are not."""
        session = self.session
        if session is None or self.is_stopped or data[:2] != PLAIN_PUBACK or self.unread:
            return False
        packet_id = data[2] << 8 | data[3]
        if self.is_closed or session.qos_of(packet_id) != 1:
            return False
        self.heard_at = self._owner.now()
        session.acknowledged(packet_id)
        return True

    @property
    def unread(self) -> int:
        """Bytes that have come and are not read yet."""
        return self._reader.unread

    def turn(self, packets: int) -> int:
        """Handle so many packets at most; return how many there were."""
        next_packet, handle = self._reader.next, self._owner.handle
        paused_until = self.paused_until
        self.is_stopped = True
        if paused_until > self._owner.now():
            return 0
        for handled in range(packets):
            if self.is_closed or not self.has_room or self.paused_until > paused_until:
                return handled
            if self.unanswered >= self.max_unanswered and self.version != V5:
                return handled  # a client of 3.1.1 does not know Receive Maximum
            try:
                packet = next_packet()
                if packet is None:
                    self.is_stopped = False
                    return handled
                handle(self, packet)
            except BadPacketError as error:
                self.close(error.reason)
        return packets

    def introduce(self, connect: Connect) -> None:
        """The client has said who it is: nothing is read or sent any more before CONNACK."""
        self.keep_alive_s = connect.keep_alive_s
        self.is_connecting, self.has_room = True, False
        if self.version == V5:
            self.window = connect.receive_max
            self.max_packet_bytes = connect.max_packet_bytes
            is_small = 0 < self.max_packet_bytes < _SMALL_BYTES  # 3.2.2-20
            self.takes_user_properties = connect.takes_user_properties and not is_small

    # -- writing ----------------------------------------------------------------------------------

    def take(self) -> bytes:
        """Return what is to be written now."""
        data = b"".join(self._out)
        self._out.clear()
        self._unwritten = 0
        return data

    def write(self, data: bytes) -> None:
        """Write an answer that promises nothing."""
        if 0 < self.max_packet_bytes < len(data):  # 3.1.2-24: it cannot be said
            self.lost()
            return
        self.is_connecting = False  # the first answer is CONNACK (3.2.0-1)
        if not self._out:
            self._owner.mark(self)
        self._out.append(data)

    def answer(self, data: bytes, *, waits: bool, is_ack: bool = False) -> None:
        """Write an answer, in order, and not before the journal has what it promises."""
        if not waits and not self._held:
            self.write(data)
            return
        recorder = self._owner.recorder
        batch = recorder.awaited if waits else 0
        if self._held:
            batch = max(batch, self._held[-1][0])
        if batch <= recorder.committed:
            self.write(data)
            return
        self._held.append((batch, data, is_ack))
        self.unanswered += is_ack
        self._owner.hold(self)

    def committed(self, batch: int) -> bool:
        """The journal has this batch and all before it; return whether no answer waits any more."""
        while self._held and self._held[0][0] <= batch:
            _, data, is_ack = self._held.popleft()
            self.unanswered -= is_ack
            self.write(data)
        return not self._held

    def congested(self) -> None:
        """The transport's buffer is full: messages wait, answers do not."""
        self.has_room = False

    def drained(self) -> None:
        """The transport takes more."""
        if not self.has_room and not self.is_connecting:
            self.has_room = True
            if self.session is not None and not self.is_closed:
                self.session.pump()

    def send(self, delivery: Delivery, packet_id: int) -> bool:
        """Send a PUBLISH; False if it is larger than the client takes."""
        qos = delivery.qos
        before, after = delivery.message.form(
            self._reader.version, qos, delivery.identifiers, self._owner.now
        )
        size = 1 + len(before) + len(after) + (2 if qos else 0)
        if self.max_packet_bytes and size > self.max_packet_bytes:
            return False
        first = 0x30 | qos << 1 | delivery.retain | (8 if delivery.was_sent and qos else 0)
        parts = (_BYTE[first], before, packet_id.to_bytes(2, "big") if qos else b"", after)
        if qos == 2 and self._is_kept:  # what the client might get twice has to be known
            self.answer(b"".join(parts), waits=True)
            return True
        if not self._out:
            self._owner.mark(self)
        self._out += parts
        self._unwritten += size
        if self._unwritten >= self._unwritten_bytes:
            self.has_room = False
        return True

    def release(self, packet_id: int) -> None:
        """Send a PUBREL."""
        self.answer(answers.ack(self.version, PUBREL, packet_id), waits=self._is_kept)

    @property
    def _is_kept(self) -> bool:
        return self.session is not None and self.session.is_kept

    # -- the end ----------------------------------------------------------------------------------

    def close(self, reason: Reason) -> None:
        """End the connection, for this reason."""
        if self.is_closed:
            return
        is_in = self.session is not None and not self.is_connecting  # 3.14.0-1
        self.write((answers.disconnect if is_in else answers.refused)(self.version, reason))
        self.lost()

    def lost(self) -> None:
        """The network connection is lost, or the client has said goodbye."""
        if self.is_closed:
            return
        self.is_closed = True
        self._held.clear()
        self._owner.disconnected(self)
