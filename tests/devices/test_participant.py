"""A participant's device over a real MQTT broker; the services' side is played by the test."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid5

import pytest
from msgspec.structs import replace

from devices import await_receipt as waiting
from devices import device_connection, device_inbox
from devices.device_connection import BrokerUnreachable, ConnectionRefused
from devices.device_inbox import Listeners
from devices.participant import Broker, Confirm, MessageRejected, NotConfirmed, Participant
from nabij.local.embedded import EmbeddedMqtt
from nabij.local.managed_process import free_port
from schemas import topics
from schemas.codec import Code
from schemas.ids import NAMESPACE, new_id
from schemas.messages import (
    Alert,
    GroupEvent,
    GroupEventKind,
    Outcome,
    Position,
    Question,
    Receipt,
    ReplyKind,
    Report,
    Subject,
)
from tests.devices.options import words_of

KORENMARKT = Position(lat=51.0543, lon=3.7217)


def fire() -> Report:
    return Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=datetime.now(UTC))


def receipt_of(message: Any, **more: Any) -> Receipt:
    more = {"outcome": Outcome.ACCEPTED, "at": datetime.now(UTC), **more}
    return Receipt(subject=message.subject, **more)


def rejection_of(message: Any) -> Receipt:
    return receipt_of(
        message,
        outcome=Outcome.REJECTED,
        code=Code.UNKNOWN_CATEGORY,
        field="$.category",
        reason="There is no category 'fire'.",
    )


def device(broker: Broker, **options: Any) -> Participant:
    options = {"receipt_timeout_s": 5.0, "session_expiry_s": 0, **options}
    return Participant("ann", "secret-of-ann", broker, **words_of(Listeners, options))


@pytest.fixture
async def ann(broker: Broker, services: Any) -> AsyncIterator[Participant]:  # noqa: ARG001
    async with device(broker) as ann:
        yield ann


async def test_a_report_returns_its_own_receipt_whatever_the_order(
    ann: Participant, services: Any
) -> None:
    services.answer = lambda _: None
    reports = [fire() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        sending = [group.create_task(ann.report(report)) for report in reports]
        await services.until(lambda: len(services.received) == 3)
        for message in reversed(services.received):
            report = topics.REPORT.decode(message.payload)
            assert message.correlation == report.id.bytes
            receipt = receipt_of(message, id=report.id)
            await services.send(message.response_topic, receipt, message.correlation)
    assert [task.result().id for task in sending] == [report.id for report in reports]


async def test_a_receipt_without_correlation_data_is_matched_by_its_id(
    ann: Participant, services: Any
) -> None:
    services.answer = lambda _: None
    report = fire()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(ann.report(report))
        await services.until(lambda: len(services.received) == 1)
        (message,) = services.received
        await services.send(message.response_topic, receipt_of(message, id=new_id()))
        await services.send(message.response_topic, receipt_of(message, id=report.id, sequence=7))
    assert sending.result().sequence == 7


async def test_a_report_without_a_receipt_is_not_confirmed_though_the_broker_acknowledged_it(
    broker: Broker, services: Any
) -> None:
    services.answer = lambda _: None
    async with device(broker, receipt_timeout_s=0.3) as ann:
        with pytest.raises(NotConfirmed, match=r"Not confirmed\. Call 112 if it is urgent\."):
            await ann.report(fire())
    assert len(services.received) == 1


async def test_a_report_is_repeated_unchanged_until_its_receipt_comes(
    ann: Participant, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REPEAT_AFTER_S", 0.05)
    attempt = count(1)
    services.answer = lambda message: receipt_of(message) if next(attempt) == 3 else None
    await ann.report(fire())
    assert len(services.received) >= 3
    assert len({(message.payload, message.correlation) for message in services.received}) == 1


async def test_a_rejected_report_raises_with_code_field_and_reason(
    ann: Participant, services: Any
) -> None:
    services.answer = rejection_of
    with pytest.raises(
        MessageRejected, match=r"unknown_category at \$\.category: There is no"
    ) as caught:
        await ann.report(fire())
    assert caught.value.receipt.code is Code.UNKNOWN_CATEGORY


async def test_a_confirmed_presence_returns_its_receipt_and_an_unconfirmed_one_asks_for_none(
    ann: Participant, services: Any
) -> None:
    assert await ann.presence(KORENMARKT) is None
    receipt = await ann.presence(KORENMARKT, confirm=Confirm.YES)
    assert receipt is not None
    assert receipt.subject is Subject.PRESENCE
    unconfirmed, confirmed = services.received
    assert (unconfirmed.response_topic, unconfirmed.correlation) == (None, None)
    assert confirmed.response_topic == topics.RECEIPT.topic(user="ann")


async def test_a_receipt_that_nobody_awaits_reaches_on_receipt(
    broker: Broker, services: Any
) -> None:
    unawaited: asyncio.Queue[Receipt] = asyncio.Queue()
    async with device(broker, on_receipt=lambda receipt, _: unawaited.put_nowait(receipt)) as ann:
        await ann.presence(KORENMARKT)
        await services.until(lambda: len(services.received) == 1)
        (presence,) = services.received
        await services.send(topics.RECEIPT.topic(user="ann"), rejection_of(presence))
        assert (await unawaited.get()).outcome is Outcome.REJECTED


async def test_replies_messages_answers_and_syncs_are_confirmed(
    ann: Participant, services: Any, incident: UUID
) -> None:
    receipts = [
        await ann.reply(incident, ReplyKind.ACCEPTED, eta_s=240),
        await ann.say(incident, "Ik kom eraan."),
        await ann.answer(new_id(), "Twee personen."),
        await ann.sync(datetime.now(UTC)),
    ]
    assert [receipt.subject for receipt in receipts] == ["reply", "message", "answer", "sync"]
    reply = topics.REPLY.decode(services.received[0].payload)
    assert (reply.incident, reply.kind, reply.eta_s) == (incident, ReplyKind.ACCEPTED, 240)


async def test_a_repeated_alert_is_counted_once(
    broker: Broker, services: Any, alert: Alert
) -> None:
    shown: list[tuple[Alert, float]] = []
    async with device(broker, on_alert=lambda *seen: shown.append(seen)) as ann:
        before = datetime.now(UTC).timestamp()
        for _ in range(3):
            await services.send(topics.ALERT.topic(user="ann"), alert)
        await ann.sync(datetime.now(UTC))  # its receipt comes after them
        assert [shown_alert for shown_alert, _ in shown] == [alert]
        assert ann.alerts == {alert.id: alert}
        assert ann.repeats == {alert.id: 2}
        assert before <= shown[0][1] <= datetime.now(UTC).timestamp()


async def test_a_device_that_runs_for_months_keeps_the_newest_only(
    broker: Broker, services: Any, alert: Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_inbox, "KEPT", 3)
    several = [replace(alert, id=new_id()) for _ in range(5)]
    shown: list[Alert] = []
    async with device(broker, on_alert=lambda one, _: shown.append(one)) as ann:
        for one in several:
            await services.send(topics.ALERT.topic(user="ann"), one)
        await ann.sync(datetime.now(UTC))  # its receipt comes after them

        assert len(shown) == 5
        assert list(ann.alerts.values()) == several[-3:]


async def test_group_events_are_kept_in_order_of_sequence_and_once(
    ann: Participant, services: Any, incident: UUID
) -> None:
    events = [
        GroupEvent(
            id=uuid5(NAMESPACE, str(number)),
            incident=incident,
            sequence=number,
            kind=GroupEventKind.SAID,
            at=datetime.now(UTC),
            member="helper-1",
            members=2,
            text=str(number),
        )
        for number in range(4)
    ]
    for number in (2, 0, 3, 2, 1):
        await services.send(topics.GROUP.topic(user="ann"), events[number])
    await ann.sync(datetime.now(UTC))
    assert ann.groups == {incident: events}
    assert ann.repeats == {events[2].id: 1}


async def test_a_question_reaches_on_question(
    broker: Broker, services: Any, incident: UUID
) -> None:
    asked: list[Question] = []
    question = Question(
        id=new_id(), incident=incident, report=new_id(), text="Waar?", asked_at=datetime.now(UTC)
    )
    async with device(broker, on_question=lambda question, _: asked.append(question)) as ann:
        await services.send(topics.QUESTION.topic(user="ann"), question)
        await ann.sync(datetime.now(UTC))
    assert asked == [question]


async def test_a_message_that_cannot_be_read_costs_only_itself(
    ann: Participant, services: Any, alert: Alert
) -> None:
    topic = topics.ALERT.topic(user="ann")
    await services.client.publish(topic, b"not JSON", qos=1)
    await services.client.publish(topic, b"", qos=1)
    await services.send(topic, alert)
    await ann.sync(datetime.now(UTC))
    assert list(ann.alerts) == [alert.id]
    assert ann.connections == 1


async def test_a_callback_that_fails_costs_only_its_message(
    broker: Broker, services: Any, alert: Alert
) -> None:
    def fail(_alert: Alert, _received_at: float) -> None:
        raise RuntimeError("on purpose")

    async with device(broker, on_alert=fail) as ann:
        await services.send(topics.ALERT.topic(user="ann"), alert)
        await ann.sync(datetime.now(UTC))
        assert ann.connections == 1


async def test_every_connection_goes_without_nagle(ann: Participant) -> None:
    link = await ann._connection.link()
    connection = link.client._client.socket()
    assert isinstance(connection, socket.socket)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_wrong_password_is_refused_at_once(
    broker: Broker,
) -> None:
    with pytest.raises(ConnectionRefused):
        async with Participant("ann", "wrong", broker):
            pass


async def test_nobody_there_is_unreachable() -> None:
    nobody = Broker("127.0.0.1", free_port())
    with pytest.raises(BrokerUnreachable, match="no MQTT broker at 127"):
        async with device(nobody, connect_timeout_s=0.3):
            pass


async def test_an_mqtt_broker_that_takes_the_connection_and_is_silent_is_asked_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_connection, "ANSWER_BASE_S", 0.1)
    calls = 0

    async def first_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await reader.read()
            return
        there, back = await asyncio.open_connection(broker.host, broker.port)

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    async with await asyncio.start_server(first_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with device(Broker("127.0.0.1", port), connect_timeout_s=5.0) as ann:
            assert ann.connected
    assert calls >= 2


async def test_an_alert_sent_while_the_device_was_away_awaits_its_return(
    own_mqtt: EmbeddedMqtt, services_on: Any, alert: Alert
) -> None:
    broker = Broker(own_mqtt.host, own_mqtt.port)
    async with services_on(own_mqtt) as services:
        async with device(broker, session_expiry_s=60):
            pass
        await services.send(topics.ALERT.topic(user="ann"), alert)
        async with device(broker, session_expiry_s=60) as ann:
            await ann.sync(datetime.now(UTC))
            assert list(ann.alerts) == [alert.id]


async def test_a_device_reconnects_and_subscribes_again_after_the_broker_was_killed(
    own_mqtt: EmbeddedMqtt, services_on: Any, alert: Alert
) -> None:
    async with device(Broker(own_mqtt.host, own_mqtt.port)) as ann:
        first = await ann._connection.link()
        await own_mqtt.kill()
        await first.lost
        await own_mqtt.restart()
        async with asyncio.timeout(10):
            await ann.connect()
        async with services_on(own_mqtt) as services:
            await services.send(topics.ALERT.topic(user="ann"), alert)
            await ann.sync(datetime.now(UTC))
        assert list(ann.alerts) == [alert.id]
        assert ann.connections == 2


async def test_a_report_made_while_the_broker_is_down_is_confirmed_when_it_is_back(
    own_mqtt: EmbeddedMqtt, services_on: Any
) -> None:
    broker = Broker(own_mqtt.host, own_mqtt.port)
    async with device(broker, receipt_timeout_s=10.0) as ann, asyncio.TaskGroup() as group:
        await own_mqtt.kill()
        sending = group.create_task(ann.report(fire()))
        await own_mqtt.restart()
        async with services_on(own_mqtt):
            assert (await sending).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [("mqtt://localhost", "localhost", 1883), ("mqtt://10.0.0.1:2883", "10.0.0.1", 2883)],
)
def test_a_url_names_the_broker(url: str, host: str, port: int) -> None:
    assert Broker.from_url(url) == Broker(host, port)


def test_a_url_over_tls_checks_the_certificate() -> None:
    broker = Broker.from_url("mqtts://broker.example")
    assert broker.port == 8883
    assert broker.tls is not None
    assert broker.tls.check_hostname


@pytest.mark.parametrize("url", ["localhost:1883", "http://localhost", "mqtt://", "mqtt://h:no"])
def test_what_is_no_mqtt_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"MQTT URL|[Pp]ort"):
        Broker.from_url(url)
