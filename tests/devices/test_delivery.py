"""A participant with a journal over a real MQTT broker; the services' side is played by the test."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest

from devices import delivery, sync
from devices.device_inbox import Listeners
from devices.journal import UnsentMessage
from devices.participant import (
    Broker,
    Confirm,
    Journal,
    JournalError,
    MessageRejected,
    NotConfirmed,
    Participant,
)
from devices.sync import FIRST, OVERLAP
from nabij.local.embedded import EmbeddedMqtt
from nabij.local.managed_process import free_port
from schemas import topics
from schemas.codec import Code, encode
from schemas.ids import NAMESPACE, new_id
from schemas.messages import (
    Alert,
    Brief,
    GroupEvent,
    GroupEventKind,
    Outcome,
    Position,
    Receipt,
    ReplyKind,
    Report,
    Subject,
)
from tests.devices.options import words_of

KORENMARKT = Position(lat=51.0543, lon=3.7217)
WITHIN_S = 10.0


def fire() -> Report:
    return Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=datetime.now(UTC))


def entry_of(report: Report, age: timedelta = timedelta(0)) -> UnsentMessage:
    topic, made_at = topics.REPORT.topic(user="ann"), datetime.now(UTC) - age
    return UnsentMessage(report.id, Subject.REPORT, topic, encode(report), made_at)


def accepted(message: Any) -> Receipt:
    return Receipt(subject=message.subject, outcome=Outcome.ACCEPTED, at=datetime.now(UTC))


def only_syncs(message: Any) -> Receipt | None:
    return accepted(message) if message.subject is Subject.SYNC else None


def rejected(message: Any) -> Receipt:
    return Receipt(
        subject=message.subject,
        outcome=Outcome.REJECTED,
        at=datetime.now(UTC),
        code=Code.UNKNOWN_CATEGORY,
        field="$.category",
        reason="There is no category 'fire'.",
    )


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


def sent(services: Any, subject: Subject) -> list[Any]:
    return [message for message in services.received if message.subject is subject]


def device(broker: Broker, journal: Journal, **options: Any) -> Participant:
    options = {"receipt_timeout_s": 5.0, "session_expiry_s": 0, "connect_timeout_s": 1.0, **options}
    return Participant(
        "ann", "secret-of-ann", broker, journal=journal, **words_of(Listeners, options)
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


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "ann.journal") as journal:
        yield journal


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RECEIPT_WITHIN_S", 0.02)
    monkeypatch.setattr(delivery, "RETRY_MOST_S", 0.05)
    monkeypatch.setattr(sync, "_LATE_S", 0.05)
    monkeypatch.setattr(sync, "_BACK_S", 0.0)
    monkeypatch.setattr(sync, "_GAP_APART_S", 0.0)


async def test_a_report_is_in_the_journal_before_it_is_sent_and_gone_after_its_receipt(
    broker: Broker, services: Any, journal: Journal
) -> None:
    order: list[object] = []

    def answer(message: Any) -> Receipt:
        if message.subject is Subject.REPORT:
            order.append("sent")
        return accepted(message)

    services.answer = answer
    report = fire()
    async with device(broker, journal, on_journaled=lambda entry: order.append(entry.id)) as ann:
        await ann.report(report)
        assert await journal.entries() == []
    assert order[:2] == [report.id, "sent"]  # and perhaps once more, where the receipt takes long
    (message, *_) = sent(services, Subject.REPORT)
    assert message.response_topic == topics.RECEIPT.topic(user="ann")
    assert message.correlation == report.id.bytes


async def test_replies_messages_and_answers_are_journaled_too_and_presence_is_not(
    broker: Broker, services: Any, journal: Journal, incident: UUID
) -> None:
    journaled: list[Subject] = []
    async with device(broker, journal, on_journaled=lambda e: journaled.append(e.subject)) as ann:
        await ann.reply(incident, ReplyKind.SEEN)
        await ann.say(incident, "Ik kom eraan.")
        await ann.answer(new_id(), "Twee personen.")
        await ann.presence(KORENMARKT, confirm=Confirm.YES)
    assert len(sent(services, Subject.PRESENCE)) == 1
    assert journaled == [Subject.REPLY, Subject.MESSAGE, Subject.ANSWER]


async def test_after_not_confirmed_it_goes_on_and_the_late_receipt_reaches_on_receipt_once(
    broker: Broker, services: Any, journal: Journal
) -> None:
    late: asyncio.Queue[Receipt] = asyncio.Queue()
    warned: list[UUID] = []
    services.answer = only_syncs
    async with device(
        broker,
        journal,
        receipt_timeout_s=0.3,
        on_receipt=lambda receipt, _: late.put_nowait(receipt),
        on_unconfirmed=lambda entry: warned.append(entry.id),
    ) as ann:
        report = fire()
        with pytest.raises(NotConfirmed):
            await ann.report(report)
        assert [entry.id for entry in await journal.entries()] == [report.id]
        services.answer = accepted
        async with asyncio.timeout(WITHIN_S):
            await late.get()
        (first, *_) = sent(services, Subject.REPORT)
        await services.send(first.response_topic, accepted(first), first.correlation)
        await ann.sync(datetime.now(UTC))  # its receipt comes after the repeated one
        assert late.empty()
        assert await journal.entries() == []
    assert warned == [report.id]
    assert len({(m.payload, m.correlation) for m in sent(services, Subject.REPORT)}) == 1


async def test_a_new_participant_goes_on_with_the_journal_and_is_warned_of_what_is_unconfirmed(
    broker: Broker, services: Any, journal: Journal
) -> None:
    reports = [fire() for _ in range(3)]
    for report in reports:
        await journal.add(entry_of(report))
    services.answer = only_syncs
    warned: asyncio.Queue[UUID] = asyncio.Queue()
    receipts: asyncio.Queue[Receipt] = asyncio.Queue()
    async with (
        asyncio.timeout(WITHIN_S),
        device(
            broker,
            journal,
            receipt_timeout_s=0.2,
            on_receipt=lambda receipt, _: receipts.put_nowait(receipt),
            on_unconfirmed=lambda entry: warned.put_nowait(entry.id),
        ),
    ):
        assert [await warned.get() for _ in reports] == [report.id for report in reports]
        services.answer = accepted
        while await journal.entries():  # a report that was sent twice has two receipts
            await receipts.get()
    firsts = [topics.REPORT.decode(m.payload).id for m in sent(services, Subject.REPORT)[:3]]
    assert firsts == [report.id for report in reports]


async def test_without_any_mqtt_broker_a_report_is_kept_and_its_user_warned(
    journal: Journal,
) -> None:
    warned: asyncio.Queue[UUID] = asyncio.Queue()
    async with device(
        Broker("127.0.0.1", free_port()),
        journal,
        connect_timeout_s=0.1,
        receipt_timeout_s=0.1,
        on_unconfirmed=lambda entry: warned.put_nowait(entry.id),
    ) as ann:
        assert not ann.connected
        report = fire()
        with pytest.raises(NotConfirmed, match="Call 112"):
            await ann.report(report)
        assert await warned.get() == report.id
    assert [entry.id for entry in await journal.entries()] == [report.id]


async def test_a_rejection_is_handed_over_and_ends_it(
    broker: Broker, services: Any, journal: Journal
) -> None:
    services.answer = lambda message: (
        accepted(message) if message.subject is Subject.SYNC else rejected(message)
    )
    late: asyncio.Queue[Receipt] = asyncio.Queue()
    await journal.add(entry_of(fire()))
    async with device(
        broker, journal, on_receipt=lambda receipt, _: late.put_nowait(receipt)
    ) as ann:
        with pytest.raises(MessageRejected, match="unknown_category"):
            await ann.report(fire())
        async with asyncio.timeout(WITHIN_S):
            while (await late.get()).code is not Code.UNKNOWN_CATEGORY:
                pass  # rumqttd kept a receipt for the device of an earlier test
        assert await journal.entries() == []


async def test_after_72_hours_it_is_given_up_told_and_not_sent(
    broker: Broker, services: Any, journal: Journal
) -> None:
    old, young = fire(), fire()
    await journal.add(entry_of(old, timedelta(hours=72, seconds=1)))
    await journal.add(entry_of(young, timedelta(hours=71)))
    told: list[UUID] = []
    receipts: asyncio.Queue[Receipt] = asyncio.Queue()
    async with device(
        broker,
        journal,
        on_expired=lambda entry: told.append(entry.id),
        on_receipt=lambda receipt, _: receipts.put_nowait(receipt),
    ):
        async with asyncio.timeout(WITHIN_S):
            await receipts.get()
    assert told == [old.id]
    ids = {topics.REPORT.decode(m.payload).id for m in sent(services, Subject.REPORT)}
    assert ids == {young.id}
    assert await journal.entries() == []


async def test_a_full_disk_is_told_before_anything_is_sent(
    broker: Broker, services: Any, journal: Journal
) -> None:
    async def fill() -> None:
        while True:
            await journal.add(entry_of(fire()))

    async with device(broker, journal) as ann:
        assert journal._connection
        ((pages,),) = journal._connection.execute("PRAGMA page_count")
        journal._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalError, match="the disk is full"):
            await fill()
        with pytest.raises(JournalError, match="call 112"):
            await ann.report(fire())
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        await ann.report(report := fire())
    ids = {topics.REPORT.decode(m.payload).id for m in sent(services, Subject.REPORT)}
    assert ids == {report.id}


async def test_the_same_report_twice_is_one_message_and_another_under_its_id_is_refused(
    broker: Broker, services: Any, journal: Journal
) -> None:
    services.answer = only_syncs
    report = fire()
    other = Report(id=report.id, category="fight", location=KORENMARKT, seen_at=datetime.now(UTC))
    async with device(broker, journal) as ann, asyncio.TaskGroup() as group:
        twice = [group.create_task(ann.report(report)) for _ in range(2)]
        await services.until(lambda: bool(sent(services, Subject.REPORT)))
        with pytest.raises(ValueError, match="another message"):
            await ann.report(other)
        services.answer = accepted
        assert (await twice[0]) == (await twice[1])


async def test_attempts_and_what_came_of_them_are_in_the_journal(
    broker: Broker, services: Any, journal: Journal
) -> None:
    services.answer = only_syncs
    async with device(broker, journal, receipt_timeout_s=0.2) as ann:
        with pytest.raises(NotConfirmed):
            await ann.report(fire())
        await services.until(lambda: len(sent(services, Subject.REPORT)) >= 3)
        async with asyncio.timeout(10.0):
            (entry,) = await journal.entries()
            while entry.attempts < 2 or not entry.last_error:
                await asyncio.sleep(0.02)
                (entry,) = await journal.entries()
    assert entry.last_error == "No receipt."


async def test_another_users_journal_is_refused(broker: Broker, journal: Journal) -> None:
    await journal.belong_to("bob")
    with pytest.raises(JournalError, match="of bob, not of ann"):
        async with device(broker, journal):
            pass


# -- catching up -----------------------------------------------------------------------------------


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
            return accepted(message)
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
