"""Workers that die, leave, come back and swap: their MQTT sessions swallow nothing."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from broker import runner, takeover
from broker.config import Settings
from broker.connections import client_id_of, filters_of
from broker.events import Change, IncidentChanged
from broker.mqtt import Connection, ConnectionLost, Endpoint, Message
from broker.runner import run_worker
from broker.store import Registered, Store, WorkerState, partitions
from nabij.chaos.shares import EACH, unanswered
from schemas import topics
from schemas.ids import new_id
from schemas.messages import ServiceState
from schemas.taxonomy import Desk
from tests.mqtt.exchange import drop, until
from tests.services.client import WITHIN_S, Client, Connect
from tests.services.system import (
    KORENMARKT,
    Servers,
    a_presence,
    a_report,
    moved,
    polled,
    settings_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BEAT_S = 0.1


@dataclass
class City:
    """Workers of one service that are started and ended one by one, and a way in."""

    settings: Settings
    store: Store
    connect: Connect
    service: str = "intake"
    _running: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start a worker: `a-2` is the second of host a; return when it is ready."""
        instance, _, number = name.partition("-")
        service = importlib.import_module(f"services.{self.service}").service
        stop, ready = asyncio.Event(), asyncio.Event()

        def on_state(state: ServiceState) -> None:
            if state is ServiceState.READY:
                ready.set()

        settings = replace(self.settings, instance=instance)
        work = run_worker(service, settings, worker=int(number), stop=stop, on_state=on_state)
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
        service = importlib.import_module(f"services.{self.service}").service
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


@pytest_asyncio.fixture(loop_scope="module")
async def city(
    servers: Servers, redis_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[City]:
    assert redis_url == servers.redis_url  # emptied: no workers of the test before
    monkeypatch.setattr(takeover, "BEAT_S", _BEAT_S)
    settings = settings_of(servers, {})
    assert settings.redis_url
    async with partitions(settings.redis_url, settings.partitions) as stores:
        started = City(settings, stores[0], connect)
        yield started
        await started.end()


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


@pytest.mark.parametrize("dead", ["a-2", "b-1"])
async def test_ten_reports_get_receipts_when_one_of_two_workers_does_not_come_back(
    city: City, connect: Connect, dead: str
) -> None:
    before, ann = city.adopted(), await connect("ann")
    await city.start("a-1")
    await city.start(dead)
    await city.die(dead)
    await all_receipts(ann, await send_reports(ann))
    await polled(lambda: city.is_(dead, WorkerState.GONE))
    assert city.adopted() == before + 1
    assert not await city.has_session(dead)
    await all_receipts(ann, await send_reports(ann))


async def test_without_a_take_over_the_dead_workers_session_swallows_its_share(
    city: City, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover.TakeOver, "_is_to_be_ended", lambda *_: False)
    await city.start("a-1")
    await city.start("a-2")
    await city.die("a-2")
    where = f"mqtt://{servers.mqtt.host}:{servers.mqtt.port}"
    ann = servers.accounts["ann"]
    found = await unanswered(where, "ann", ann.password, ("report",), within_s=1.0)
    assert 0 < found["report"] < EACH  # so `nabij chaos --scale` would see it
    monkeypatch.undo()
    await city.start("b-1")
    await polled(lambda: city.is_("a-2", WorkerState.GONE))
    assert await unanswered(where, "ann", ann.password, ("report",)) == {}


async def test_positions_too_reach_the_worker_that_lives(city: City, connect: Connect) -> None:
    city.service = "presence"
    ann = await connect("ann")
    await city.start("a-1")
    await city.start("b-1")
    await city.die("b-1")
    asked = [new_id().bytes for _ in range(10)]
    for correlation in asked:
        await ann.publish(
            "u/ann/up/presence", a_presence(KORENMARKT), correlation=correlation,
            response_topic="u/ann/down/receipt",
        )  # fmt: skip
    for correlation in asked:
        await ann.answer_to(correlation)


async def test_the_last_worker_keeps_its_session_for_whoever_comes_under_any_name(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    await city.start("a-1")
    await city.leave("a-1")
    sent = await send_reports(ann)
    await city.start("b-1")
    await all_receipts(ann, sent)
    await polled(lambda: city.is_("a-1", WorkerState.GONE))


async def test_a_worker_that_leaves_while_another_stays_ends_its_own_session(
    city: City, connect: Connect
) -> None:
    before, ann = city.adopted(), await connect("ann")
    for name in ("a-1", "b-1"):
        await city.start(name)
    await city.have_seen_each_other("a-1", "b-1")
    sending = asyncio.create_task(send_reports(ann, 40))
    await city.leave("a-1")
    await all_receipts(ann, await sending)
    assert await city.is_("a-1", WorkerState.GONE)
    assert not await city.has_session("a-1")
    assert city.adopted() == before


async def test_of_all_workers_that_leave_at_once_one_keeps_its_session(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    names = ["a-1", "a-2", "b-1"]
    for name in names:
        await city.start(name)
    await city.have_seen_each_other(*names)
    await city.leave(*names)
    sent = await send_reports(ann)
    assert sum([await city.has_session(name) for name in names]) == 1
    await city.start("a-1")
    await all_receipts(ann, sent)


async def test_hosts_that_are_restarted_in_turn_lose_nothing(city: City, connect: Connect) -> None:
    ann = await connect("ann")
    await city.start("a-1")
    await city.start("b-1")
    sending = asyncio.create_task(send_reports(ann, 60))
    for name in ("a-1", "b-1"):
        await city.leave(name)
        await city.start(name)
    await all_receipts(ann, await sending)


async def test_a_worker_that_comes_back_takes_its_session_back_for_good(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    await city.start("a-1")
    await city.die("a-1")
    found = await city.registered("a-1")
    assert found is not None
    claimed = await city.store.workers.claim(found, holder="adopter", by="b-1")
    assert claimed is not None
    await city.start("a-1")
    assert not await city.store.workers.beat(claimed)
    assert not await city.store.workers.ended(claimed)
    async with city.session("a-1"):  # an adopter that was late kicks it once
        pass
    await all_receipts(ann, await send_reports(ann))
    assert await city.is_("a-1", WorkerState.RUNNING)


async def test_a_session_whose_end_was_interrupted_goes_on_as_before(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    await city.start("a-1")
    async with city.session("a-1", [topics.SERVICE.topic(name="intake", instance="a-1")]):
        pass  # an adopter that came too late, and waited for the end of the queue
    await all_receipts(ann, await send_reports(ann))
    await city.die("a-1")
    await city.start("a-1")  # and says so on that topic
    await all_receipts(ann, await send_reports(ann))
    assert await city.store.dead_letters.all() == []


async def test_what_comes_by_a_subscription_of_another_version_is_laid_aside(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    async with city.session("a-1", ["nabij/v1/u/+/up/of-old"]):
        pass
    await city.start("a-1")
    await ann.publish("u/ann/up/of-old", b"what it was")
    await all_receipts(ann, await send_reports(ann))

    async def is_laid_aside() -> bool:
        return [one.payload for one in await city.store.dead_letters.all()] == [b"what it was"]

    await polled(is_laid_aside)


async def test_what_a_dead_worker_had_in_hand_is_handled_within_seconds(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_TAKE_OVER_EVERY_S", _BEAT_S)
    city.service, events = "city", city.store.events
    await city.start("a-1")
    await city.die("a-1")
    await events.put(
        [
            IncidentChanged(
                incident=new_id(), change=Change.OPENED, at=datetime.now(UTC), desk=Desk.CITY
            )
        ]
    )
    assert await events.read("city", "a-1-2", count=9)  # given to it in its last moment
    await city.start("b-1")

    async def is_done() -> bool:
        return await events.length("city") == 0

    await polled(is_done)


async def test_an_adopter_that_dies_while_it_adopts_is_replaced_and_nothing_queued_is_lost(
    city: City, connect: Connect
) -> None:
    ann = await connect("ann")
    await city.start("a-1")
    await city.start("b-1")
    await city.die("b-1")
    found = await city.registered("b-1")
    assert found is not None
    claimed = await city.store.workers.claim(found, holder="adopter", by="c-1")
    assert claimed is not None
    sent = await send_reports(ann)
    last = Message(topics.SERVICE.topic(name="intake", instance="b-1"), b"{}", correlation=b"last")
    async with city.session("b-1") as adopter:
        ending = asyncio.create_task(adopter.end_session(claimed.filters, last))
        await until(lambda: adopter.stats().published == 1)  # unsubscribed; nothing acknowledged
        drop(adopter)
        with pytest.raises(ConnectionLost):
            await ending
    await all_receipts(ann, sent)
    await polled(lambda: city.is_("b-1", WorkerState.GONE))


@pytest.mark.parametrize("found_by", ["reconnecting", "looking from time to time"])
async def test_a_session_that_comes_back_with_an_old_file_of_the_mqtt_broker_is_ended_again(
    city: City, connect: Connect, monkeypatch: pytest.MonkeyPatch, found_by: str
) -> None:
    before, ann = city.adopted(), await connect("ann")
    service = importlib.import_module("services.intake").service
    await city.start("a-1")
    await city.start("b-1")
    await city.die("b-1")
    await polled(lambda: city.is_("b-1", WorkerState.GONE))
    async with city.session("b-1", filters_of(service, city.settings, "b-1")):
        pass  # as Mosquitto has it after a kill -9, from its last autosave
    if found_by == "reconnecting":
        async with city.session("a-1"):
            pass  # every connection breaks then
    else:
        monkeypatch.setattr(takeover, "CHECK_LOOKS", 2)
    await all_receipts(ann, await send_reports(ann))

    async def is_adopted_again() -> bool:
        return city.adopted() == before + 2

    await polled(is_adopted_again)
    assert not await city.has_session("b-1")


async def test_who_connects_under_the_name_of_a_worker_swallows_nothing(
    city: City, connect: Connect, servers: Servers
) -> None:
    ann = await connect("ann")
    await city.start("1-1")
    thief = Endpoint.from_url(servers.mqtt.url_for(servers.accounts["bob"]))
    for guess in ("nabij-intake-1-1", "nabij-intake-1"):
        async with Connection(thief, client_id=guess, subscriptions=["#"]) as connection:
            assert not connection.session_present
            await all_receipts(ann, await send_reports(ann, 3))
    assert city.client_id("1-1") != "nabij-intake-1-1"
    assert city.client_id("1-1").startswith("nabij-intake-1-1-")
    other = replace(city.settings, share_group="another")
    service = importlib.import_module("services.intake").service
    assert client_id_of(service, other, "1-1") != city.client_id("1-1")
    assert client_id_of(service, city.settings, "1-1") == city.client_id("1-1")
