"""All services in this process, on a real MQTT broker and a real Redis, as the tests drive them."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import redis

from broker.core.zones import Polygon, Zone, ZoneKind, cover
from broker.runtime.clock import Clock
from broker.runtime.config import Settings
from broker.runtime.externals import Externals
from broker.runtime.worker import run_worker
from broker.store import OutboxMessage, Partitions, Store, StoredIncident, open_partitions
from nabij.local.embedded import Account, EmbeddedMqtt
from schemas.ids import new_id
from schemas.messages import ServiceState
from schemas.taxonomy import default_policy_text
from services import ALL, load, routes
from tests.services.client import WITHIN_S, Client, Connect, connecting

KORENMARKT = (51.0543, 3.7217)
KORTRIJK = (50.828, 3.265)
NOWHERE = (49.9, 5.4)  # in no zone
_HALF_DEGREES = 0.1
APART_M = 700.0  # of places that know nothing of each other, unless their radius grows
_METRES_PER_DEGREE = 111_195.0

Place = tuple[float, float]


def moved(place: Place, *, north_m: float = 0.0, east_m: float = 0.0) -> Place:
    """Return the place so far from `place`, good to a metre here in Flanders."""
    return (
        place[0] + north_m / _METRES_PER_DEGREE,
        place[1] + east_m / (_METRES_PER_DEGREE * 0.6286),  # cos(51.05°)
    )


@cache
def zones() -> Mapping[ZoneKind, Sequence[Zone]]:
    covers = {"gent": cover(_square(*KORENMARKT)), "kortrijk": cover(_square(*KORTRIJK))}
    return {
        kind: [Zone(name, name.title(), kind, cells) for name, cells in covers.items()]
        for kind in ZoneKind
    }


def _square(lat: float, lon: float) -> Polygon:
    west, east = lon - _HALF_DEGREES, lon + _HALF_DEGREES
    south, north = lat - _HALF_DEGREES, lat + _HALF_DEGREES
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return msgspec.convert({"type": "Polygon", "coordinates": [ring]}, Polygon)


def _places_around(middle: Place, apart_m: float) -> Iterator[Place]:
    """Places in the zone of `middle`, so far apart."""
    rows, columns = int(10_500 / apart_m), int(6_500 / apart_m)
    for north, east in itertools.product(range(-rows, rows + 1), range(-columns, columns + 1)):
        yield moved(middle, north_m=north * apart_m, east_m=east * apart_m)


def policy_text(timers: Mapping[str, int], extra: str = "") -> str:
    """The shipped policy with other timers, and more settings."""
    lines, left = [extra, *default_policy_text().splitlines()], dict(timers)
    for index, line in enumerate(lines):
        name = line.partition(" ")[0]
        if name in left:  # the first is the timer; a category may have its own
            lines[index] = f"{name} = {left.pop(name)}"
    return "\n".join(lines)


def ago(**span: float) -> str:
    """A moment so long ago, as it stands on the wire."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def a_report(place: Place, category: str = "fight", **fields: Any) -> dict[str, Any]:
    return {
        "id": str(new_id()),
        "category": category,
        "location": {"lat": place[0], "lon": place[1]},
        "seen_at": ago(),
        **fields,
    }


def a_presence(place: Place | None, **fields: Any) -> dict[str, Any]:
    location = {"location": {"lat": place[0], "lon": place[1]}} if place else {}
    return {"at": ago(), **location, **fields}


@dataclass
class System:
    """The running services, and a way in for devices, desks and operators."""

    connect: Connect
    partitions: Partitions
    settings: Settings
    apart_m: float = APART_M
    _stops: dict[str, asyncio.Event] = field(default_factory=dict)
    _free_places: Iterator[Place] = field(init=False)

    def __post_init__(self) -> None:
        self._free_places = _places_around(KORENMARKT, self.apart_m)

    @property
    def store(self) -> Store:
        """The first partition: where there is one alone, all of it."""
        return self.partitions.first

    def place(self) -> Place:
        """A place in zone gent that nothing has happened near yet."""
        return next(self._free_places)

    @contextmanager
    def _redis(self) -> Iterator[redis.Redis]:
        assert self.settings.redis_url is not None
        with redis.Redis.from_url(self.settings.redis_url) as client:
            yield client

    def keys_with(self, text: str) -> list[str]:
        """The keys in Redis that have `text` in their name."""
        with self._redis() as client:
            return [key.decode() for key in client.scan_iter(f"*{text}*")]

    def corrupt(self, name: str, hash_field: str) -> None:
        """Make a field of a hash in Redis unreadable."""
        with self._redis() as client:
            client.hset(self._prefix(name) + name, hash_field, "{")

    def forget(self, name: str) -> None:
        """Delete a key in Redis."""
        with self._redis() as client:
            client.delete(self._prefix(name) + name)

    def _prefix(self, name: str) -> str:
        """The tag of the partition that has the incident which ends this name."""
        return self.partitions.of(UUID(name.rpartition(":")[2])).keys.prefix

    async def filed(self, incident: UUID | str) -> StoredIncident | None:
        """An incident as the store has it."""
        identifier = UUID(str(incident))
        return await self.partitions.of(identifier).incidents.get(identifier)

    async def waiting(self, identifier: UUID | str) -> OutboxMessage | None:
        """The message in the outbox that its reader has not confirmed yet, if it stands."""
        for store in self.partitions:
            if message := await store.outbox.get(UUID(str(identifier))):
                return message
        return None

    async def involving(self, user: str) -> Sequence[UUID]:
        """The incidents that the store knows a user to be involved in."""
        missed = await self.partitions.missed(
            user, datetime(2020, 1, 1, tzinfo=UTC), 1_000, told_before=timedelta()
        )
        return [one.incident for one in missed]

    async def stop(self, service: str) -> None:
        """Drain and stop the workers of one service."""
        self._stops[service].set()

    async def report(
        self,
        client: Client,
        place: Place,
        category: str = "fight",
        *,
        user: str = "",
        **fields: Any,
    ) -> dict[str, Any]:
        """Report something and return the receipt of it, accepted or not."""
        report = a_report(place, category, **fields)
        return await self.send_report(client, report, user=user)

    async def send_report(
        self, client: Client, report: dict[str, Any], *, user: str = ""
    ) -> dict[str, Any]:
        answer = await client.ask(f"u/{user or client.name}/up/report", report)
        receipt: dict[str, Any] = answer.payload
        assert answer.topic == f"u/{user or client.name}/down/receipt"
        assert receipt["subject"] == "report", receipt
        return receipt

    async def be_at(
        self, client: Client, place: Place | None, *, user: str = "", **fields: Any
    ) -> dict[str, Any]:
        """Publish a presence and wait until it is in effect."""
        name = user or client.name
        answer = await client.ask(
            f"u/{name}/up/presence",
            a_presence(place, **fields),
            response_topic=f"u/{name}/down/receipt",
        )
        receipt: dict[str, Any] = answer.payload
        assert receipt["outcome"] == "accepted", receipt
        return receipt

    async def be_at_last(self, client: Client, place: Place) -> None:
        """`be_at`, again and again until a service is there to take it."""
        topic = f"u/{client.name}/down/receipt"
        while not client.on(topic, subject="presence"):
            await client.publish(
                f"u/{client.name}/up/presence", a_presence(place), response_topic=topic
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.expect(topic, subject="presence")

    async def reply(
        self, client: Client, incident: str, kind: str = "accepted", **fields: Any
    ) -> dict[str, Any]:
        return await self.up(client, "reply", incident=incident, kind=kind, **fields)

    async def say(self, client: Client, incident: str, text: str) -> dict[str, Any]:
        return await self.up(client, "message", incident=incident, text=text)

    async def up(self, client: Client, subject: str, **fields: Any) -> dict[str, Any]:
        """Send something with an id of its own, and return its receipt."""
        payload = {"id": str(new_id()), **fields}
        answer = await client.ask(f"u/{client.name}/up/{subject}", payload)
        receipt: dict[str, Any] = answer.payload
        assert receipt["subject"] == subject, receipt
        return receipt

    async def command(
        self, desk: Client, command: str, incident: str, *, zone: str = "gent", **fields: Any
    ) -> dict[str, Any]:
        payload = {"id": str(new_id()), "incident": incident, "by": "sergeant 7", **fields}
        return await self.send_command(desk, {"command": command, **payload}, zone=zone)

    async def send_command(
        self, desk: Client, order: dict[str, Any], *, zone: str = "gent"
    ) -> dict[str, Any]:
        answer = await desk.ask(f"police/{zone}/command", order)
        receipt: dict[str, Any] = answer.payload
        assert answer.topic == f"police/{zone}/receipt"
        return receipt


@dataclass(frozen=True, kw_only=True)
class Servers:
    """What a system runs on."""

    mqtt: EmbeddedMqtt
    redis_url: str
    accounts: Mapping[str, Account]
    directory: Path
    partitions: int = 1
    mqtt_url: str | None = None  # of several


@asynccontextmanager
async def running(
    servers: Servers,
    *,
    timers: Mapping[str, int] | None = None,
    workers: int = 1,
    services: Sequence[str] = ALL,
    settings: Settings | None = None,
    clock: Clock | None = None,
    policy_extra: str = "",
    apart_m: float = APART_M,
) -> AsyncIterator[System]:
    """Run services until the end of the block; drained then, and nothing left at the broker.

    `settings` are those of a system that ran before, to run as the same again.
    """
    is_new = False
    if settings is None:
        settings = settings_of(servers, timers or {}, policy_extra)
        is_new = True
    assert settings.redis_url is not None
    async with (
        open_partitions(settings.redis_url, settings.partitions, routes=routes()) as partitions,
        connecting(servers.mqtt, servers.accounts) as connect,
    ):
        if is_new:  # a test before may have had a clock that jumped
            await partitions.first._redis.call("DEL", partitions.first.keys.shared_time)
        for kind, some in zones().items():
            await partitions.first.zones.save(kind, some)
        system = System(connect, partitions, settings, apart_m)
        async with asyncio.TaskGroup() as tasks:
            await _start(tasks, system, services, workers, clock=clock)
            try:
                yield system
            finally:
                for service in services:
                    await system.stop(service)
        if servers.mqtt.running:
            await _clear_retained(connect)


def settings_of(servers: Servers, timers: Mapping[str, int], policy_extra: str = "") -> Settings:
    name = new_id().hex[-8:]
    policy = servers.directory / f"policy-{name}.toml"
    policy.write_text(policy_text(timers, policy_extra), encoding="utf-8")
    return Settings(
        mqtt_url=servers.mqtt_url or servers.mqtt.url_for(servers.accounts["nabij"]),
        redis_url=servers.redis_url,
        share_group=f"secret-{name}",
        data_dir=servers.directory,
        policy=policy,
        instance=f"test-{name}",
        partitions=servers.partitions,
    )


async def _start(
    tasks: asyncio.TaskGroup,
    system: System,
    services: Sequence[str],
    workers: int,
    *,
    clock: Clock | None,
) -> None:
    ready: list[asyncio.Event] = []
    for name in services:
        service = load(name)
        stop = system._stops[name] = asyncio.Event()
        for worker in range(1, workers + 1):
            is_ready = asyncio.Event()
            ready.append(is_ready)

            def on_state(state: ServiceState, is_ready: asyncio.Event = is_ready) -> None:
                if state is ServiceState.READY:
                    is_ready.set()

            tasks.create_task(
                run_worker(
                    service,
                    system.settings,
                    worker=worker,
                    routes=routes(),
                    stop=stop,
                    on_state=on_state,
                    externals=Externals(clock=clock) if clock else None,
                ),
                name=f"{name} {worker}",
            )
    async with asyncio.timeout(WITHIN_S):
        for is_ready in ready:
            await is_ready.wait()


async def polled(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what Redis knows, and no message tells."""
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.02)


async def _clear_retained(connect: Connect) -> None:
    client = await connect("nabij", "police/+/incident/+", "ops/service/+/+", "ops/unattended/+/+")
    await client.publish("ops/service/test/end", json.dumps({}).encode())
    await client.expect("ops/service/test/end")
    for message in client.received:
        if message.retain:
            await client.publish(message.topic, b"", retain=True)
