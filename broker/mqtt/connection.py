"""A connection to the MQTT broker that reconnects by itself: services publish and receive with it."""

# long: one connection over its life, what it publishes and what it receives

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Self

import structlog

from broker.mqtt.attempts import ATTEMPT_TIMEOUT_S, connect_first, reconnect
from broker.mqtt.backoff import full_jitter
from broker.mqtt.batch import Batch, settle_future
from broker.mqtt.connection_options import (
    DEFAULTS,
    EXTERNALS,
    NO_HOOKS,
    ConnectionExternals,
    ConnectionHooks,
    ConnectionOptions,
    session_of,
)
from broker.mqtt.endpoint import Endpoint
from broker.mqtt.message import Delivery, Message
from broker.mqtt.mqtt_errors import (
    ConnectionClosed,
    ConnectionLost,
    MqttError,
    Overloaded,
    SessionTakenOver,
    Unreachable,
)
from broker.mqtt.outbound import Publication
from broker.mqtt.reason_codes import PubAckReasonCode
from broker.mqtt.session_end import SessionEnd
from broker.mqtt.session_events import (
    Accepted,
    Answered,
    Closed,
    Event,
    PublishReceived,
    Subscribed,
)
from broker.mqtt.stats import ConnectionStats
from broker.mqtt.subscription_changes import SubscriptionChanges
from broker.mqtt.transport import SessionTransport
from broker.mqtt.unacknowledged import Inbox
from broker.redaction import wordless

_log = structlog.get_logger(__name__)

_CLOSE_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 3.0  # how long the MQTT broker has to read that a session ends
_STABLE_AFTER_S = 30.0
_SUSPICIOUS_ENDS = 5


class Connection:
    """One MQTT session, kept alive over broken networks and killed brokers.

    `async with` connects, subscribes, and from then on reconnects forever; what was published
    and not acknowledged is sent again, and its future resolves then. Iterate for deliveries, and
    acknowledge each once its effect is durable.

    Outcomes are PUBACK reason codes (section 3.4.2.1), 128 and above meaning failure. A message
    that the broker's limits forbid never leaves: QUOTA_EXCEEDED if it is too large, otherwise
    IMPLEMENTATION_SPECIFIC_ERROR, with the cause in the log.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        client_id: str,
        subscriptions: Sequence[str] = (),
        will: Message | None = None,
        options: ConnectionOptions = DEFAULTS,
        hooks: ConnectionHooks = NO_HOOKS,
        externals: ConnectionExternals = EXTERNALS,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._hooks = hooks
        self._externals = externals
        self._shown_as = options.shown_as or client_id
        self._session = session_of(
            endpoint, options, client_id=client_id, subscriptions=subscriptions, will=will
        )
        self._inbox = Inbox(options.max_queue)
        self._online = asyncio.Event()
        self._online_at = 0.0
        self._idle = asyncio.Event()
        self._wire: SessionTransport | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._changes = SubscriptionChanges(lambda: self._flush(0), self._online.is_set)
        self._session_end: SessionEnd | None = None
        self.is_held_back = False  # whether `before_reconnect` delays the connection
        self.session_present = False  # whether the MQTT broker had our session at the last connect
        self._ended: MqttError | None = None
        self._published = self._received = self._connects = 0

    # Life

    async def __aenter__(self) -> Self:
        """Connect and subscribe.

        Raises:
            Unreachable: no answer for `connect_timeout_s`, unless the options allow that at first.
            ConnectRefused: the MQTT broker refused, for a reason that does not pass.
        """
        wire: SessionTransport | None = None
        try:
            wire = await connect_first(
                self._connect, self._delays(), self._options.connect_timeout_s, self.where
            )
        except Unreachable:
            if self._options.must_connect:
                raise
        self._supervisor = asyncio.create_task(
            self._supervise(wire), name=f"mqtt connection {self._shown_as}"
        )
        self._supervisor.add_done_callback(self._supervisor_ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what is left (for `drain_timeout_s` at most), send DISCONNECT, close."""
        try:
            await self._drain()
        finally:
            await self._close()
            self._end(ConnectionClosed("the connection was closed by its owner"))

    @property
    def connected(self) -> bool:
        """Whether we are connected and subscribed."""
        return self._online.is_set()

    @property
    def heard(self) -> tuple[float, float] | None:
        """Since and until when the same server was heard (Unix s); None: not connected."""
        if self._wire is None or not self._online.is_set():
            return None
        return self._online_at, max(self._online_at, self._wire.heard_at)

    async def wait_connected(self) -> None:
        """Wait until connected and subscribed."""
        await self._online.wait()

    def stats(self) -> ConnectionStats:
        """Counters, for metrics."""
        return ConnectionStats(
            published=self._published,
            received=self._received,
            dropped_qos0=self._inbox.dropped_qos0,
            reconnects=max(0, self._connects - 1),
            waiting=self._session.waiting,
            in_flight=self._session.in_flight,
            inbox=len(self._inbox),
        )

    async def end_session(self, filters: Sequence[str], last: Message) -> None:
        """Unsubscribe, and wait until everything queued was received and acknowledged.

        Receiving goes on until then. The connection publishes `last` to itself and knows the end of
        the queue by its correlation data. The session ends when the owner closes the connection.

        Raises:
            MqttError: the connection broke: the session is as it was, or without subscriptions.
        """
        self._session_end = SessionEnd(self._session, last, lambda: self._flush(0), self._changes)
        await self._session_end.run(filters, self.publish)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions that the session has from before; what is queued by them still comes.

        Raises:
            MqttError: it was refused, or the connection broke: they may have ended or not.
        """
        await self._changes.ask(self._session.unsubscribe, filters)

    # Receiving

    async def receive(self, max_items: int) -> list[Delivery]:
        """Wait for at least one delivery, then return all that are queued, up to `max_items`.

        Raises:
            SessionTakenOver: another process uses our client id.
            ConnectionClosed: the owner left the `async with`.
        """
        return await self._inbox.take(max_items)

    async def messages(self) -> AsyncIterator[Delivery]:
        """Deliveries one by one, until the owner closes the connection."""
        while True:
            try:
                deliveries = await self._inbox.take(1)
            except ConnectionClosed:
                return
            yield deliveries[0]

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self.messages()

    # Publishing

    def publish_nowait(self, message: Message) -> asyncio.Future[PubAckReasonCode]:
        """Write `message` in this call if the window allows, else queue it.

        The future resolves on its PUBACK; for QoS 0, once it is written.

        Raises:
            Overloaded: `max_queue` messages are waiting already.
        """
        self._check_can_publish()
        future: asyncio.Future[PubAckReasonCode] = asyncio.get_running_loop().create_future()
        self._session.publish(Publication(message, partial(settle_future, future)))
        self._flush(1)
        return future

    async def publish(self, message: Message) -> PubAckReasonCode:
        """`publish_nowait`, awaited."""
        return await self.publish_nowait(message)

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        """Publish many messages through the window; outcomes in the order of `messages`.

        Not bounded by `max_queue`: a batch stays with its caller and is encoded as the window
        opens. Single messages published in the meantime go first. What has one payload for many
        topics is one packet, where the MQTT broker takes that.
        """
        self._check_can_publish()
        if not messages:
            return []
        batch = Batch(messages, takes_crowds=self._session.takes_crowds)
        self._session.publish_batch(batch.publications())
        self._flush(len(messages))
        return await batch.outcomes()

    def _check_can_publish(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._session.waiting >= self._options.max_queue:
            raise Overloaded(f"{self._session.waiting} messages are waiting to be sent")

    def _flush(self, published: int) -> None:
        self._published += published
        if self._wire is not None:
            self._wire.flush()

    # Connecting

    async def _connect(self, timeout_s: float) -> SessionTransport:
        """One attempt, until subscribed."""
        timeout_s = min(timeout_s, ATTEMPT_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        wire = SessionTransport(self._session, loop, self._handle, self._externals.wall_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self._externals.open_network(self._endpoint, wire)
                self._wire = wire
                await wire.ready
        except BaseException:
            self._wire = None
            wire.abort(ConnectionLost("gave up connecting"))
            raise
        return wire

    async def _connect_again(self, timeout_s: float) -> SessionTransport:
        if self._hooks.before_reconnect is not None:
            self.is_held_back = True
            await self._hooks.before_reconnect()
            self.is_held_back = False
        try:
            return await self._connect(timeout_s)
        except SessionTakenOver as error:
            if self._is_final(error):
                raise
            raise ConnectionLost(str(error)) from error

    def _is_final(self, error: MqttError) -> bool:
        """Whether not to reconnect; whose `before_reconnect` waits for it may take its session back."""
        is_fight = isinstance(error, SessionTakenOver) and self._hooks.before_reconnect is None
        return is_fight or not self._options.reconnects

    async def _supervise(self, wire: SessionTransport | None) -> None:
        """Reconnect forever, unless another client is known to use our client id.

        Mosquitto 2.0.11 does not tell a client that its session was taken over (section 3.14.2.1).
        So the delays grow for a connection that keeps breaking early, and the log names
        the suspicion.
        """
        loop = asyncio.get_running_loop()
        delays, early_ends = self._delays(), 0
        wire = wire or await reconnect(self._connect_again, delays, self._shown_as)
        while True:
            online_at = loop.time()
            error = await asyncio.shield(wire.closed)
            self._wire = None
            if self._is_final(error):
                raise error
            early_ends += 1
            if loop.time() - online_at > _STABLE_AFTER_S:
                delays, early_ends = self._delays(), 0
            self._log_loss(error, early_ends)
            wire = await reconnect(self._connect_again, delays, self._shown_as)
            _log.info("mqtt connection is back", client_id=self._shown_as, at=self.where)

    def _delays(self) -> Iterator[float]:
        return full_jitter(self._externals.dice)

    def _log_loss(self, error: MqttError, early_ends: int) -> None:
        log = _log.bind(client_id=self._shown_as, at=self.where, why=str(error))
        if early_ends < _SUSPICIOUS_ENDS:
            log.warning("mqtt connection lost")
        else:
            log.error("mqtt connection keeps breaking; is the client id in use twice?")

    @property
    def where(self) -> str:
        """Host and port of the MQTT broker."""
        return f"{self._endpoint.host}:{self._endpoint.port}"

    # Closing

    async def _drain(self) -> None:
        """Wait for a bounded time until what is queued and in flight is acknowledged."""
        if not self._options.must_connect and not self.connected:
            return  # one of several brokers, and lost
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_timeout_s):
                while self._ended is None and not self._session.is_idle:
                    self._idle.clear()
                    await self._idle.wait()

    async def _close(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.disconnect()
            if self._session_end is None:  # else the MQTT broker closes, when the session has ended
                wire.close()
            timeout_s = _END_TIMEOUT_S if self._session_end else _CLOSE_TIMEOUT_S
            await asyncio.wait([wire.closed], timeout=timeout_s)
            wire.abort(ConnectionClosed("closed"))

    def _supervisor_ended(self, supervisor: asyncio.Task[None]) -> None:
        error = None if supervisor.cancelled() else supervisor.exception()
        if error is not None:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """Nothing more is sent or received: pending calls get `error`."""
        if self._ended is None:
            if self._options.reconnects and not isinstance(error, ConnectionClosed):
                _log.error(
                    "mqtt connection failed", client_id=self._shown_as, exc_info=wordless(error)
                )
            if not isinstance(error, MqttError):
                error = ConnectionClosed(f"failed inside: {error!r}")
            self._ended = error
            self._inbox.close(error)
            self._session.abandon(error)
            self._idle.set()

    # Events

    def _handle(self, events: list[Event]) -> None:
        if self._session.is_idle:
            self._idle.set()
        received_at = self._externals.monotonic_s()
        for event in events:
            if isinstance(event, PublishReceived):
                if self._session_end is not None and self._session_end.is_ours(event):
                    continue
                self._received += 1
                origin = (event.duplicate, event.packet_id, event.epoch)
                self._inbox.put(Delivery(event.message, received_at, *origin, self._acknowledge))
            else:
                self._handle_change(event)

    def _handle_change(self, event: Accepted | Subscribed | Answered | Closed) -> None:
        if isinstance(event, Subscribed):
            self._connects += 1
            self._online_at = self._externals.wall_s()
            self._online.set()
            if self._hooks.on_connect is not None:
                asyncio.get_running_loop().call_soon(self._hooks.on_connect)
        elif isinstance(event, Closed):
            self._online.clear()
            self._changes.lost(event.error)
            if self._session_end is not None:
                self._session_end.lost(event.error)
            if self._hooks.on_lost is not None:
                self._hooks.on_lost()
        elif isinstance(event, Answered):
            self._changes.answered(event)
        else:
            self.session_present = event.session_present
            if event.session_present:
                self._inbox.forget_unacknowledged()

    def _acknowledge(self, packet_id: int, epoch: int) -> None:
        self._session.acknowledge(packet_id, epoch)
        if self._session_end is not None:
            self._session_end.look()
        if self._wire is not None:
            self._wire.flush_soon()
