"""What a device missed it asks for, over a real MQTT broker; the services' side is played by the test."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from devices.participant import Broker, Confirm, Journal
from devices.sync import FIRST, OVERLAP
from nabij.local.embedded import EmbeddedMqtt
from schemas import topics
from schemas.codec import Code
from schemas.ids import NAMESPACE, new_id
from schemas.messages import Alert, Brief, GroupEvent, GroupEventKind, Outcome, Receipt, Subject
from tests.devices.conftest import accept
from tests.devices.journaled import KORENMARKT, WITHIN_S, device, sent

pytestmark = pytest.mark.usefixtures("quick")


def said(incident: UUID, sequence: int) -> GroupEvent:
    return GroupEvent(
        id=uuid5(NAMESPACE, str(sequence)),
        incident=incident,
        sequence=sequence,
        kind=GroupEventKind.SAID,
        at=datetime.now(UTC),
        member="helper-1",
        members=2,
    )


@pytest.fixture
def brief(alert: Alert) -> Brief:
    return Brief(
        id=alert.id,
        incident=alert.incident,
        category=alert.category,
        lat=alert.location.lat,
        lon=alert.location.lon,
        expires_at=alert.expires_at,
        call="112",
    )


async def test_each_connection_asks_for_what_was_missed_since_the_last_sync_and_names_what_was_not(
    own_mqtt: EmbeddedMqtt, services_on: Any, journal: Journal, alert: Alert
) -> None:
    broker = Broker(own_mqtt.host, own_mqtt.port)
    at = datetime(2026, 11, 20, 10, tzinfo=UTC)

    def answer(message: Any) -> Receipt:
        return Receipt(subject=message.subject, outcome=Outcome.ACCEPTED, at=at)

    async with services_on(own_mqtt) as services:
        services.answer = answer
        group_heard = asyncio.Event()
        async with device(broker, journal, on_group=lambda *_: group_heard.set()) as ann:
            await services.until(lambda: len(services.received) == 1)
            await ann.presence(KORENMARKT, confirm=Confirm.YES)  # the sync's receipt came before
            assert journal.synced_at == at
            event = GroupEvent(
                id=new_id(),
                incident=alert.incident,
                sequence=3,
                kind=GroupEventKind.SAID,
                member="helper-1",
                members=2,
                at=at,
                text="Where?",
            )
            await services.send(topics.ALERT.topic(user="ann"), alert)
            await services.send(topics.GROUP.topic(user="ann"), event)
            async with asyncio.timeout(5):
                await group_heard.wait()
            await own_mqtt.kill()
            await own_mqtt.restart()
            async with services_on(own_mqtt) as again:
                again.answer = answer
                await again.until(lambda: bool(sent(again, Subject.SYNC)))
                second = topics.SYNC.decode(sent(again, Subject.SYNC)[0].payload)
    first = topics.SYNC.decode(services.received[0].payload)
    assert abs(datetime.now(UTC) - FIRST - OVERLAP - first.since) < timedelta(minutes=1)
    assert not first.alerts
    assert second.since == at - OVERLAP
    assert second.alerts == {alert.id}
    assert second.groups == {alert.incident: {3}}


async def test_a_device_whose_clock_is_days_ahead_asks_by_the_clock_of_the_services(
    broker: Broker, services: Any, journal: Journal
) -> None:
    at = datetime(2026, 11, 20, 10, tzinfo=UTC)
    journal.note_synced(at + timedelta(days=3))

    def answer(message: Any) -> Receipt:
        if message.subject is Subject.PRESENCE:
            return accept(message)
        if topics.SYNC.decode(message.payload).since < at:
            return Receipt(subject=Subject.SYNC, outcome=Outcome.ACCEPTED, at=at)
        return Receipt(
            subject=Subject.SYNC,
            outcome=Outcome.REJECTED,
            at=at,
            code=Code.TOO_FAR_AHEAD,
            field="$.since",
            reason="The time is more than 5 minutes ahead of ours.",
        )

    services.answer = answer
    async with device(broker, journal) as ann:
        await services.until(lambda: len(services.received) == 2)
        await ann.presence(KORENMARKT, confirm=Confirm.YES)  # the sync's receipt came before
    assert journal.synced_at == at
    assert topics.SYNC.decode(services.received[1].payload).since == at - FIRST - OVERLAP


async def test_what_was_shown_before_a_restart_is_not_shown_again(
    broker: Broker, services: Any, journal: Journal, alert: Alert
) -> None:
    shown: list[Alert] = []
    for _ in range(2):
        async with device(broker, journal, on_alert=lambda alert, _: shown.append(alert)) as ann:
            await services.send(topics.ALERT.topic(user="ann"), alert)
            await ann.sync(datetime.now(UTC))
    assert shown == [alert]
    assert ann.repeats == {alert.id: 1}


async def test_an_alert_is_heard_once_in_each_form_and_not_again_after_a_restart(  # noqa: PLR0917 - fixtures
    broker: Broker, services: Any, journal: Journal, alert: Alert, brief: Brief
) -> None:
    shown: list[Alert | Brief] = []
    for _ in range(2):
        async with device(
            broker,
            journal,
            on_alert=lambda alert, _: shown.append(alert),
            on_brief=lambda brief, _: shown.append(brief),
        ) as ann:
            await services.send(topics.BRIEF.topic(user="ann"), brief)
            await services.send(topics.ALERT.topic(user="ann"), alert)
            await ann.sync(datetime.now(UTC))
    assert shown == [brief, alert]
    assert ann.repeats == {alert.id: 2}


async def test_a_small_device_names_the_briefs_that_came_in_its_sync(
    broker: Broker, services: Any, journal: Journal, brief: Brief
) -> None:
    heard = asyncio.Event()
    async with device(
        broker, journal, on_brief=lambda *_: heard.set(), deaf_to=(topics.ALERT,)
    ) as ann:
        await services.until(lambda: bool(sent(services, Subject.SYNC)))
        await services.send(topics.BRIEF.topic(user="ann"), brief)
        async with asyncio.timeout(WITHIN_S):
            await heard.wait()
        assert ann.briefs == {brief.id: brief}
        for sequence in (1, 3):  # a gap makes it ask
            await services.send(topics.GROUP.topic(user="ann"), said(brief.incident, sequence))
        await services.until(lambda: len(sent(services, Subject.SYNC)) == 2)
    first, second = (topics.SYNC.decode(one.payload) for one in sent(services, Subject.SYNC))
    assert (first.alerts, second.alerts) == (frozenset(), {brief.id})


async def test_a_gap_in_a_groups_sequence_is_asked_for_and_repeats_are_dropped(
    broker: Broker, services: Any, journal: Journal, incident: UUID
) -> None:
    heard: list[int] = []
    events = {number: said(incident, number) for number in range(4, 9)}

    async def send(*numbers: int) -> None:
        for number in numbers:
            await services.send(topics.GROUP.topic(user="ann"), events[number])

    for numbers in ((4, 5), (5, 6)):
        async with device(broker, journal, on_group=lambda e, _: heard.append(e.sequence)) as ann:
            await services.until(lambda: bool(sent(services, Subject.SYNC)))
            await send(*numbers)
            await ann.presence(KORENMARKT, confirm=Confirm.YES)
    assert heard == [4, 5, 6]
    async with device(broker, journal, on_group=lambda e, _: heard.append(e.sequence)) as ann:
        await ann.presence(KORENMARKT, confirm=Confirm.YES)
        await services.until(lambda: len(sent(services, Subject.SYNC)) == 3)
        await send(8)
        await services.until(lambda: len(sent(services, Subject.SYNC)) == 4)
        await send(7, 8)
        await ann.presence(KORENMARKT, confirm=Confirm.YES)
    assert heard == [4, 5, 6, 8, 7]
    assert journal.heard == {incident: 8}


async def test_what_comes_out_of_order_is_no_gap(
    broker: Broker, services: Any, journal: Journal, incident: UUID
) -> None:
    """Events go by several workers, and pass each other: a question each would be a storm."""
    heard: list[int] = []

    async def send(number: int, kind: GroupEventKind = GroupEventKind.SAID) -> None:
        event = GroupEvent(
            id=uuid5(NAMESPACE, str(number)),
            incident=incident,
            sequence=number,
            kind=kind,
            at=datetime.now(UTC),
            member="helper-1",
            members=2,
            you="helper-1",
        )
        await services.send(topics.GROUP.topic(user="ann"), event)

    async with device(broker, journal, on_group=lambda e, _: heard.append(e.sequence)) as ann:
        await services.until(lambda: len(sent(services, Subject.SYNC)) == 1)
        for number in (1, 3, 2, 5, 4):
            await send(number)
        await send(6, GroupEventKind.LEFT)  # and what comes while ann is outside is not missing
        await send(9, GroupEventKind.CLOSED)
        await asyncio.sleep(0.5)  # ten times as long as a gap waits
        await ann.presence(KORENMARKT, confirm=Confirm.YES)
        assert heard == [1, 3, 2, 5, 4, 6, 9]
        assert len(sent(services, Subject.SYNC)) == 1
