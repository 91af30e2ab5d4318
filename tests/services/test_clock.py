"""The wall clock jumps while the services run: nothing closes, nothing is refused, and it is told."""

import asyncio
import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import redis
import structlog

from broker.core.clock_jumps import SharedTime
from broker.runtime.clock import Clock
from broker.store import open_partitions
from broker.store.kernel.keys import Keys
from schemas.messages import Status
from tests.services.system import KORENMARKT, Place, Servers, System, polled, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PLACES = itertools.count()
HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
SOME = ("intake", "presence", "alerting", "deadlines")


class JumpingClock(Clock):
    """The wall clock of this machine, `ahead_s` ahead; `alone`: as if Redis' host had not jumped."""

    def __init__(self, *, alone: bool, grace_s: float) -> None:
        self.ahead_s = 0.0
        self.alone = alone
        super().__init__(lambda: time.time() + self.ahead_s, grace_s=grace_s)

    def compare(self, other_s: float) -> float:
        return super().compare(other_s if self.alone else other_s + self.ahead_s)


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
async def test_an_hours_jump_closes_nothing_and_refuses_nothing(
    ahead_s: float, servers: Servers
) -> None:
    clock = JumpingClock(alone=True, grace_s=0.3)
    with structlog.testing.capture_logs() as logs:
        async with running(servers, services=SOME, clock=clock) as system:
            ann, bob = await system.connect("ann"), await system.connect("bob")
            place = fresh_place(system)
            first = await system.report(ann, place, "fight")
            assert first["outcome"] == "accepted"

            clock.ahead_s = ahead_s
            await system.be_at(bob, place)
            second = await system.report(ann, fresh_place(system), "fight")
            assert second["outcome"] == "accepted"

            async def is_told() -> bool:
                return any(entry.get("code") == "clock_jumped" for entry in logs)

            await polled(is_told)  # and the grace is over: but Redis shows another time, so
            await asyncio.to_thread(time.sleep, 0.5)  # the clock that stands alone is not gone by
            for receipt in (first, second):
                filed = await system.filed(receipt["incident"])
                assert filed is not None
                assert filed.incident.status is Status.OPEN
            assert await system.store.deadlines.due(clock_ms(clock)) == []
            assert clock.adopted == []
    assert any("wall clock has jumped" in entry["event"] for entry in logs)


async def test_a_jump_that_comes_to_count_leaves_every_duration_as_it_was(
    servers: Servers,
) -> None:
    clock = JumpingClock(alone=False, grace_s=0.3)
    async with running(servers, services=SOME, clock=clock) as system:
        ann = await system.connect("ann")
        receipt = await system.report(ann, fresh_place(system), "fight")
        before = due_of(system.settings.redis_url, receipt["incident"])
        assert before
        clock.ahead_s = 24 * HOUR_S

        async def is_moved() -> bool:
            return due_of(system.settings.redis_url, receipt["incident"]) != before

        await polled(is_moved)
        after = due_of(system.settings.redis_url, receipt["incident"])
        assert before.keys() == after.keys()
        for kind, due_ms in before.items():
            assert abs(after[kind] - due_ms - 24 * HOUR_S * 1000) < 1_500
        filed = await system.filed(receipt["incident"])
        assert filed is not None
        assert filed.incident.status is Status.OPEN
        [(until_s, by_s)] = clock.adopted
        assert abs(by_s - 24 * HOUR_S) < 2
        # What happened before the jump is as long ago as it was.
        home = system.partitions.of(filed.incident.id).deadlines
        active = await home.in_time_of_now(filed.active_at)
        assert abs((clock.now() - active).total_seconds()) < 60
        later = datetime.fromtimestamp(until_s, UTC) + timedelta(hours=25)
        assert await home.in_time_of_now(later) == later


async def test_a_jump_of_days_gives_up_nothing_that_waits_for_its_desk(servers: Servers) -> None:
    clock = JumpingClock(alone=False, grace_s=0.1)
    async with running(servers, services=("intake", "relay"), clock=clock) as system:
        ann = await system.connect("ann")
        desk = await system.connect("desk-gent", "police/gent/#", confirms=False)
        report = (await system.report(ann, fresh_place(system), "fight"))["id"]
        escalation = await desk.expect("police/gent/escalation/", report=report)

        clock.ahead_s = 100 * HOUR_S
        await polled(lambda: asyncio.sleep(0, clock.seconds() > time.time() + 99 * HOUR_S))
        await desk.ask("police/gent/up/sync", {})

        await desk.expect("police/gent/escalation/", report=report, count=2)
        waiting = await system.partitions.at(*KORENMARKT).outbox.get(UUID(escalation["id"]))
        assert waiting is not None
        assert (await system.store.dead_letters.counts()).kept == 0


@pytest.mark.parametrize("ahead_s", [8 * DAY_S, -3_000 * DAY_S], ids=["8 days", "-3000 days"])
async def test_workers_started_with_a_wrong_clock_refuse_and_close_nothing(
    ahead_s: float, servers: Servers
) -> None:
    clock = Clock(lambda: time.time() + ahead_s)
    with structlog.testing.capture_logs() as logs:
        async with running(servers, services=SOME, clock=clock) as system:
            ann, bob = await system.connect("ann"), await system.connect("bob")
            place = fresh_place(system)
            await system.be_at(bob, place)
            receipt = await system.report(ann, place, "fight")
            assert receipt["outcome"] == "accepted"
            alert = await bob.expect("u/bob/down/alert", incident=receipt["incident"])
            assert abs(datetime.fromisoformat(alert["seen_at"]).timestamp() - time.time()) < 60

            async def is_told() -> bool:
                return any(entry.get("code") == "clock_jumped" for entry in logs)

            await polled(is_told)
            filed = await system.filed(receipt["incident"])
            assert filed is not None
            assert filed.incident.status is Status.OPEN
            assert abs(clock.held_jump_s - ahead_s) < 5
    assert [entry["what"] for entry in logs if "shared time" in entry["event"]] == ["of Redis"]


async def test_a_deadlines_worker_started_a_day_ahead_closes_nothing_of_the_healthy_ones(
    servers: Servers,
) -> None:
    async with running(servers, services=SOME) as system:
        ann = await system.connect("ann")
        receipt = await system.report(ann, fresh_place(system), "fight")
        before = due_of(system.settings.redis_url, receipt["incident"])
        clock = Clock(lambda: time.time() + DAY_S)
        other = replace(system.settings, instance="another-host")
        async with running(servers, services=("deadlines",), settings=other, clock=clock):
            await asyncio.sleep(0.5)  # five of its turns
            assert due_of(system.settings.redis_url, receipt["incident"]) == before
            filed = await system.filed(receipt["incident"])
        assert filed is not None
        assert filed.incident.status is Status.OPEN
        assert abs(clock.held_jump_s - DAY_S) < 5


async def test_a_worker_started_in_the_grace_holds_the_jump_no_longer_than_the_others(
    servers: Servers,
) -> None:
    async with open_partitions(servers.redis_url) as partitions:
        server = partitions.first.server
        await server.write(SharedTime(time.time() - HOUR_S, 0.5))
        clock = Clock(grace_s=600.0)
        clock.start_from(*await server.shared_time())
        assert clock.redis_agrees
        assert abs(clock.held_jump_s - HOUR_S) < 2
        assert 0 < clock.held_for_s <= 0.5
        assert abs(clock.shared.seconds - (time.time() - HOUR_S)) < 2
        await polled(lambda: asyncio.sleep(0, not clock.held_jump_s))
        assert [round(by_s / HOUR_S) for _, by_s in clock.adopted] == [1]


async def test_a_worker_agrees_with_those_that_run_when_the_clock_of_redis_has_jumped(
    servers: Servers,
) -> None:
    async with open_partitions(servers.redis_url) as partitions:
        server = partitions.first.server
        await server.write(SharedTime(time.time() + 2))
        shared, redis_s = await server.shared_time()
        right, wrong = Clock(), Clock(lambda: time.time() + 8 * DAY_S)
        for clock in (right, wrong):
            clock.start_from(shared, redis_s + 8 * DAY_S)
        assert right.held_jump_s == 0
        assert abs(wrong.seconds() - right.seconds()) < 5


def fresh_place(system: System) -> Place:
    """A place that none of this module's systems has used: they share one Redis."""
    for _ in range(next(_PLACES)):
        system.place()
    return system.place()


def clock_ms(clock: Clock) -> int:
    return int(clock.seconds() * 1000)


def due_of(url: str | None, incident: str) -> dict[str, float]:
    """The deadlines of an incident, by kind (Unix ms), in whichever partition it is."""
    assert url
    with redis.Redis.from_url(url) as client:
        names = [Keys(number).deadlines for number in range(16)]
        keys = [name for name in names if client.exists(name)]
        rows = [row for key in keys for row in client.zrange(key, 0, -1, withscores=True)]
    return {
        name.decode().split()[0]: score for name, score in rows if name.decode().endswith(incident)
    }
