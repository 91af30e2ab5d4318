"""Ends a session without losing what is queued for it.

A session's queue ends with it. So it is unsubscribed first, which leaves the queue. Then a message
to itself is published, behind everything that is queued (section 4.6). When that message has come
and everything before it is acknowledged, the queue is empty.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from broker.mqtt.message import Message
from broker.mqtt.mqtt_errors import MqttError
from broker.mqtt.session import Session
from broker.mqtt.session_events import PublishReceived
from broker.mqtt.subscription_changes import SubscriptionChanges

_AGAIN_S = 2.0  # a full queue may have dropped the last message: it is published again


class SessionEnd:
    """The end of one session; `last` is the message to itself, known by its correlation data."""

    def __init__(
        self,
        session: Session,
        last: Message,
        flush: Callable[[], None],
        changes: SubscriptionChanges,
    ) -> None:
        self._session = session
        self._last = last
        self._flush = flush
        self._changes = changes
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_has_come = False

    async def run(
        self, filters: Sequence[str], publish: Callable[[Message], Awaitable[object]]
    ) -> None:
        """Return when nothing is subscribed, queued or unacknowledged.

        Raises:
            MqttError: the connection broke, or the MQTT broker refused.
        """
        await self._changes.ask(self._session.subscribe, [self._last.topic])
        if filters:
            await self._changes.ask(self._session.unsubscribe, filters)
        while not self._done.done():
            await publish(self._last)
            await asyncio.wait([self._done], timeout=_AGAIN_S)
        await self._done
        self._session.end_with_connection()

    def is_ours(self, event: PublishReceived) -> bool:
        """Whether a delivery is the message to itself, which is acknowledged here."""
        message = event.message
        if message.topic != self._last.topic:
            return False
        self._last_has_come |= message.correlation == self._last.correlation
        self._session.acknowledge(event.packet_id, event.epoch)
        self._flush()
        self.look()
        return True

    def look(self) -> None:
        """Check whether all is done; called after each acknowledgement."""
        if self._last_has_come and not self._session.unacknowledged and not self._done.done():
            self._done.set_result(None)

    def lost(self, error: MqttError) -> None:
        """Fail: after a reconnect the session would be subscribed again."""
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # retrieve it: no caller has to wait for it
