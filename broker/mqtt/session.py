"""The client side of MQTT 5 as a pure state machine: bytes in, events and bytes out.

No I/O and no clock: the caller passes `now` in monotonic seconds, and writes what `take` returns.
One `Session` outlives its network connections, as an MQTT session does (section 4.1).
"""

import enum
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import mqtt5
from mqtt5 import ConnAckReasonCode, DisconnectReasonCode

from broker.mqtt.crowd import is_announced
from broker.mqtt.framing import PLAIN_PUBACK, PacketDecoder
from broker.mqtt.message import decode_publish, encode_will
from broker.mqtt.mqtt_errors import (
    ConnectionLost,
    ConnectRefused,
    MqttError,
    ProtocolError,
    ServerDisconnected,
    SessionTakenOver,
)
from broker.mqtt.outbound import Outbound, Publication, SendRefused
from broker.mqtt.reason_codes import REASON_OF, PubAckReasonCode
from broker.mqtt.session_events import (
    Accepted,
    Answered,
    Closed,
    Event,
    PublishReceived,
    SessionConfig,
    State,
    Subscribed,
)

_MAX_SILENCE_AFTER_PING_S = 10.0
_FAILURE = 0x80  # reason codes from here on (section 2.4)
_PUBLISHING = (State.SUBSCRIBING, State.ONLINE)  # a tuple compares by identity, without hashing


class Session:
    """One MQTT client session over any number of network connections."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._outbound = Outbound(config.window)
        self._asked: Sequence[str] = ()
        self._ends = False
        self.takes_crowds = False
        self._state = State.DISCONNECTED
        self._epoch = 0
        self._decoder = PacketDecoder(config.max_packet_bytes)
        self._out: list[bytes] = []
        # QoS 1 deliveries of this connection by packet id, in order of arrival: True for those that
        # the application has acknowledged before an earlier one.
        self._unacknowledged: OrderedDict[int, bool] = OrderedDict()
        self._keep_alive_s = float(config.keep_alive_s)
        self._heard_at = self._sent_at = 0.0
        self._pinged_at: float | None = None
        self._paused = False

    @property
    def state(self) -> State:
        """The state of the current network connection."""
        return self._state

    @property
    def waiting(self) -> int:
        """Publications that have no place in the window yet, without batches."""
        return self._outbound.waiting

    @property
    def in_flight(self) -> int:
        """QoS 1 publications sent on this connection and not yet acknowledged."""
        return self._outbound.in_flight

    @property
    def is_idle(self) -> bool:
        """Nothing is left to publish or to be acknowledged by the MQTT broker."""
        return self._outbound.is_empty

    @property
    def unacknowledged(self) -> int:
        """QoS 1 deliveries of this connection that the application has not all acknowledged."""
        return len(self._unacknowledged)

    # Life of a network connection

    def connect(self, now: float) -> None:
        """A network connection is open: send CONNECT."""
        config = self._config
        self._epoch += 1
        self._state = State.CONNECTING
        self._decoder = PacketDecoder(config.max_packet_bytes)
        self._heard_at = self._sent_at = now
        self._pinged_at = None
        self._paused = False
        packet = mqtt5.ConnectPacket(
            config.client_id,
            username=config.username,
            password=None if config.password is None else config.password.encode(),
            will=None if config.will is None else encode_will(config.will),
            keep_alive=config.keep_alive_s,
            session_expiry_interval=config.session_expiry_s,
            receive_max=config.receive_maximum,
            max_packet_size=config.max_packet_bytes,
        )
        self._out.append(packet.write())

    def disconnect(self) -> None:
        """Send DISCONNECT: the MQTT broker discards the last will (section 3.14.4)."""
        if self._state in _PUBLISHING:
            expiry_s = 0 if self._ends else None
            self._out.append(mqtt5.DisconnectPacket(session_expiry_interval=expiry_s).write())
        self._state = State.CLOSED

    def end_with_connection(self) -> None:
        """Have the MQTT broker delete this session at our DISCONNECT (section 3.14.2.2.2)."""
        self._ends = True

    def lost(self) -> None:
        """The network connection is lost, for any reason."""
        self._state = State.DISCONNECTED
        self._out.clear()
        self._unacknowledged.clear()
        self._outbound.disconnected()

    def abandon(self, error: MqttError) -> None:
        """No further connection will come: settle every publication with `error`."""
        self._outbound.abandon(error)

    # Bytes in and out

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Return the events in `data`. Never raises: a `Closed` event ends a broken connection."""
        events: list[Event] = []
        if self._state in {State.DISCONNECTED, State.CLOSED}:
            return events
        self._heard_at = now
        self._pinged_at = None
        try:
            for packet in self._decoder.packets(data):
                self._handle(packet, events)
                if self.state is State.CLOSED:
                    break
        except ProtocolError as error:
            self._out.append(mqtt5.DisconnectPacket(reason_code=error.reason).write())
            self._close(error, events)
        return events

    def take(self, now: float) -> bytes:
        """Return the bytes to write now, with publications as the window allows; b"" if none.

        After a non-empty result call it again, unless the transport has asked to pause.
        """
        if self._state in _PUBLISHING and not self._paused:
            self._outbound.refill(self._out)
        if not self._out:
            return b""
        self._sent_at = now
        data = b"".join(self._out)
        self._out.clear()
        return data

    def pause(self) -> None:
        """The transport's buffer is full: publications wait, acknowledgements and pings do not."""
        self._paused = True

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self._paused = False

    def take_refusals(self) -> list[SendRefused]:
        """Return publications that cannot be sent; they are settled already."""
        refusals, self._outbound.refusals = self._outbound.refusals, []
        return refusals

    # Publishing and acknowledging

    def publish(self, publication: Publication) -> None:
        """Queue one message before all batches."""
        self._outbound.add(publication)

    def publish_batch(self, publications: Iterator[Publication]) -> None:
        """Queue many messages, pulled from as the window allows."""
        self._outbound.add_batch(publications)

    def acknowledge(self, packet_id: int, epoch: int) -> None:
        """PUBACK a delivery; ignored if it came on an earlier network connection.

        PUBACKs go out in the order in which the messages came (section 4.6, MQTT-4.6.0-2), so one
        waits until those before it are acknowledged too.
        """
        current = epoch == self._epoch and self._state in _PUBLISHING
        if not current or packet_id not in self._unacknowledged:
            return
        self._unacknowledged[packet_id] = True
        while self._unacknowledged:
            head = next(iter(self._unacknowledged))
            if not self._unacknowledged[head]:
                return
            del self._unacknowledged[head]
            self._out.append(PLAIN_PUBACK + head.to_bytes(2, "big"))

    # Keep-alive

    def next_tick_at(self) -> float | None:
        """When `tick` wants to be called (monotonic seconds); None if keep-alive is off."""
        if not self._keep_alive_s:
            return None
        if self._pinged_at is not None:
            return self._pinged_at + self._patience_s
        return min(self._heard_at, self._sent_at) + self._keep_alive_s / 2

    def tick(self, now: float) -> list[Event]:
        """Ping when either direction was silent for half the keep-alive; later close the connection.

        Receiving counts as well as sending (section 3.1.2.10 asks for the latter only): a client
        that publishes without pause would otherwise never notice a dead server.
        """
        events: list[Event] = []
        due_at = self.next_tick_at()
        if self._state not in _PUBLISHING or due_at is None or now < due_at:
            return events
        if self._pinged_at is None:
            self._pinged_at = now
            self._out.append(mqtt5.PingReqPacket().write())
        else:
            error = ConnectionLost(f"no answer to a ping for {self._patience_s:g} s")
            self._close(error, events)
        return events

    @property
    def _patience_s(self) -> float:
        return min(self._keep_alive_s / 2, _MAX_SILENCE_AFTER_PING_S)

    # Packets

    def _handle(self, packet: mqtt5.Packet | int, events: list[Event]) -> None:
        if self._state is State.CONNECTING:
            self._handle_first(packet, events)
        elif isinstance(packet, int):
            self._outbound.acknowledged(packet, PubAckReasonCode.SUCCESS)
        elif isinstance(packet, mqtt5.PubAckPacket):
            reason = REASON_OF[packet.reason_code.value]
            self._outbound.acknowledged(packet.packet_id, reason, packet.user_properties)
        elif isinstance(packet, mqtt5.PublishPacket):
            events.append(self._received(packet))
        elif isinstance(packet, mqtt5.SubAckPacket):
            self._subscribed(packet, events)
        elif isinstance(packet, mqtt5.UnsubAckPacket):
            self._unsubscribed(packet, events)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self._close(_server_disconnected(packet), events)
        elif not isinstance(packet, mqtt5.PingRespPacket):
            raise _violation(f"{type(packet).__name__} is not for a client in this state")

    def _handle_first(self, packet: mqtt5.Packet | int, events: list[Event]) -> None:
        """CONNACK must come first, else the connection ends (section 3.2)."""
        if isinstance(packet, mqtt5.DisconnectPacket):
            self._close(_server_disconnected(packet), events)
        elif not isinstance(packet, mqtt5.ConnAckPacket):
            raise _violation(f"{type(packet).__name__} before CONNACK")
        elif packet.reason_code is not ConnAckReasonCode.SUCCESS:
            self._close(_refused(packet), events)
        else:
            self._accepted(packet, events)

    def _accepted(self, connack: mqtt5.ConnAckPacket, events: list[Event]) -> None:
        if connack.server_keep_alive is not None:  # section 3.2.2.3.14: the server's value counts
            self._keep_alive_s = float(connack.server_keep_alive)
        else:
            self._keep_alive_s = float(self._config.keep_alive_s)
        self._outbound.connected(connack)
        self.takes_crowds = is_announced(connack.user_properties)
        events.append(Accepted(connack.session_present))
        if self._config.subscriptions:
            self._state = State.SUBSCRIBING
            self._subscribe()
        else:
            self._state = State.ONLINE
            events.append(Subscribed())

    def _subscribe(self) -> None:
        """Subscribe, also to a session that is present: a repeat replaces itself (3.8.4)."""
        self.subscribe(self._config.subscriptions)

    def subscribe(self, patterns: Sequence[str]) -> None:
        """Request subscriptions, one request at a time; an `Answered` event follows when online."""
        max_qos = mqtt5.QoS(self._config.subscribe_qos)
        # Retain As Published (3.8.3.1): what devices publish retained must be cleared.
        filters = [
            mqtt5.TopicFilter(one, max_qos=max_qos, retain_as_published=True) for one in patterns
        ]
        self._out.append(mqtt5.SubscribePacket(self._reserved_for(patterns), filters).write())

    def unsubscribe(self, patterns: Sequence[str]) -> None:
        """End subscriptions, one request at a time; an `Answered` event follows."""
        packet = mqtt5.UnsubscribePacket(self._reserved_for(patterns), list(patterns))
        self._out.append(packet.write())

    def _reserved_for(self, patterns: Sequence[str]) -> int:
        self._asked = patterns
        self._outbound.reserved_id = 0
        self._outbound.reserved_id = self._outbound.next_id()
        return self._outbound.reserved_id

    def _subscribed(self, suback: mqtt5.SubAckPacket, events: list[Event]) -> None:
        # A lower QoS than requested would silently lose what must not be lost.
        codes = suback.reason_codes
        refused = self._refused_by(
            suback.packet_id, codes, [code.value == self._config.subscribe_qos for code in codes]
        )
        if self._state is not State.SUBSCRIBING:
            events.append(Answered(tuple(refused.values())))
        elif refused:
            self._out.append(mqtt5.DisconnectPacket().write())
            told = f"subscriptions refused: {', '.join(refused.values())}"
            self._close(ConnectRefused(told, filters=[*refused]), events)
        else:
            self._state = State.ONLINE
            events.append(Subscribed())

    def _unsubscribed(self, unsuback: mqtt5.UnsubAckPacket, events: list[Event]) -> None:
        codes = unsuback.reason_codes
        taken = [code.value < _FAILURE for code in codes]
        refused = self._refused_by(unsuback.packet_id, codes, taken)
        events.append(Answered(tuple(refused.values())))

    def _refused_by(
        self, packet_id: int, codes: Sequence[enum.Enum], taken: Sequence[bool]
    ) -> dict[str, str]:
        """Return which of the requested patterns are refused, and why in words."""
        if not packet_id or packet_id != self._outbound.reserved_id:
            raise _violation("an answer to a SUBSCRIBE or UNSUBSCRIBE that was not sent")
        if len(codes) != len(self._asked):
            raise _violation("another number of reason codes than of filters that were asked for")
        self._outbound.reserved_id = 0
        rows = zip(self._asked, codes, taken, strict=True)
        return {one: f"{_shown(one)} ({code.name})" for one, code, is_taken in rows if not is_taken}

    def _received(self, packet: mqtt5.PublishPacket) -> PublishReceived:
        if packet.topic_alias is not None:
            raise ProtocolError(DisconnectReasonCode.TOPIC_ALIAS_INVALID, "we allowed no aliases")
        packet_id = 0
        if packet.qos is mqtt5.QoS.AT_LEAST_ONCE:
            packet_id = packet.packet_id or 0
            if not packet_id:
                raise _violation("a packet id of 0 (section 2.2.1)")
            # More than our Receive Maximum may be in flight: Mosquitto 2.0.11 exceeds it when it
            # resumes a session, before it answers SUBSCRIBE. To disconnect, as section 4.9 allows,
            # made it do so again at each attempt, and intake never came back. There are only 65,535
            # packet ids.
            self._unacknowledged[packet_id] = False
        elif packet.qos is mqtt5.QoS.EXACTLY_ONCE:
            raise ProtocolError(DisconnectReasonCode.QOS_NOT_SUPPORTED, "QoS 2 was not asked for")
        return PublishReceived(decode_publish(packet), packet.duplicate, packet_id, self._epoch)

    def _close(self, error: MqttError, events: list[Event]) -> None:
        self._state = State.CLOSED
        events.append(Closed(error))


def _server_disconnected(packet: mqtt5.DisconnectPacket) -> ServerDisconnected:
    if packet.reason_code is DisconnectReasonCode.SESSION_TAKEN_OVER:
        return SessionTakenOver(packet.reason_code, packet.reason_str)
    return ServerDisconnected(packet.reason_code, packet.reason_str)


def _refused(connack: mqtt5.ConnAckPacket) -> ConnectRefused:
    text = f" ({connack.reason_str})" if connack.reason_str else ""
    name = connack.reason_code.name
    return ConnectRefused(f"the MQTT broker refused us: {name}{text}", connack.reason_code)


def _violation(text: str) -> ProtocolError:
    return ProtocolError(DisconnectReasonCode.PROTOCOL_ERROR, text)


def _shown(pattern: str) -> str:
    """Return a topic filter as a log shows it: the name of a share group may be a secret."""
    share, _, rest = pattern.partition("/")
    return f"$share/…/{rest.partition('/')[2]}" if share == "$share" else pattern
