"""A network connection in virtual time: bytes each way, in order, late, and lost when it is cut.

To its client it is the transport of an `asyncio.Protocol`. Each end notices by itself that the other
has gone, and when.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from verify.simulation.virtual_time import VirtualLoop

_APART_S = 1e-6  # what is sent one after another arrives so
_NOTICE_S = 0.2  # within so long an end notices a cut
_UP, _DOWN = 0, 1


class Server(Protocol):
    """What a network connection tells the server at its other end."""

    def received(self, link: "Link", data: bytes) -> None:
        """Bytes have come."""

    def delivered(self, link: "Link", data: bytes) -> None:
        """Bytes have reached the client."""

    def lost(self, link: "Link") -> None:
        """The client has gone."""


class Link(asyncio.Transport):
    """One connection. A client of which nothing is heard any more may be dead."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        dice: random.Random,
        delay: Callable[[], float],
        server: Server,
        protocol: asyncio.Protocol,
        on_take: Callable[[], None],
    ) -> None:
        super().__init__()
        self.on_take = on_take
        self._loop = loop
        self._dice = dice
        self._delay = delay
        self._server = server
        self._protocol = protocol
        self._is_whole = True
        self._client_is_there = self._server_is_there = True
        self._there = [0.0, 0.0]  # when what was sent last arrives

    @property
    def is_open(self) -> bool:
        """Whether its client uses it."""
        return self._client_is_there

    def _carry(self, direction: int, arrive: Callable[..., None], *what: object) -> None:
        at = max(self._loop.now + self._delay(), self._there[direction] + _APART_S)
        self._there[direction] = at
        self._loop.call_at(at, self._arrive, arrive, what)

    def _arrive(self, arrive: Callable[..., None], what: tuple[object, ...]) -> None:
        if self._is_whole:
            arrive(*what)

    def cut(self) -> None:
        """Break: what is on its way is lost."""
        self._is_whole = False
        self._notice(self._lose_client)
        self._notice(self._lose_server)

    def _notice(self, lose: Callable[[], None]) -> None:
        self._loop.call_later(self._dice.uniform(0, _NOTICE_S), lose)

    def _lose_client(self) -> None:
        if self._client_is_there:
            self._client_is_there = False
            self._protocol.connection_lost(None)

    def _lose_server(self) -> None:
        if self._server_is_there:
            self._server_is_there = False
            self._server.lost(self)

    # -- the client's end -------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes to the server."""
        if self._client_is_there:
            self._carry(_UP, self._to_server, data)

    def _to_server(self, data: bytes) -> None:
        if self._server_is_there:
            self._server.received(self, data)

    def close(self) -> None:
        """Close, after all that is sent already."""
        if self._client_is_there:
            self._carry(_UP, self._lose_server)
            self._loop.call_soon(self._lose_client)

    def abort(self) -> None:
        """Close at once."""
        self.close()

    def client_died(self) -> None:
        """The client's process is dead; what it had sent arrives, or is lost with it."""
        self._client_is_there = False
        self._part(_UP, self._lose_server)

    # -- the server's end -------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._carry(_DOWN, self._to_client, data)

    def _to_client(self, data: bytes) -> None:
        if self._client_is_there:
            self._server.delivered(self, data)
            self._protocol.data_received(data)

    def end(self) -> None:
        """Close, after all that is sent already."""
        if self._server_is_there:
            self._server_is_there = False
            self._carry(_DOWN, self._lose_client)

    def server_died(self) -> None:
        """The server is dead; what it had sent arrives, or is lost with it."""
        self._server_is_there = False
        self._part(_DOWN, self._lose_client)

    def _part(self, direction: int, lose: Callable[[], None]) -> None:
        if self._dice.random() < 0.5:
            self._carry(direction, lose)
        else:
            self._is_whole = False
            self._notice(lose)
