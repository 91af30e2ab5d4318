"""Devices hear, over a real MQTT broker, what a later version of Nabij sends."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from devices.participant import (
    Broker,
    DeviceOptions,
    Journal,
    Listeners,
    MessageRejected,
    Participant,
)
from devices.police_desk import DeskListeners, PoliceDesk
from schemas import topics
from schemas.codec import Code, encode
from schemas.examples import EXAMPLES
from schemas.ids import new_id
from schemas.messages import (
    Alert,
    Escalation,
    EscalationKind,
    Outcome,
    Position,
    Receipt,
    Report,
    Status,
    Subject,
)
from schemas.taxonomy import Priority

KORENMARKT = Position(lat=51.0543, lon=3.7217)


def later(message: Struct, **fields: Any) -> bytes:
    """Return `message` with `fields`, and with one that nobody knows today."""
    return json.dumps({**json.loads(encode(message)), "mood": {"of": "the day"}, **fields}).encode()


async def test_a_report_refused_with_a_later_code_is_refused_once_and_for_all(
    broker: Broker, services: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, the device dropped the receipt, and sent the report for 72 hours."""
    caplog.set_level(logging.INFO, "devices")
    services.answer = lambda _: None
    report = Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=datetime.now(UTC))
    async with (
        Journal(tmp_path / "ann.journal") as journal,
        Participant(
            "ann",
            "secret-of-ann",
            broker,
            journal=journal,
            options=DeviceOptions(session_expiry_s=0),
        ) as ann,
    ):
        sending = asyncio.create_task(ann.report(report))
        await services.until(lambda: any(m.topic.endswith("report") for m in services.received))
        refused = Receipt(
            subject=Subject.REPORT,
            outcome=Outcome.REJECTED,
            at=datetime.now(UTC),
            id=report.id,
            code=Code.TOO_OLD,
            field="$",
            reason="Too many today.",
        )
        payload = later(refused, code="quota_exceeded", subject="bulk")
        await services.client.publish(topics.RECEIPT.topic(user="ann"), payload, qos=1)
        with pytest.raises(MessageRejected, match=r"other at \$: Too many today\."):
            await sending
        assert await journal.entries() == []
    assert "'quota_exceeded' is not known here, and was read as 'other'" in caplog.text


async def test_a_later_outcome_is_none_that_a_report_is_taken_by(
    broker: Broker, services: Any
) -> None:
    services.answer = lambda _: None
    report = Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=datetime.now(UTC))
    async with Participant(
        "ann", "secret-of-ann", broker, options=DeviceOptions(session_expiry_s=0)
    ) as ann:
        sending = asyncio.create_task(ann.report(report))
        await services.until(lambda: bool(services.received))
        receipt = Receipt(
            subject=Subject.REPORT, outcome=Outcome.ACCEPTED, at=datetime.now(UTC), id=report.id
        )
        payload = later(receipt, outcome="deferred")
        await services.client.publish(topics.RECEIPT.topic(user="ann"), payload, qos=1)
        with pytest.raises(MessageRejected, match="neither that it is accepted nor why not"):
            await sending


async def test_an_alert_of_a_later_reason_in_a_later_language_is_shown(
    broker: Broker, services: Any
) -> None:
    shown: asyncio.Queue[Alert] = asyncio.Queue()
    async with Participant(
        "ann",
        "secret-of-ann",
        broker,
        listeners=Listeners(on_alert=lambda alert, _: shown.put_nowait(alert)),
        options=DeviceOptions(session_expiry_s=0),
    ):
        alert = EXAMPLES["alert"]
        names = {**json.loads(encode(alert.names)), "de": "Brand"}
        payload = later(alert, reason="drifted_in", urgency="extreme", names=names)
        await services.client.publish(topics.ALERT.topic(user="ann"), payload, qos=1)
        heard = await asyncio.wait_for(shown.get(), 10)
    assert (heard.id, heard.names, heard.urgency) == (alert.id, alert.names, "urgent")


async def test_a_desk_hears_and_confirms_an_escalation_and_a_state_of_a_later_version(
    broker: Broker, services: Any
) -> None:
    await services.client.subscribe("nabij/v1/police/+/up/receipt", 1)
    states: asyncio.Queue[Any] = asyncio.Queue()
    async with PoliceDesk(
        "desk-gent",
        "secret-of-gent",
        broker,
        zones=["gent"],
        listeners=DeskListeners(on_state=lambda state, _: states.put_nowait(state)),
        options=DeviceOptions(session_expiry_s=0),
    ) as desk:
        escalation: Escalation = replace(EXAMPLES["escalation"], zone="gent")
        payload = later(escalation, kind="drone", priority="p0", language="de")
        topic = topics.ESCALATION.topic(zone="gent", priority="p0")
        await services.client.publish(topic, payload, qos=1)
        heard = await asyncio.wait_for(desk.next_escalation(), 10)
        assert (heard.id, heard.text) == (escalation.id, escalation.text)
        assert (heard.kind, heard.priority) == (EscalationKind.OTHER, Priority.P1)
        await services.until(lambda: any(b"ids" in m.payload for m in services.received))
        (word,) = [m for m in services.received if b"ids" in m.payload]
        assert topics.DESK_DELIVERED.decode(word.payload).ids == {escalation.id}

        state = EXAMPLES["incident"]
        topic = topics.INCIDENT.topic(zone="gent", incident=str(state.incident))
        await services.client.publish(topic, later(state, status="handed_over"), qos=1)
        shown = await asyncio.wait_for(states.get(), 10)
        assert (shown.incident, shown.status) == (state.incident, Status.OPEN)
