"""Workers of one service that come and go, each with its host's way to Redis, and who looks on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from prometheus_client import REGISTRY

from broker.mqtt import Connection, Endpoint
from broker.runtime.config import Settings
from broker.runtime.connections import client_id_of
from broker.runtime.worker import run_worker
from broker.store import Registered, Store, WorkerState
from schemas.messages import ServiceState
from services import load, routes
from tests.services.client import WITHIN_S, Client, Connect
from tests.services.system import (
    KORENMARKT,
    a_report,
    moved,
    polled,
)

BEAT_S = 0.1


@dataclass
class City:
    """Workers of one service that are started and ended one by one, and a way in."""

    settings: Settings
    store: Store
    connect: Connect
    service: str = "intake"
    _running: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=dict)

    async def start(self, name: str, *, redis_url: str | None = None) -> None:
        """Start a worker: `a-2` is the second of host a; return when it is ready."""
        instance, _, number = name.partition("-")
        service = load(self.service)
        stop, ready = asyncio.Event(), asyncio.Event()

        def on_state(state: ServiceState) -> None:
            if state is ServiceState.READY:
                ready.set()

        settings = replace(self.settings, instance=instance)
        settings = replace(settings, redis_url=redis_url or settings.redis_url)
        work = run_worker(
            service, settings, worker=int(number), routes=routes(), stop=stop, on_state=on_state
        )
        self._running[name] = (asyncio.create_task(work, name=name), stop)
        async with asyncio.timeout(WITHIN_S):
            await ready.wait()
        await polled(lambda: self.is_(name, WorkerState.RUNNING))

    async def die(self, *names: str) -> None:
        """End workers without a word to the others."""
        tasks = [self._running.pop(name)[0] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self, *names: str) -> None:
        """End workers as SIGTERM does."""
        ending = [self._running.pop(name) for name in names]
        for _, stop in ending:
            stop.set()
        await asyncio.gather(*(task for task, _ in ending))

    async def end(self) -> None:
        await self.die(*self._running)

    async def registered(self, name: str) -> Registered | None:
        return next(
            (
                one
                for one in await self.store.workers.of(self.service)
                if one.session.instance == name
            ),
            None,
        )

    async def is_(self, name: str, state: WorkerState) -> bool:
        found = await self.registered(name)
        return found is not None and found.session.state is state

    async def have_seen_each_other(self, *names: str) -> None:
        """Return when each has looked twice since the last of them was there: once in three beats."""
        for _ in range(3):
            before = [await self.registered(name) for name in names]

            async def have_beaten(before: list[Registered | None] = before) -> bool:
                now = [await self.registered(name) for name in names]
                return all(
                    one and two and one.beat != two.beat
                    for one, two in zip(before, now, strict=True)
                )

            await polled(have_beaten)

    def client_id(self, name: str) -> str:
        service = load(self.service)
        return client_id_of(service, self.settings, name)

    def session(self, name: str, filters: Sequence[str] = ()) -> Connection:
        """A connection under a worker's client id."""
        assert self.settings.mqtt_url
        endpoint = Endpoint.from_url(self.settings.mqtt_url)
        return Connection(endpoint, client_id=self.client_id(name), subscriptions=filters)

    async def has_session(self, name: str) -> bool:
        async with self.session(name) as connection:
            return connection.session_present

    def adopted(self) -> float:
        return (
            REGISTRY.get_sample_value("nabij_sessions_adopted_total", {"service": self.service})
            or 0.0
        )


@dataclass
class Relay:
    """A TCP relay that can be cut: the way of one host to Redis, without that of the others."""

    url: str
    _is_cut: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator["Relay"]:
        target = urlsplit(url)
        assert target.hostname

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if relay._is_cut:
                writer.close()
                return
            there, back = await asyncio.open_connection(target.hostname, target.port)
            relay._open |= {writer, back}
            await asyncio.gather(_pump(reader, back), _pump(there, writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        identity = target.netloc.rpartition("@")[0]
        relay = cls(urlunsplit(target._replace(netloc=f"{identity}@127.0.0.1:{port}")))
        try:
            yield relay
        finally:
            server.close()
            relay.cut()

    def cut(self) -> None:
        self._is_cut = True
        for one in self._open:
            one.close()
        self._open.clear()

    def mend(self) -> None:
        self._is_cut = False


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
    writer.close()


async def statuses(city: City) -> dict[str, str]:
    """What a newcomer is told of the workers of the city's service."""
    topic = f"ops/service/{city.service}"
    operator = await city.connect("nabij", f"{topic}/+")
    await operator.publish(f"{topic}/end", {"end": True})
    await operator.expect(f"{topic}/end")
    told = [one.payload for one in operator.received if one.topic.startswith(f"{topic}/")]
    return {one["instance"]: one["state"] for one in told if "instance" in one}


async def send_reports(client: Client, count: int = 10) -> list[str]:
    """Publish so many reports far from each other; return their ids."""
    reports = [
        a_report(moved(KORENMARKT, north_m=3_000 + 400 * number), "theft")
        for number in range(count)
    ]
    for report in reports:
        await client.publish(f"u/{client.name}/up/report", report)
    return [report["id"] for report in reports]


async def all_receipts(client: Client, reports: Sequence[str]) -> None:
    def receipted() -> set[Any]:
        return {one["id"] for one in client.on(f"u/{client.name}/down/receipt")}

    await client.until(lambda: set(reports) <= receipted(), f"{len(reports)} receipts")
