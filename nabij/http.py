"""What a container's supervisor and Prometheus ask: /livez, /readyz and /metrics."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.errors import ConfigError
from nabij.supervisor import Supervisor

GRACE_S = 2


@contextlib.asynccontextmanager
async def served(
    address: tuple[str, int], supervisor: Supervisor, metrics: Path
) -> AsyncIterator[str]:
    """Serve while the context lasts, and give the URL.

    Raises:
        ConfigError: the address cannot be had.
    """
    listener = _listener(address)
    server = _Server(
        uvicorn.Config(
            app(supervisor, metrics),
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


def app(supervisor: Supervisor, metrics: Path) -> Starlette:
    """Return the ASGI application."""

    async def livez(_: Request) -> Response:
        """200 while this loop turns (it answers) and every worker's does."""
        hung = [worker.name for worker in supervisor.workers if not worker.alive]
        return JSONResponse({"alive": not hung, "hung": hung}, status_code=503 if hung else 200)

    async def readyz(_: Request) -> Response:
        """200 when every worker is ready."""
        unready = supervisor.unready()
        return JSONResponse(
            {"ready": not unready, "not_ready": unready}, status_code=503 if unready else 200
        )

    async def metrics_text(_: Request) -> Response:
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    registry = CollectorRegistry()
    registry.register(_WorkerMetrics(supervisor))
    MultiProcessCollector(registry, path=str(metrics))  # type: ignore[no-untyped-call]
    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
        ]
    )


class _WorkerMetrics(Collector):
    """What the supervisor itself knows."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("nabij_worker_ready", "Worker is ready", labels=["worker"])
        restarts = CounterMetricFamily(
            "nabij_worker_restarts", "Worker was started again", labels=["worker"]
        )
        unready = self._supervisor.unready()
        for worker in self._supervisor.workers:
            ready.add_metric([worker.name], float(worker.name not in unready))
            restarts.add_metric([worker.name], float(worker.restarts))
        yield ready
        yield restarts


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the process's signals are for all of it."""

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
