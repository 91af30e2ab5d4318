"""The outbox relay as a service of its own: killed at work, and taking over from an older release."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import pytest
import pytest_asyncio

from broker.runtime import moved_topics, session_takeover
from broker.runtime.config import Settings
from broker.runtime.connections import client_id_of, filters_of, moved_filters_of
from broker.store import WorkerSession, WorkerState, open_partitions, outbox_messages
from broker.store.outbox import post
from broker.store.outbox_messages import Reader, posted
from nabij.local.supervisor import Supervisor
from schemas import topics
from schemas.ids import new_id
from services import load
from tests.services.city import BEAT_S, City
from tests.services.client import Connect
from tests.services.system import Servers, polled, running, settings_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


class WordTaken(NamedTuple):
    """The older release's service that took a reader's word, of whom, and of what they are sent."""

    service: str
    account: str
    reader: str
    topic: str


GENT = topics.ESCALATION.topic(zone="gent", priority="p1")
OF_DESK = WordTaken("police", "desk-gent", "police/gent", GENT)
OF_USER = WordTaken("police", "ann", "u/ann", topics.QUESTION.topic(user="ann"))
CASE = topics.CASE.topic(municipality="gent", category="noise")
OF_CITY = WordTaken("city", "nabij", "city/gent", CASE)


def environment_of(settings: Settings) -> dict[str, str]:
    ours = {
        "NABIJ_MQTT_URL": settings.mqtt_url,
        "NABIJ_REDIS_URL": settings.redis_url,
        "NABIJ_SHARE_GROUP": settings.share_group,
        "NABIJ_PARTITIONS": settings.partitions,
        "NABIJ_POLICY": settings.policy,
        "NABIJ_INSTANCE": settings.instance,
    }
    return {**os.environ, **{name: str(value) for name, value in ours.items()}}


async def test_a_relay_that_is_killed_costs_no_escalation(
    servers: Servers, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_messages, "GRACE_MS", 0)  # what is committed is due at once
    async with (
        running(servers, services=("intake",)) as system,
        Supervisor({"relay": 1}, environment_of(system.settings)) as relay,
    ):
        await relay.wait_ready(45)
        [worker] = relay.workers
        ann = await connect("ann")
        reports = [(await system.report(ann, system.place()))["id"] for _ in range(5)]

        async def has_all_in_hand() -> bool:
            undelivered = await system.partitions.undelivered()
            gent = undelivered.get(Reader("police", "gent"))
            return gent is not None and gent.messages == len(reports)

        async def are_confirmed() -> bool:
            return not any([await one.outbox.size() for one in system.partitions])

        await polled(has_all_in_hand)
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        desk = await connect("desk-gent", "police/gent/escalation/+")
        for report in reports:
            await desk.expect("police/gent/escalation/", report=report)
        await polled(are_confirmed)
        assert worker.restarts == 1
        assert (await system.store.dead_letters.counts()).kept == 0


# -- the upgrade from the release without it -------------------------------------------------------


@dataclass
class Upgrade:
    """A service of the newer release where the older one ran, and the relay."""

    of: City
    relay: City

    def old_filters(self, name: str) -> list[str]:
        """What the older release subscribed to."""
        service, settings = load(self.of.service), self.of.settings
        moved = moved_filters_of(service, settings)
        assert set(moved) == {"relay"}
        return [*filters_of(service, settings, name), *moved["relay"]]

    async def leave_old_session(self, name: str) -> None:
        """Leave at the MQTT broker what a worker of the older release left there."""
        async with self.of.session(name, self.old_filters(name)):
            pass

    async def sent(self, topic: str) -> str:
        """Send something by the outbox; return its id."""
        transaction = self.of.store.transaction()
        message = posted(new_id(), topic, b"{}", now_ms=int(datetime.now(UTC).timestamp() * 1000))
        post(transaction, message)
        await transaction.run()
        return message.id

    async def are_confirmed(self, *identifiers: str) -> None:
        async def none_waits() -> bool:
            outbox = self.of.store.outbox
            return not any([await outbox.get(UUID(one)) for one in identifiers])

        await polled(none_waits)


@pytest_asyncio.fixture(loop_scope="module")
async def upgrade(
    servers: Servers,
    redis_url: str,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[[str], Upgrade]]:
    assert redis_url == servers.redis_url  # emptied: no workers of the test before
    monkeypatch.setattr(session_takeover, "BEAT_S", BEAT_S)
    monkeypatch.setattr(moved_topics, "LOOK_S", BEAT_S)
    settings = settings_of(servers, {})
    assert settings.redis_url
    async with open_partitions(settings.redis_url, settings.partitions) as stores:
        started: list[City] = []

        def of(service: str) -> Upgrade:
            both = [City(settings, stores[0], connect, service=one) for one in (service, "relay")]
            started.extend(both)
            return Upgrade(*both)

        yield of
        for one in started:
            await one.end()
        assert await stores[0].dead_letters.all() == []


@pytest.mark.parametrize("word", [OF_DESK, OF_USER, OF_CITY], ids=lambda word: word.reader)
async def test_no_word_is_lost_on_the_way_from_an_older_release(
    upgrade: Callable[[str], Upgrade],
    connect: Connect,
    logs_name_nobody: list[str],
    word: WordTaken,
) -> None:
    both, reader = upgrade(word.service), await connect(word.account)
    await both.leave_old_session("a-1")
    queued = await both.sent(word.topic)
    await reader.confirm(word.reader, queued)

    await both.of.start("a-1")
    await both.are_confirmed(queued)
    before = await both.sent(word.topic)
    await reader.confirm(word.reader, before)  # and there is no relay yet
    await both.are_confirmed(before)

    logs_name_nobody.clear()
    await both.relay.start("b-1")

    async def is_left() -> bool:
        return any("has these topics now" in line for line in logs_name_nobody)

    await polled(is_left)
    await both.of.die("a-1")  # with a share of them its session would swallow half
    after = [await both.sent(word.topic) for _ in range(10)]
    for one in after:
        await reader.confirm(word.reader, one)
    await both.are_confirmed(*after)


async def test_a_newer_worker_takes_over_what_an_older_one_left_and_gives_none_of_it_up(
    upgrade: Callable[[str], Upgrade], connect: Connect
) -> None:
    both, desk = upgrade("police"), await connect("desk-gent")
    await both.leave_old_session("old-1")
    settings = both.of.settings
    await both.of.store.workers.register(
        WorkerSession(
            service="police",
            instance="old-1",
            server=0,
            client_id=client_id_of(load("police"), settings, "old-1"),
            filters=tuple(both.old_filters("old-1")),
            holder="a process that is gone",
            state=WorkerState.RUNNING,
        )
    )
    queued = [await both.sent(GENT) for _ in range(3)]
    for one in queued:
        await desk.confirm("police/gent", one)

    await both.relay.start("b-1")
    await both.of.start("b-1")
    await both.are_confirmed(*queued)
    await polled(lambda: both.of.is_("old-1", WorkerState.GONE))
    assert not await both.of.has_session("old-1")


async def test_a_sync_that_waits_in_an_older_session_is_answered(
    upgrade: Callable[[str], Upgrade], connect: Connect
) -> None:
    both, desk = upgrade("police"), await connect("desk-gent", "police/gent/receipt")
    await both.leave_old_session("a-1")
    asking = asyncio.create_task(desk.ask("police/gent/up/sync", {"has": []}))
    await both.of.start("a-1")
    assert (await asking).payload["subject"] == "sync"
