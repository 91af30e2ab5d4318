"""A crowd over a real MQTT broker: everybody is placed, and answers as decided beforehand."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from devices.device_connection import ConnectionRefused
from schemas import topics
from schemas.ids import alert_id
from schemas.messages import (
    Alert,
    GroupEvent,
    GroupEventKind,
    Outcome,
    Position,
    Receipt,
    ReplyKind,
)
from verify.world.crowd import Crowd, CrowdCounts, CrowdOptions
from verify.world.habits import Habits
from verify.world.tracks import synthetic_tracks

KORENMARKT = Position(lat=51.0543, lon=3.7217)
USERS = [f"p-{number}" for number in range(1, 21)]
ACCOUNTS = {user: f"secret-of-{user}" for user in USERS}
# Who says all the time where they are leaves a busy machine no time for the receipts of replies.
STILL = Habits(presence_s=(600.0, 900.0), presence_m=5_000.0)


def crowd_on(broker: Any, **options: Any) -> Crowd:
    tracks = synthetic_tracks(7, 1, KORENMARKT, spread_m=200.0)
    heard = {name: options.pop(name) for name in [*options] if name.startswith("on_")}
    how = CrowdOptions(**{"seed": 3, "time_scale": 200.0, "batch": 5, **options})
    return Crowd(broker, ACCOUNTS, tracks, options=how, **heard)


def replies(services: Any) -> list[tuple[str, ReplyKind]]:
    return [
        (levels["user"], topics.REPLY.decode(message.payload).kind)
        for message in services.received
        if (levels := topics.REPLY.parse(message.topic))
    ]


async def test_everybody_is_placed_before_the_crowd_is_entered(broker: Any, services: Any) -> None:
    progress: list[tuple[int, int]] = []
    async with crowd_on(broker, on_progress=lambda *seen: progress.append(seen)) as crowd:
        placed = {
            levels["user"]
            for message in services.received
            if (levels := topics.PRESENCE.parse(message.topic)) and message.response_topic
        }
        assert placed == set(USERS)
        assert progress == [(number, 20) for number in range(1, 21)]
        assert (crowd.tally.connected, crowd.tally.placed) == (20, 20)


async def test_the_crowd_goes_on_saying_where_it_is(broker: Any, services: Any) -> None:
    async with crowd_on(broker):
        count = len(services.received)
        await services.until(lambda: len(services.received) >= count + 60)
    places = {
        topics.PRESENCE.decode(message.payload).location
        for message in services.received
        if message.topic == topics.PRESENCE.topic(user="p-1")
    }
    assert len(places) > 1


async def test_everybody_alerted_answers_as_the_seed_decided(
    broker: Any, services: Any, alert: Alert
) -> None:
    async with crowd_on(broker, on_alert=lambda *_: None, habits=STILL) as crowd:
        decisions = {person.user: person.decide(alert.incident) for person in crowd.people}
        expected = CrowdCounts(
            alerts=20,
            seen=20,
            accepted=sum(d.answer is ReplyKind.ACCEPTED for d in decisions.values()),
            declined=sum(d.answer is ReplyKind.DECLINED for d in decisions.values()),
            said=sum(d.words is not None for d in decisions.values()),
            left=sum(d.leaves_after_s is not None for d in decisions.values()),
        )
        await alert_everybody(services, alert)
        await services.until(lambda: finished(crowd.tally, expected))
    assert 0 < expected.accepted < 20
    kinds = [kind for _, kind in replies(services)]
    assert kinds.count(ReplyKind.ACCEPTED) == expected.accepted
    assert {user for user, kind in replies(services) if kind is ReplyKind.ACCEPTED} == {
        user for user, decision in decisions.items() if decision.answer is ReplyKind.ACCEPTED
    }
    assert len(crowd.tally.alert_latencies_s) == 20
    assert (crowd.tally.rejected, crowd.tally.not_confirmed) == (0, 0)


async def test_when_an_incident_closes_nobody_goes_on(
    broker: Any, services: Any, alert: Alert, incident: UUID
) -> None:
    closed = GroupEvent(
        id=incident,
        incident=incident,
        sequence=9,
        kind=GroupEventKind.CLOSED,
        at=datetime.now(UTC),
        member="police",
        members=0,
    )
    async with crowd_on(broker, time_scale=1.0) as crowd:
        await alert_everybody(services, alert)
        await services.until(lambda: len(replies(services)) >= 1)
        answering = [task for task in crowd._answering.values() if not task.done()]
        assert answering
        for user in USERS:
            await services.send(topics.GROUP.topic(user=user), closed)
        await asyncio.wait(answering, timeout=5)
        assert not crowd._answering
        assert crowd.tally.group_events == 20


async def test_a_rejected_reply_is_counted_and_the_person_lives_on(
    broker: Any, services: Any, alert: Alert
) -> None:
    accept = services.answer
    services.answer = lambda message: (
        Receipt(subject=message.subject, outcome=Outcome.REJECTED, at=datetime.now(UTC))
        if topics.REPLY.parse(message.topic)
        else accept(message)
    )
    async with crowd_on(broker) as crowd:
        await alert_everybody(services, alert)
        await services.until(lambda: crowd.tally.rejected == 20)
        count = len(services.received)
        await services.until(lambda: len(services.received) > count + 20)


async def test_an_account_that_is_refused_ends_the_crowd_with_the_reason(
    broker: Any,
) -> None:
    crowd = Crowd(broker, {"p-1": "wrong"}, synthetic_tracks(1, 1, KORENMARKT))
    with pytest.raises(ExceptionGroup) as caught:
        async with crowd:
            pass
    assert caught.group_contains(ConnectionRefused)


async def alert_everybody(services: Any, alert: Alert) -> None:
    for user in USERS:
        own = replace(alert, id=alert_id(alert.incident, 1))
        await services.send(topics.ALERT.topic(user=user), own)


def finished(tally: CrowdCounts, expected: CrowdCounts) -> bool:
    return (
        tally.seen == expected.seen
        and tally.declined == expected.declined
        and tally.accepted == tally.on_scene == expected.accepted
        and (tally.said, tally.left) == (expected.said, expected.left)
    )


async def test_a_crowd_that_publishes_all_the_time_ends_when_it_is_left(
    broker: Any,
    services: Any,  # noqa: ARG001 - confirms the first presences
) -> None:
    async with asyncio.timeout(15):  # Python 3.11's wait_for swallowed the cancellation
        async with crowd_on(broker, time_scale=1_000.0):
            pass
