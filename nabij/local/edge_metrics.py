"""`/metrics` of our own MQTT broker's process, which is too small for an HTTP framework."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

_WITHIN_S = 5.0
_HEAD = "HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n{}"


@contextlib.asynccontextmanager
async def served(host: str, port: int, text: Callable[[], str]) -> AsyncIterator[int]:
    """Answer each `GET /metrics` with what `text` returns; yield the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_WITHIN_S):
                request = await reader.readuntil(b"\r\n\r\n")
                found = request.startswith(b"GET /metrics ")
                said = (
                    _HEAD.format("200 OK", text()) if found else _HEAD.format("404 Not Found", "")
                )
                writer.write(said.encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
