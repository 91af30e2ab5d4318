"""A worker's connection to a modelled MQTT broker, as `broker.mqtt.Connection` behaves."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self, cast

from mqtt5 import DisconnectReasonCode

from broker.mqtt import (
    ConnectionClosed,
    ConnectionHooks,
    ConnectionLost,
    ConnectionOptions,
    ConnectionStats,
    Delivery,
    Message,
    MqttError,
    PubAckReasonCode,
    SessionTakenOver,
    Unreachable,
)
from broker.mqtt.session import Session
from broker.mqtt.session_end import SessionEnd
from broker.mqtt.session_events import Answered, PublishReceived
from broker.mqtt.subscription_changes import SubscriptionChanges
from broker.mqtt.unacknowledged import Inbox
from schemas import topics
from verify.simulation.mqtt_model import DOWN, UP, Client, MqttBroker, Outcome
from verify.simulation.process import Process

_PROBES = topics.PROBE.filter().partition("+")[0]


class ModelConnection(Client):
    """One MQTT session of a process; it fulfils `broker.mqtt.MqttConnection`."""

    # long: as `broker.mqtt.Connection`, and where it is
    def __init__(
        self,
        broker: MqttBroker,
        process: Process,
        *,
        client_id: str,
        subscriptions: Sequence[str],
        will: Message | None,
        options: ConnectionOptions,
        hooks: ConnectionHooks,
    ) -> None:
        super().__init__(
            broker,
            process.rng,
            client_id,
            filters=subscriptions,
            on_message=self._take,
            on_online=self._stands,
        )
        self.will = will
        self.clean_start = options.clean_start
        self.keeps_session = options.session_expiry_s > 0
        self.is_held_back = False
        self._process = process
        self._options = options
        self._hooks = hooks
        self._inbox = Inbox(options.max_queue)
        self._standing = asyncio.Event()
        self._idle = asyncio.Event()
        self._ended: MqttError | None = None
        self._session = _SessionOf(self, broker)
        self._changes = SubscriptionChanges(lambda: None, lambda: self.online)
        self._session_end: SessionEnd | None = None
        self._published = self._received = self._connects = 0

    # -- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, for as long as the options allow."""
        self.start()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._standing.wait()
        except TimeoutError:
            if self._options.must_connect:
                self._end(Unreachable("nobody answers"))
                raise Unreachable("nobody answers") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what is left, say goodbye."""
        if not self._dead:
            await self._drain()
            if self._link is not None:
                self._broker.leave(self, self._link)
        self._end(ConnectionClosed("the connection was closed by its owner"))

    async def _drain(self) -> None:
        if self._ended or not (self._options.must_connect or self.online):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_timeout_s):
                while self._unsettled and self._ended is None:
                    self._idle.clear()
                    await self._idle.wait()

    def die(self) -> None:
        """The process is gone: it says nothing more and hears nothing more."""
        super().die()
        for _, outcome in self._unsettled.values():
            outcome.cancel()

    def cut(self) -> None:
        """The network connection breaks."""
        was_online, reconnects = self.online, self._options.reconnects
        if not reconnects:
            self._dead = True  # the first loss is the end
        super().cut()
        self._standing.clear()
        if was_online:
            error = ConnectionLost("the connection broke")
            self._changes.lost(error)
            if self._session_end is not None:
                self._session_end.lost(error)
            if self._hooks.on_lost is not None:
                self._hooks.on_lost()
        if not reconnects:
            self._end(ConnectionLost("the connection broke"))

    def taken_over(self) -> None:
        """Another client has our id: to go on would be a fight without end."""
        error = SessionTakenOver(DisconnectReasonCode.SESSION_TAKEN_OVER)
        if self._session_end is not None:
            self._session_end.lost(error)
        self._end(error)

    def _end(self, error: MqttError) -> None:
        if self._ended is not None:
            return
        self._ended = error
        self._dead = True
        self.cut()
        self._inbox.close(error)
        for _, outcome in self._unsettled.values():
            if not outcome.done():
                outcome.set_exception(error)
                outcome.exception()  # retrieved: nobody need be waiting for it
        self._idle.set()

    def _again(self) -> None:
        if self._hooks.before_reconnect is None or self._dead:
            self.start()
        else:
            self._loop.create_task(self._start_when_allowed(), name=f"{self.name} is held back")

    async def _start_when_allowed(self) -> None:
        assert self._hooks.before_reconnect is not None
        self.is_held_back = True
        await self._hooks.before_reconnect()
        self.is_held_back = False
        self.start()

    def _stands(self) -> None:
        self._connects += 1
        if self.session_present:
            self._inbox.forget_unacknowledged()
        self._standing.set()
        if self._hooks.on_connect is not None:
            self._hooks.on_connect()

    @property
    def connected(self) -> bool:
        """Whether it is connected and subscribed."""
        return self.online

    @property
    def where(self) -> str:
        """Where the MQTT broker is."""
        return "the simulated city"

    def stats(self) -> ConnectionStats:
        """Counters."""
        return ConnectionStats(
            published=self._published,
            received=self._received,
            dropped_qos0=0,
            reconnects=max(0, self._connects - 1),
            waiting=0,
            in_flight=len(self._unsettled),
            inbox=len(self._inbox),
        )

    # -- publishing -------------------------------------------------------------------------------

    def publish_nowait(self, message: Message) -> Outcome:
        """Publish; the future resolves with the PUBACK."""
        if self._ended is not None:
            raise self._ended
        self._published += 1
        return super().publish_nowait(message)

    async def publish_batch(self, messages: Sequence[Message]) -> list[PubAckReasonCode]:
        """Publish many."""
        return [await outcome for outcome in [self.publish_nowait(one) for one in messages]]

    def _settle(self, number: int, reason: PubAckReasonCode) -> None:
        super()._settle(number, reason)
        if not self._unsettled:
            self._idle.set()

    # -- receiving --------------------------------------------------------------------------------

    async def receive(self, max_items: int) -> list[Delivery]:
        """Wait for one delivery at least, then return all that is queued, up to `max_items`."""
        return await self._inbox.take(max_items)

    def _take(self, message: Message, number: int, epoch: int) -> None:
        if self._session_end is not None:
            event = PublishReceived(message, duplicate=False, packet_id=number, epoch=epoch)
            if self._session_end.is_ours(event):
                return
        self._received += 1
        now = self._loop.time()
        self._inbox.put(Delivery(message, now, False, number, epoch, self._acknowledge))  # noqa: FBT003
        if message.topic.startswith(_PROBES):
            self._broker.exercised.take(message.topic, message.payload)
        else:
            self._process.on_take()

    def _acknowledge(self, number: int, epoch: int) -> None:
        self.acknowledge(number, epoch)
        if self._session_end is not None:
            self._session_end.look()

    # -- subscriptions, and the end of a session --------------------------------------------------

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions, until the next connection."""
        await self._changes.ask(self._session.unsubscribe, filters)

    async def end_session(self, filters: Sequence[str], last: Message) -> None:
        """Unsubscribe, and wait until all that is queued was taken and acknowledged."""
        session = cast("Session", self._session)
        self._session_end = SessionEnd(session, last, lambda: None, self._changes)
        if not self.online:
            raise ConnectionLost("not connected")
        await self._session_end.run(filters, self.publish)

    def change(self, request: Callable[[], None]) -> None:
        """Ask for a change of subscriptions."""
        link = self._link
        assert link is not None

        def arrive() -> None:
            request()
            link.send(DOWN, lambda: self._changes.answered(Answered(())))

        link.send(UP, arrive)


class _SessionOf:
    """What the end of a session needs of `broker.mqtt.session.Session`, by a connection."""

    def __init__(self, connection: ModelConnection, broker: MqttBroker) -> None:
        self._connection = connection
        self._broker = broker

    def subscribe(self, patterns: Sequence[str]) -> None:
        """Ask for subscriptions."""
        self._connection.change(lambda: self._broker.subscribe(self._connection, patterns))

    def unsubscribe(self, patterns: Sequence[str]) -> None:
        """End subscriptions."""
        self._connection.change(lambda: self._broker.unsubscribe(self._connection, patterns))

    def acknowledge(self, number: int, epoch: int) -> None:
        """Send the PUBACK of a delivery."""
        self._connection.acknowledge(number, epoch)

    @property
    def unacknowledged(self) -> int:
        """Deliveries that are not all acknowledged."""
        return self._connection.unacknowledged

    def end_with_connection(self) -> None:
        """Have the MQTT broker forget this session when the client says goodbye."""
        self._connection.keeps_session = False
