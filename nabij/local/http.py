"""/livez, /readyz and /metrics, for a container's supervisor and Prometheus."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.core.health import Cause
from broker.errors import ConfigError
from nabij.local.exposition import Exposition
from nabij.local.readiness import Readiness, readiness
from nabij.local.store_metrics import StoreFigures
from nabij.local.supervisor import Supervisor

GRACE_S = 2


@contextlib.asynccontextmanager
async def served(
    address: tuple[str, int],
    supervisor: Supervisor,
    metrics: Path,
    *,
    store: StoreFigures | None = None,
    more: Callable[[], Sequence[Cause]] = tuple,
) -> AsyncIterator[str]:
    """Serve while the context lasts; yield the URL.

    `store` is read at each scrape; `more` are causes outside the workers.

    Raises:
        ConfigError: the address cannot be used.
    """
    listener = _listener(address)
    server = _Server(
        uvicorn.Config(
            app(supervisor, metrics, store=store, more=more),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve([listener]), name="http")
        try:
            yield f"http://{shown}:{port}"
        finally:
            server.should_exit = True
            await asyncio.wait([serving], timeout=2 * GRACE_S)


def app(
    supervisor: Supervisor,
    metrics: Path,
    *,
    store: StoreFigures | None,
    more: Callable[[], Sequence[Cause]],
) -> Starlette:
    """Return the ASGI application."""

    def now() -> Readiness:
        return readiness(supervisor.workers, [*more(), *(store.causes() if store else ())])

    async def livez(_: Request) -> Response:
        """200 while this loop and every worker's loop turns."""
        hung = [worker.name for worker in supervisor.workers if not worker.alive]
        return _json({"alive": not hung, "hung": hung}, status=503 if hung else 200)

    async def readyz(_: Request) -> Response:
        """200 while reports are handled, degraded or not; else 503 with the causes."""
        if store:
            await store.refresh()
        found = now()
        return _json(found, status=200 if found.ready else 503)

    async def metrics_text(_: Request) -> Response:
        if store:
            await store.refresh()
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    registry = CollectorRegistry()
    registry.register(Exposition(supervisor, now, store))
    MultiProcessCollector(registry, path=str(metrics))  # type: ignore[no-untyped-call]
    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
        ]
    )


def _json(value: object, *, status: int) -> Response:
    """JSON as an operator reads it with curl."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return Response(text, status_code=status, media_type="application/json")


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers, which belong to the whole process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listener(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise ConfigError([f"NABIJ_HTTP={host}:{port}: {error.strerror}"]) from None
    return listener
