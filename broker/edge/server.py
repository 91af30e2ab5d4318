"""Runs an `EdgeBroker` on sockets: turns that are fair to every account, and group commits.

What comes is handled and answered at once, so many packets of each account in a turn; what is more
stands in line for the next turn. A client with much in line is not read from, nor is one that does
not read its answers. What the journal has to have first follows as soon as it has: one write and
`fdatasync` for all turns since.
"""

# long: one event loop, its sockets and its journal

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Self, cast

from broker.edge.accounts import Account, Answer, Authenticate, Credentials, Grant
from broker.edge.connection import Connection
from broker.edge.edge_broker import EdgeBroker
from broker.edge.limits import Limits
from broker.edge.recorder import Recorder
from broker.edge.recovery import BrokerJournal
from broker.edge.sys_topics import sys_topics

_TURN_PACKETS = 64  # of all clients in a turn who have not said yet who they are
_MAX_UNREAD_BYTES = 256 * 1024  # of one connection; above it nothing more is read from its socket
_LAZY_COMMIT_S = 0.2  # what nobody waits for is written so often
_BACKLOG = 4096
_CLOSE_S = 5.0  # how long a client may take for the last bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """Where clients connect, with TLS or without; port 0 is a free one."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class EdgeServer:
    """An async context manager: an MQTT broker that listens; `ports` are those of its listeners.

    With a directory it keeps its word over restarts; without one it keeps all in memory.
    """

    def __init__(
        self,
        *,
        listeners: Sequence[Listener],
        authenticate: Authenticate,
        directory: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.ports: list[int] = []
        offset_s = None if directory is None else time.time() - time.monotonic()
        self.broker = EdgeBroker(
            authenticate=self._authenticate,
            clock=time.monotonic,
            name=lambda: f"auto-{token_hex(8)}",
            limits=limits or Limits(),
            recorder=Recorder(offset_s),
        )
        self.broker.write_now = self._write
        self._journal = None if directory is None else BrokerJournal(self.broker, directory)
        self._ask = authenticate
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []
        self._links: dict[Connection, _Link] = {}
        self._left: dict[Account | None, int] = {}  # packets of this turn; None: of strangers
        self._in_line: dict[Account | None, deque[_Link]] = {}
        self._turn_is_due = False
        self._lazy_is_due = False
        self._commit: asyncio.Task[None] | None = None
        self._tasks: contextlib.AsyncExitStack
        self._loop: asyncio.AbstractEventLoop
        self._group: asyncio.TaskGroup
        self._started_at = time.monotonic()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as tasks:
            if self._journal is not None:
                tasks.callback(self._journal.close)
                self._journal.recover()
            tasks.callback(self._stop_listening)
            for listener in self._listeners:
                self._servers.append(await self._listen(listener))
            self.ports = [one.sockets[0].getsockname()[1] for one in self._servers]
            self._group = await tasks.enter_async_context(asyncio.TaskGroup())
            ticking = self._group.create_task(self._tick(), name="look at the clock")
            tasks.callback(ticking.cancel)
            tasks.push_async_callback(self._stop)
            self._tasks = tasks.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.aclose()

    async def _listen(self, listener: Listener) -> asyncio.Server:
        """Listen there. A TLS handshake may take as long as a client may take to say who it is."""
        timeout_s = None if listener.tls is None else self.broker.limits.connect_timeout_s
        return await self._loop.create_server(
            lambda: _Link(self),
            listener.host,
            listener.port,
            ssl=listener.tls,
            ssl_handshake_timeout=timeout_s,
            backlog=_BACKLOG,
        )

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _stop(self) -> None:
        """Close every connection, and write what is left."""
        self._stop_listening()
        for link in list(self._links.values()):
            link.abort()
        await asyncio.sleep(0)  # each says what becomes of its session
        journal, self._journal = self._journal, None
        if self._commit is not None:
            await self._commit
        if journal is not None and (batch := self.broker.recorder.take()):
            journal.write(batch)

    async def _tick(self) -> None:
        told_at = float("-inf")
        while True:
            now = time.monotonic()
            self.broker.tick()
            if now - told_at >= self.broker.limits.sys_interval_s:
                told_at = now
                for topic, payload in sys_topics(self.broker, now - self._started_at).items():
                    self.broker.router.publish_own(topic, payload)
            self.flush()
            await asyncio.sleep(1.0)

    # -- turns ------------------------------------------------------------------------------------

    def read(self, link: "_Link") -> None:
        """Bytes have come: handle them, and write what that comes to."""
        self._handle(link)
        self.flush()

    def _handle(self, link: "_Link") -> None:
        """Handle what the account may still send in this turn; the rest waits."""
        connection = link.connection
        if not link.is_waiting and not link.is_full:
            account = connection.account
            left = self._left.get(account)
            if left is None:
                left = _TURN_PACKETS if account is None else account.grant.quotas.turn_packets
            now = self.broker.now()  # before: a pause that ends in between would be missed
            handled = connection.turn(left)
            self._left[account] = left - handled
            if not (connection.is_stopped or link.is_held_back):
                return
            if connection.paused_until > now:
                link.is_waiting = True
                self._loop.call_later(connection.paused_until - now, self._pause_is_over, link)
            elif handled == left and connection.is_stopped:
                self.wait(link)
        link.pause_or_resume()

    def _pause_is_over(self, link: "_Link") -> None:
        link.is_waiting = False
        self.read(link)

    def wait(self, link: "_Link") -> None:
        """Read from this client in a later turn, after others."""
        if not link.is_waiting:
            link.is_waiting = True
            self._in_line.setdefault(link.connection.account, deque()).append(link)
            self.schedule()

    def schedule(self) -> None:
        """Begin the next turn soon."""
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a turn with who stands in line."""
        self._turn_is_due = False
        self._left.clear()
        for account, links in list(self._in_line.items()):
            for _ in range(len(links)):
                if self._left.get(account, 1) <= 0:
                    self.schedule()
                    break
                link = links.popleft()
                link.is_waiting = False
                self._handle(link)
            if not links:
                del self._in_line[account]
        self.flush()
        if self._journal is not None and self._commit is None and self.broker.recorder.is_urgent:
            self._begin_commit(self._journal)

    def flush(self) -> None:
        """Write what is to be written, and have the journal written where somebody waits for it."""
        self._write()
        records = self.broker.recorder
        if records.is_empty or self._journal is None or self._commit is not None:
            return
        if records.is_urgent:
            self.schedule()  # what comes in this round of the loop joins the batch
        elif not self._lazy_is_due:
            self._lazy_is_due = True
            self._loop.call_later(_LAZY_COMMIT_S, self._commit_lazily)

    def _write(self) -> None:
        while dirty := self.broker.take_dirty():
            for connection in dirty:
                link = self._links.get(connection)
                if link is not None:
                    link.write()

    # -- clients ----------------------------------------------------------------------------------

    def _authenticate(self, credentials: Credentials, answer: Answer) -> None:
        def answered(grant: Grant | None) -> None:
            answer(grant)
            self.schedule()

        self._ask(credentials, answered)

    def register(self, link: "_Link") -> Connection:
        """A client has connected."""
        connection = self.broker.open()
        self._links[connection] = link
        return connection

    def forget(self, connection: Connection) -> None:
        """Its network connection is gone."""
        self._links.pop(connection, None)
        connection.lost()
        self.schedule()

    # -- the journal ------------------------------------------------------------------------------

    def _commit_lazily(self) -> None:
        self._lazy_is_due = False
        recorder = self.broker.recorder
        recorder.is_urgent = not recorder.is_empty
        self.flush()

    def _begin_commit(self, journal: BrokerJournal) -> None:
        number, batch = self.broker.recorder.number, self.broker.recorder.take()
        self._commit = self._group.create_task(
            self._commit_batch(journal, number, batch), name=f"write batch {number} of the journal"
        )

    async def _commit_batch(self, journal: BrokerJournal, number: int, batch: bytes) -> None:
        """Write a batch; a journal that cannot be written ends the server, which promised it."""
        await asyncio.to_thread(journal.write, batch)
        self._commit = None
        self.broker.committed(number)
        journal.copy()
        self.flush()


class _Link(asyncio.Protocol):
    """The socket of one client."""

    __slots__ = ("_server", "_transport", "connection", "is_full", "is_held_back", "is_waiting")

    connection: Connection
    _transport: asyncio.Transport

    def __init__(self, server: EdgeServer) -> None:
        self.is_full = False  # the client reads more slowly than it is written to
        self.is_waiting = False  # for its turn
        self.is_held_back = False  # its socket is not read
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self._transport = cast("asyncio.Transport", transport)  # as uvloop's behaves
        self.connection = self._server.register(self)
        self._transport.set_write_buffer_limits(self._server.broker.limits.unwritten_bytes)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        connection = self.connection
        if len(data) == 4 and connection.feed_puback(data):
            self._server.flush()
        elif not connection.is_closed:
            connection.feed(data)
            self._server.read(self)

    def pause_or_resume(self) -> None:
        """Read from the socket as long as not much waits."""
        unread = self.connection.unread
        if self.is_held_back == (unread > _MAX_UNREAD_BYTES // (1 + self.is_held_back)):
            return
        self.is_held_back = not self.is_held_back
        if not self._transport.is_closing():
            if self.is_held_back:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def write(self) -> None:
        """Write what is to be written; close if that was the last."""
        connection = self.connection
        data = connection.take()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if connection.is_closed:
            self._transport.close()
            asyncio.get_running_loop().call_later(_CLOSE_S, self._transport.abort)
        elif not self.is_full:
            if not connection.has_room:
                connection.drained()
            if connection.is_stopped:
                self._server.wait(self)

    def pause_writing(self) -> None:
        """Its buffer is full."""
        self.is_full = True
        self.connection.congested()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_full = False
        self.connection.drained()
        self._server.read(self)

    def eof_received(self) -> None:
        """The client has closed its side: so do we."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        del exc
        self._server.forget(self.connection)

    def abort(self) -> None:
        """Close without a word."""
        self._transport.abort()
