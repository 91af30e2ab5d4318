"""Outbound messages: the queue, the window in flight, packet ids, and what a reconnect resends."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence

import msgspec
from mqtt5 import ConnAckPacket

from broker.mqtt.message import Message, encode_publish
from broker.mqtt.mqtt_errors import MqttError
from broker.mqtt.reason_codes import PubAckReasonCode

Outcome = PubAckReasonCode | MqttError
UserProperties = Sequence[tuple[str, str]]

MAX_PACKET_ID = 65_535
MAX_PACKET_BYTES = 268_435_455  # section 2.1.4
# One refill hands at most this much to the transport, so that a batch of QoS 0 (which no window
# bounds) still meets the transport's back-pressure.
_REFILL_BYTES = 66_000  # just above what uvloop begins to write at once


class Publication(msgspec.Struct, frozen=True):
    """A message on its way out; `settle` is called exactly once with its outcome.

    `note` gets the user properties of its PUBACK before that.
    """

    message: Message
    settle: Callable[[Outcome], None]
    note: Callable[[UserProperties], None] | None = None


class SendRefused(msgspec.Struct, frozen=True):
    """A message that this MQTT broker's limits, or MQTT itself, do not let us send."""

    topic: str
    reason: PubAckReasonCode
    why: str


class Outbound:
    """Everything that is to be published, in the order it is to be sent.

    A QoS 1 publication is in exactly one place: `_waiting` or a batch (no packet id yet),
    `_in_flight` (sent on this connection), or `_unsent` (sent on an earlier connection, keeps its
    packet id until resent). What is waiting goes before batches: an escalation must not queue
    behind a crowd.
    """

    def __init__(self, window: int) -> None:
        if not 0 < window < MAX_PACKET_ID:
            raise ValueError(f"a window holds 1 to {MAX_PACKET_ID - 1} messages, not {window}")
        self.refusals: list[SendRefused] = []
        self.reserved_id = 0
        self._own_window = self._window = window
        self._waiting: deque[Publication] = deque()
        self._batches: deque[Iterator[Publication]] = deque()
        self._in_flight: dict[int, Publication] = {}
        self._unsent: OrderedDict[int, Publication] = OrderedDict()
        self._batches_may_go = True
        self._last_id = 0
        self._max_packet_bytes = MAX_PACKET_BYTES
        self._max_qos = 1
        self._retain_available = True
        self._refuses_some = False

    @property
    def waiting(self) -> int:
        """Messages that have no place in the window yet, without batches."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """QoS 1 messages sent on this connection and not yet acknowledged."""
        return len(self._in_flight)

    @property
    def is_empty(self) -> bool:
        """Nothing is waiting, in flight or to be resent."""
        return not (self._in_flight or self._unsent or self._waiting or self._batches)

    def add(self, publication: Publication) -> None:
        """Queue one message; `refill` sends it."""
        self._waiting.append(publication)

    def add_batch(self, publications: Iterator[Publication]) -> None:
        """Queue a batch, pulled from as the window allows."""
        self._batches.append(publications)

    def next_id(self) -> int:
        """A packet id that nothing in flight holds (section 2.2.1)."""
        while True:
            self._last_id = self._last_id % MAX_PACKET_ID + 1
            taken = self._last_id in self._in_flight or self._last_id in self._unsent
            if not taken and self._last_id != self.reserved_id:
                return self._last_id

    def connected(self, connack: ConnAckPacket) -> None:
        """Adopt the server's limits; if it has no session, everything is sent again."""
        self._window = min(self._own_window, connack.receive_max)
        self._max_packet_bytes = connack.max_packet_size or MAX_PACKET_BYTES
        self._max_qos = connack.max_qos.value
        self._retain_available = connack.retain_available
        self._refuses_some = self._max_qos == 0 or not self._retain_available
        if not connack.session_present:
            self._waiting.extendleft(reversed(self._unsent.values()))
            self._unsent.clear()

    def disconnected(self) -> None:
        """Everything in flight will be resent; it is older than what is still unsent."""
        self._unsent = OrderedDict([*self._in_flight.items(), *self._unsent.items()])
        self._in_flight = {}

    def acknowledged(
        self, packet_id: int, reason: PubAckReasonCode, properties: UserProperties = ()
    ) -> None:
        """Handle a PUBACK with any reason code; one with an unknown packet id is ignored."""
        publication = self._in_flight.pop(packet_id, None) or self._unsent.pop(packet_id, None)
        if publication is not None:
            if publication.note is not None:
                publication.note(properties)
            publication.settle(reason)

    def refill(self, out: list[bytes]) -> bool:
        """Encode what the window allows into `out`; True if the size limit stopped it early."""
        size = self._resend(out)
        # Batches wait for half a window, so that a few large writes replace many small ones.
        self._batches_may_go = len(self._in_flight) <= self._window // 2
        while size < _REFILL_BYTES:
            publication = self._next()
            if publication is None:
                return False
            size += self._send(publication, out)
        return True

    def abandon(self, error: MqttError) -> None:
        """Settle everything with `error`: this connection will never send again."""
        batches, self._batches = self._batches, deque()
        left = [*self._in_flight.values(), *self._unsent.values(), *self._waiting]
        self._in_flight, self._unsent, self._waiting = {}, OrderedDict(), deque()
        for publication in left:
            publication.settle(error)
        for batch in batches:
            for publication in batch:
                publication.settle(error)

    def _next(self) -> Publication | None:
        """The next message that may be sent now. Only QoS 1 needs a place in the window."""
        room = len(self._in_flight) < self._window and not self._unsent
        if self._waiting:
            return self._waiting.popleft() if room or not self._waiting[0].message.qos else None
        while room and self._batches_may_go and self._batches:
            publication = next(self._batches[0], None)
            if publication is not None:
                return publication
            self._batches.popleft()
        return None

    def _resend(self, out: list[bytes]) -> int:
        """With DUP and the same packet id, and no more than the window (section 4.4)."""
        size = 0
        while self._unsent and len(self._in_flight) < self._window:
            packet_id, publication = self._unsent.popitem(last=False)
            size += self._send_as(publication, packet_id, out, duplicate=True)
        return size

    def _send(self, publication: Publication, out: list[bytes]) -> int:
        packet_id = self.next_id() if publication.message.qos else None
        return self._send_as(publication, packet_id, out, duplicate=False)

    def _send_as(
        self, publication: Publication, packet_id: int | None, out: list[bytes], *, duplicate: bool
    ) -> int:
        message = publication.message
        if self._refuses_some and (refused := self._refusal(message)):
            return self._refuse(publication, refused)
        if len(message.payload) > self._max_packet_bytes:  # the codec panics from 256 MiB on
            return self._refuse(publication, _too_large(message, self._max_packet_bytes))
        try:
            packet = encode_publish(message, packet_id, duplicate=duplicate)
        except (ValueError, OverflowError, IndexError) as error:
            return self._refuse(publication, _unsupported(message, str(error)))
        if len(packet) > self._max_packet_bytes:
            return self._refuse(publication, _too_large(message, self._max_packet_bytes))
        out.append(packet)
        if packet_id is None:
            publication.settle(PubAckReasonCode.SUCCESS)
        else:
            self._in_flight[packet_id] = publication
        return len(packet)

    def _refuse(self, publication: Publication, refused: SendRefused) -> int:
        self.refusals.append(refused)
        publication.settle(refused.reason)
        return 0

    def _refusal(self, message: Message) -> SendRefused | None:
        if message.qos > self._max_qos:
            return _unsupported(message, f"the MQTT broker takes QoS {self._max_qos} at most")
        if message.retain and not self._retain_available:
            return _unsupported(message, "the MQTT broker retains nothing")
        return None


def _unsupported(message: Message, why: str) -> SendRefused:
    return SendRefused(message.topic, PubAckReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, why)


def _too_large(message: Message, limit: int) -> SendRefused:
    why = f"the MQTT broker takes packets of {limit} bytes at most"
    return SendRefused(message.topic, PubAckReasonCode.QUOTA_EXCEEDED, why)
