"""One shared connection to Redis: commands are sent at once, answers come in order.

redis-py takes a connection from a pool for each command; that took 250 µs of CPU a command, and as
many fsyncs at Redis as there were connections. On one connection Redis reads concurrent commands
together, and one fsync serves them all. A cancelled caller leaves the order intact: its answer is
read and dropped.

RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url

from broker.core.health import BROKE, NO_REDIS
from broker.errors import UnavailableError

Word = bytes | str | int | float

_CONNECT_S = 5.0
_pack = cast(
    "Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command
)  # its stub allows one word


class CommandRefused(Exception):  # noqa: N818 - Redis' answer, read as `except Refused`
    """Redis answered with an error; the text begins with its code."""


class RedisPipeline:
    """A connection that is made at the first call, and again at the first call after it broke.

    `answer_s` is how long an answer may take; after that the connection is closed.
    """

    def __init__(self, url: str, *, answer_s: float) -> None:
        address = self._address = parse_url(url)
        host, port = address.get("host", "localhost"), address.get("port", 6379)
        self._where = address.get("path") or f"{host}:{port}"
        self._answer_s = answer_s
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()

    async def call(self, *words: Word) -> Any:
        """Return the answer to one command.

        Raises:
            CommandRefused: Redis refused.
            UnavailableError: no connection, or it broke before the answer: the command may or may
                not have run.
        """
        line = self._line
        if line is None or line.broken:
            line = await self._connected()
        return await line.send(words)

    async def calls(self, several: Iterable[Sequence[Word]]) -> list[Any]:
        """Return the answers to commands that do not depend on each other, sent in one write.

        Raises:
            CommandRefused, UnavailableError: as `call`, the first of them.
        """
        line = self._line
        if line is None or line.broken:
            line = await self._connected()
        return await line.send_all(several)

    async def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close("closed")
            self._line = None

    async def _connected(self) -> "_Line":
        async with self._connecting:
            if self._line is None or self._line.broken:
                self._line = await self._connect()
            return self._line

    async def _connect(self) -> "_Line":
        address, where = self._address, self._where
        try:
            async with asyncio.timeout(_CONNECT_S):
                line = await self._open()
                if "password" in address:
                    user = (address["username"],) if "username" in address else ()
                    await line.send(("AUTH", *user, address["password"]))
                if address.get("db"):
                    await line.send(("SELECT", address["db"]))
        except CommandRefused as error:
            raise UnavailableError(f"Redis at {where}: {error}") from error
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"{NO_REDIS}{where}: {error or 'no answer'}") from error
        return line

    async def _open(self) -> "_Line":
        address, loop = self._address, asyncio.get_running_loop()
        new = partial(_Line, self._where, self._answer_s)
        if "path" in address:
            _, line = await loop.create_unix_connection(new, address["path"])
            return line
        secure = "SSL" in getattr(address.get("connection_class"), "__name__", "")
        host, port = address.get("host", "localhost"), address.get("port", 6379)
        tls = ssl.create_default_context() if secure else None
        _, line = await loop.create_connection(new, host, port, ssl=tls)
        return line


class _Line(asyncio.Protocol):
    """The bytes, and the waiting callers with their times, in the order of their commands.

    One timer watches the oldest: a timer for each call was a tenth of a service's work.
    """

    def __init__(self, where: str, answer_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._where = where
        self._answer_s = answer_s
        self._waiting: deque[tuple[_One, float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader(replyError=CommandRefused)
        self._transport: asyncio.Transport | None = None
        self._future: Callable[[], asyncio.Future[Any]] = self._loop.create_future
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def send(self, words: Sequence[Word]) -> asyncio.Future[Any]:
        """Write one command; return the future of its answer."""
        future = self._future()
        self._write(_pack(tuple(words)), 1, _One(future))
        return future

    def send_all(self, several: Iterable[Sequence[Word]]) -> asyncio.Future[list[Any]]:
        """Write commands; return the future of all their answers, in order."""
        packed = [_pack(tuple(words)) for words in several]
        future = self._future()
        if packed:
            self._write(b"".join(packed), len(packed), _Several(future, len(packed)))
        else:
            future.set_result([])
        return future

    def _write(self, data: bytes, count: int, waiting: "_One") -> None:
        if self.broken or self._transport is None:
            waiting.fail(UnavailableError(f"Redis at {self._where}: the connection is gone"))
            return
        entry = (waiting, self._loop.time())
        self._waiting.extend(repeat(entry, count))
        if self._watch is None:
            self._watch = self._loop.call_later(self._answer_s, self._look)
        self._transport.write(data)

    def _look(self) -> None:
        """Close the connection if the oldest caller has waited too long."""
        self._watch = None
        if not self._waiting or self.broken:
            return
        left_s = self._waiting[0][1] + self._answer_s - self._loop.time()
        if left_s <= 0:
            self.close(f"no answer for {self._answer_s} s")
        else:
            self._watch = self._loop.call_later(left_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                self._waiting.popleft()[0].take(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.close(f"not the Redis protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(str(exc or "closed by Redis"))

    def close(self, why: str) -> None:
        """Close the connection; pending calls fail with `why`."""
        self.broken = True
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            told = f"Redis at {self._where}: {BROKE}: {why}"
            self._waiting.popleft()[0].fail(UnavailableError(told))


class _One:
    """A call that waits for one answer."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def take(self, answer: Any) -> None:
        if self._future.done():  # its caller was cancelled
            return
        if isinstance(answer, CommandRefused):
            self._future.set_exception(answer)
        else:
            self._future.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class _Several(_One):
    """A call that waits for several answers together; it fails with the first error."""

    __slots__ = ("_answers", "_count")

    def __init__(self, future: asyncio.Future[Any], count: int) -> None:
        super().__init__(future)
        self._answers: list[Any] = []
        self._count = count

    def take(self, answer: Any) -> None:
        self._answers.append(answer)
        if len(self._answers) == self._count:
            errors = (one for one in self._answers if isinstance(one, CommandRefused))
            super().take(next(errors, self._answers))
