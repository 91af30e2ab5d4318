"""Workers that die, leave, come back and swap: their MQTT sessions swallow nothing."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from broker.core.changes import Change, IncidentChanged
from broker.mqtt import Connection, ConnectionLost, Endpoint, Message
from broker.runtime import dispatch, session_takeover, worker_loops
from broker.runtime.connections import client_id_of, filters_of
from broker.store import WorkerState, open_partitions
from devices.device_connection import DeviceLink
from nabij.local.embedded import MqttEngine
from schemas import topics
from schemas.ids import new_id
from schemas.taxonomy import Desk
from services import routes
from tests.mqtt.exchange import drop, until
from tests.services.city import BEAT_S, City, Relay, all_receipts, send_reports, statuses
from tests.services.client import Connect
from tests.services.system import (
    KORENMARKT,
    Servers,
    a_presence,
    polled,
    settings_of,
)
from verify.chaos.shares import EACH, unanswered

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def city(
    servers: Servers, redis_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[City]:
    assert redis_url == servers.redis_url  # emptied: no workers of the test before
    monkeypatch.setattr(session_takeover, "BEAT_S", BEAT_S)
    settings = settings_of(servers, {})
    assert settings.redis_url
    async with open_partitions(settings.redis_url, settings.partitions, routes=routes()) as stores:
        started = City(settings, stores[0], connect)
        yield started
        await started.end()


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
    assert await statuses(city) == {"a-1": "ready"}  # no ghost of it
    await all_receipts(ann, await send_reports(ann))


async def test_without_a_take_over_the_dead_workers_session_swallows_its_share(
    city: City, servers: Servers, mqtt_engine: MqttEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Mosquitto; our own MQTT broker gives a share to connected members only.

    Each answer is there before the next question: that one has come does not mean that all have.
    """
    publish = DeviceLink.publish

    async def slowly(link: DeviceLink, *args: Any, **options: Any) -> None:
        await publish(link, *args, **options)
        await asyncio.sleep(0.02)

    monkeypatch.setattr(DeviceLink, "publish", slowly)
    monkeypatch.setattr(session_takeover.TakeOver, "_is_to_be_ended", lambda *_: False)
    await city.start("a-1")
    await city.start("a-2")
    await city.die("a-2")
    where = f"mqtt://{servers.mqtt.host}:{servers.mqtt.port}"
    ann = servers.accounts["ann"]
    found = await unanswered(where, "ann", ann.password, ("report",), within_s=1.0)
    if mqtt_engine is MqttEngine.MOSQUITTO:
        assert 0 < found["report"] < EACH  # so `nabij chaos --scale` would see it
    else:
        assert found == {}
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
            "u/ann/up/presence",
            a_presence(KORENMARKT),
            correlation=correlation,
            response_topic="u/ann/down/receipt",
        )
    for correlation in asked:
        await ann.answer_to(correlation)


async def test_the_last_worker_keeps_its_session_for_the_next_under_any_name(
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
    assert await statuses(city) == {"b-1": "ready"}
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
    monkeypatch.setattr(worker_loops, "_TAKE_OVER_EVERY_S", BEAT_S)
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
        consumers = {name.rpartition("-")[0] for name in await events.consumers("city")}
        return await events.length("city") == 0 and consumers == {"b-1"}

    await polled(is_done)


async def test_a_session_whose_end_never_comes_holds_up_no_other(
    city: City, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, stuck = await connect("ann"), {"a-1"}
    ends = Connection.end_session

    async def end_session(connection: Connection, filters: Sequence[str], last: Message) -> None:
        if any(f"/{name}" in last.topic for name in stuck):
            await asyncio.Event().wait()
        await ends(connection, filters, last)

    monkeypatch.setattr(Connection, "end_session", end_session)
    monkeypatch.setattr(session_takeover, "STALLED_S", 3 * BEAT_S)
    for name in ("a-1", "a-2", "b-1"):
        await city.start(name)
    await city.die("a-1", "a-2")
    await polled(lambda: city.is_("a-2", WorkerState.GONE))
    assert not await city.is_("a-1", WorkerState.GONE)
    stuck.clear()  # what was left is tried again
    await polled(lambda: city.is_("a-1", WorkerState.GONE))
    await all_receipts(ann, await send_reports(ann))


async def test_a_worker_that_alone_has_lost_redis_gives_way_and_comes_back_with_it(
    city: City, connect: Connect, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_LAST_RETRY_S", BEAT_S)  # of what it has in hand without Redis
    before, ann = city.adopted(), await connect("ann")
    async with Relay.to(redis_url) as relay:
        await city.start("b-1")
        await city.start("a-1", redis_url=relay.url)
        sending = asyncio.create_task(send_reports(ann, 40))
        relay.cut()
        await all_receipts(ann, await sending)
        await polled(lambda: city.is_("a-1", WorkerState.GONE))
        for _ in range(3):  # with nobody to fight, this is all over after one take-over
            await city.have_seen_each_other("b-1")
            await all_receipts(ann, await send_reports(ann))
        assert city.adopted() == before + 1
        assert await city.is_("a-1", WorkerState.GONE)
        relay.mend()
        await polled(lambda: city.is_("a-1", WorkerState.RUNNING))
        await all_receipts(ann, await send_reports(ann))

        async def both_say_ready() -> bool:  # a-1 does after it has registered, not before
            return await statuses(city) == {"a-1": "ready", "b-1": "ready"}

        await polled(both_say_ready)
        await city.die("a-1")  # while it can still say goodbye to Redis


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
    last = Message(topics.SERVICE.topic(name="intake", instance="b-1"), b"{}", correlation=b"last")
    async with city.session("b-1") as adopter:
        sent = await send_reports(ann)  # it gets its share
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
        monkeypatch.setattr(session_takeover, "CHECK_LOOKS", 2)
    await all_receipts(ann, await send_reports(ann))

    async def is_adopted_again() -> bool:
        return city.adopted() == before + 2

    await polled(is_adopted_again)
    monkeypatch.setattr(session_takeover, "CHECK_LOOKS", 600)  # a look is a session for a moment
    await city.have_seen_each_other("a-1")
    await polled(lambda: city.is_("b-1", WorkerState.GONE))
    assert not await city.has_session("b-1")


async def test_who_connects_under_the_name_of_a_worker_swallows_nothing(
    city: City, connect: Connect, servers: Servers
) -> None:
    ann = await connect("ann")
    await city.start("1-1")
    thief = Endpoint.from_url(servers.mqtt.url_for(servers.accounts["bob"]))
    for guess in ("nabij-intake-1-1", "nabij-intake-1"):
        async with Connection(thief, client_id=guess) as connection:
            assert not connection.session_present
            await all_receipts(ann, await send_reports(ann, 3))
    assert city.client_id("1-1") != "nabij-intake-1-1"
    assert city.client_id("1-1").startswith("nabij-intake-1-1-")
    other = replace(city.settings, share_group="another")
    service = importlib.import_module("services.intake").service
    assert client_id_of(service, other, "1-1") != city.client_id("1-1")
    assert client_id_of(service, city.settings, "1-1") == city.client_id("1-1")
