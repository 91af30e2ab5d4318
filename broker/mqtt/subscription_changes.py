"""Changes to a session's subscriptions while it is connected, one after another.

`Session` knows the answer to one SUBSCRIBE or UNSUBSCRIBE at a time: its packet id is reserved.
"""

import asyncio
from collections.abc import Callable, Sequence

from broker.mqtt.mqtt_errors import ConnectionLost, ConnectRefused, MqttError
from broker.mqtt.session_events import Answered

Request = Callable[[Sequence[str]], None]


class SubscriptionChanges:
    """What is asked of the MQTT broker after the connection's own subscriptions."""

    def __init__(self, flush: Callable[[], None], is_connected: Callable[[], bool]) -> None:
        self._flush = flush
        self._is_connected = is_connected
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Answered] | None = None

    async def ask(self, request: Request, filters: Sequence[str]) -> None:
        """Write `request` of these filters and wait for its answer.

        Raises:
            MqttError: there is no connection, it broke before the answer, or a filter was refused.
        """
        async with self._turn:
            if self._answer is not None:
                await asyncio.wait([self._answer])  # asked by a task that was cancelled
            if not self._is_connected():
                raise ConnectionLost("not connected")
            self._answer = asyncio.get_running_loop().create_future()
            request(filters)
            self._flush()
            answered = await asyncio.shield(self._answer)
        if answered.refused:
            raise ConnectRefused(
                f"the MQTT broker refused a change of subscriptions: {', '.join(answered.refused)}"
            )

    def answered(self, event: Answered) -> None:
        """The MQTT broker has answered."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(event)

    def lost(self, error: MqttError) -> None:
        """The connection is gone, and with it the answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # the task that asked may be gone
