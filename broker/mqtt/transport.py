"""One network connection: an asyncio transport under a `Session`, and its timers.

`asyncio.Protocol` rather than streams: bytes are handled in the call that brings them, which saves
a task switch per packet.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import structlog

from broker.mqtt.mqtt_errors import ConnectionLost, MqttError
from broker.mqtt.session import Session
from broker.mqtt.session_events import Closed, Event, Subscribed
from schemas.topics import template_of

_CLOSE_TIMEOUT_S = 1.0

_log = structlog.get_logger(__name__)


class SessionTransport(asyncio.Protocol):
    """Feeds `session` with bytes, writes its output, and passes its events on.

    `ready` resolves when subscribed (or fails with why not), `closed` resolves with the reason when
    the network connection is lost.
    """

    def __init__(
        self,
        session: Session,
        loop: asyncio.AbstractEventLoop,
        on_events: Callable[[list[Event]], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._session = session
        self._loop = loop
        self._on_events = on_events
        self._wall_s = wall_s
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        self._error: MqttError | None = None
        self.heard_at = 0.0  # when the last bytes came (Unix s)
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[MqttError] = loop.create_future()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT. Without TCP_NODELAY Nagle meets delayed ACK: 44 ms instead of 68 µs."""
        if self.closed.done():
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._session.connect(self._loop.time())
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Refill the window before anything else, then let the events be handled."""
        if self.closed.done():
            return
        self.heard_at = self._wall_s()
        events = self._session.receive(data, self._loop.time())
        self.flush()
        self._dispatch(events)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._session.pause()

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        if not self.closed.done():
            self._session.resume()
            self.flush()
            self._on_events([])

    def connection_lost(self, exc: Exception | None) -> None:
        """Resolve both futures, once."""
        self._finish(ConnectionLost(f"the connection broke: {exc or 'end of file'}"))

    # For the owner

    def flush(self) -> None:
        """Write all that the session may send now, in as few writes as possible."""
        self._flush_scheduled = False
        if self._transport is None:
            return
        while data := self._session.take(self._loop.time()):
            self._transport.write(data)
        for refused in self._session.take_refusals():
            _log.error(
                "publish refused here",
                topic=template_of(refused.topic),
                reason=refused.reason.name,
                why=refused.why,
            )

    def flush_soon(self) -> None:
        """Write at the end of this turn of the loop, together with what else comes up in it."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def disconnect(self) -> None:
        """Send DISCONNECT; the MQTT broker closes the connection when it has read it."""
        if self._transport is None:
            return
        self.flush()
        self._session.disconnect()
        self.flush()

    def close(self) -> None:
        """Close once all is written, without waiting for the MQTT broker."""
        if self._transport is not None:
            self._transport.close()

    def abort(self, error: MqttError) -> None:
        """Drop the connection at once, without DISCONNECT."""
        transport = self._transport
        self._finish(error)
        if transport is not None:
            transport.abort()

    # Inside

    def _finish(self, error: MqttError) -> None:
        """Release the session for another connection."""
        if self.closed.done():
            return
        error = self._error or error
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport = None
            self._session.lost()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # retrieve it: the caller may have stopped waiting
        self.closed.set_result(error)
        self._on_events([Closed(error)])

    def _dispatch(self, events: list[Event]) -> None:
        self._on_events(events)
        if not events:
            return
        last = events[-1]
        if isinstance(last, Closed):
            self._error = last.error
            if self._transport is not None:
                self._transport.close()
                self._loop.call_later(_CLOSE_TIMEOUT_S, self._transport.abort)
        elif any(isinstance(event, Subscribed) for event in events):
            self._arm()
            if not self.ready.done():
                self.ready.set_result(None)

    def _arm(self) -> None:
        due_at = self._session.next_tick_at()
        if due_at is not None and not self.closed.done():
            self._timer = self._loop.call_at(due_at, self._tick)

    def _tick(self) -> None:
        events = self._session.tick(self._loop.time())
        self.flush()
        if events:
            # The peer does not read: waiting for the buffer to drain would hang.
            error = next(event.error for event in events if isinstance(event, Closed))
            self.abort(error)
        else:
            self._arm()
