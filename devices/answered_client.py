"""aiomqtt's client, of which nothing stays when a try to connect fails."""

import contextlib
from typing import Any, Self

import aiomqtt


class AnsweredClient(aiomqtt.Client):
    """A client that is connected when it has been entered, and else leaves no connection behind.

    aiomqtt's own waits for CONNACK as long as its timeout, also where the connection is lost. When
    it gives up, or is cancelled, its socket stays: a CONNACK that comes late would be taken, and
    with it an alert be acknowledged for a device that nobody uses any more.
    """

    _is_open = False
    _is_given_up = False

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            aiomqtt.MqttError: it cannot, was refused, or got no answer.
        """
        try:
            return await super().__aenter__()
        except BaseException:
            self._is_given_up = True
            self._close_if_given_up()
            raise

    def _client_connect(self) -> None:
        """Open the socket, in a thread, which no cancellation ends."""
        try:
            super()._client_connect()
        finally:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self._opened)

    def _opened(self) -> None:
        self._is_open = True
        self._close_if_given_up()

    def _close_if_given_up(self) -> None:
        if self._is_open and self._is_given_up:
            self._client._sock_close()  # noqa: SLF001 - `disconnect` leaves that to the other side

    def _on_disconnect(self, *args: Any, **options: Any) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError("closed before it was answered"))
            self._connected.exception()  # nobody may be waiting any more
        if not self._connected.cancelled():
            super()._on_disconnect(*args, **options)
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()  # it is replaced unseen if this comes with CONNACK
