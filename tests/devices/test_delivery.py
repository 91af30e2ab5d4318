"""A participant with a journal over a real MQTT broker; the services' side is played by the test."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from devices.delivery import TRIES
from devices.journal import UnsentMessage
from devices.participant import (
    Broker,
    Confirm,
    Journal,
    JournalError,
    MessageRejected,
    NotConfirmed,
)
from nabij.local.managed_process import free_port
from schemas import topics
from schemas.codec import Code, encode
from schemas.ids import new_id
from schemas.messages import Outcome, Receipt, ReplyKind, Report, Subject
from tests.devices.conftest import accept
from tests.devices.journaled import KORENMARKT, WITHIN_S, device, sent

pytestmark = pytest.mark.usefixtures("quick")


def fire() -> Report:
    return Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=datetime.now(UTC))


def entry_of(report: Report, age: timedelta = timedelta(0)) -> UnsentMessage:
    topic, made_at = topics.REPORT.topic(user="ann"), datetime.now(UTC) - age
    return UnsentMessage(report.id, Subject.REPORT, topic, encode(report), made_at)


def only_syncs(message: Any) -> Receipt | None:
    return accept(message) if message.subject is Subject.SYNC else None


def rejected(message: Any) -> Receipt:
    return Receipt(
        subject=message.subject,
        outcome=Outcome.REJECTED,
        at=datetime.now(UTC),
        code=Code.UNKNOWN_CATEGORY,
        field="$.category",
        reason="There is no category 'fire'.",
    )


async def test_a_report_is_in_the_journal_before_it_is_sent_and_gone_after_its_receipt(
    broker: Broker, services: Any, journal: Journal
) -> None:
    order: list[object] = []

    def answer(message: Any) -> Receipt:
        if message.subject is Subject.REPORT:
            order.append("sent")
        return accept(message)

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
        services.answer = accept
        async with asyncio.timeout(WITHIN_S):
            await late.get()
        (first, *_) = sent(services, Subject.REPORT)
        await services.send(first.response_topic, accept(first), first.correlation)
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
        services.answer = accept
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
        accept(message) if message.subject is Subject.SYNC else rejected(message)
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
                pass  # a receipt for the device of an earlier test
        assert await journal.entries() == []


async def test_after_72_hours_and_20_tries_it_is_given_up_told_and_not_sent(
    broker: Broker, services: Any, journal: Journal
) -> None:
    given_up, tried_less, younger = fire(), fire(), fire()
    long_ago = timedelta(hours=72, seconds=1)
    for report, age, attempts in (
        (given_up, long_ago, TRIES),
        (tried_less, long_ago, 3),  # the device's clock may have jumped
        (younger, timedelta(hours=71), TRIES),
    ):
        await journal.add(entry_of(report, age))
        journal.note_attempt(report.id, attempts, "No receipt.")
    told: list[UUID] = []
    async with device(broker, journal, on_expired=lambda entry: told.append(entry.id)):
        async with asyncio.timeout(WITHIN_S):
            while await journal.entries():  # noqa: ASYNC110 - there is no event to wait on
                await asyncio.sleep(0.02)
    assert told == [given_up.id]
    ids = {topics.REPORT.decode(m.payload).id for m in sent(services, Subject.REPORT)}
    assert ids == {tried_less.id, younger.id}


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
        services.answer = accept
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
