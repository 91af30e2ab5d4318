"""A police desk over a real MQTT broker; the services' side is played by the test."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from devices.device_connection import ConnectionRefused
from devices.police_desk import DeskListeners, MessageRejected, PoliceDesk
from nabij.local.embedded import MqttEngine
from schemas import topics
from schemas.codec import Code, encode
from schemas.ids import escalation_id, new_id
from schemas.messages import (
    Acknowledge,
    Ask,
    Assign,
    Close,
    Escalation,
    EscalationKind,
    IncidentState,
    Inform,
    Outcome,
    Position,
    Receipt,
    SetStatus,
    Status,
    Subject,
)
from schemas.taxonomy import Priority
from tests.devices.options import words_of

KORENMARKT = Position(lat=51.0543, lon=3.7217)
TOPIC = topics.ESCALATION.topic(zone="gent", priority="p1")


@pytest.fixture
def escalation(incident: UUID) -> Escalation:
    report = new_id()
    return Escalation(
        id=escalation_id(report),
        kind=EscalationKind.NEW,
        incident=incident,
        version=1,
        zone="gent",
        priority=Priority.P1,
        category="fire",
        location=KORENMARKT,
        committed_at=datetime.now(UTC),
        report=report,
    )


@pytest.fixture
def state(incident: UUID) -> IncidentState:
    return IncidentState(
        incident=incident,
        version=4,
        status=Status.OPEN,
        category="fire",
        priority=Priority.P1,
        zone="gent",
        location=KORENMARKT,
        radius_m=500.0,
        wave=1,
        opened_at=datetime.now(UTC),
        seen_at=datetime.now(UTC),
        updated_at=datetime.now(UTC),
        reports=1,
    )


def desk_in(broker: Any, **options: Any) -> PoliceDesk:
    options = {"zones": ["gent"], "receipt_timeout_s": 5.0, "session_expiry_s": 0, **options}
    return PoliceDesk("desk-gent", "secret-of-gent", broker, **words_of(DeskListeners, options))


@pytest.fixture
async def desk(broker: Any, services: Any) -> AsyncIterator[PoliceDesk]:  # noqa: ARG001
    async with desk_in(broker) as desk:
        yield desk


async def test_a_repeated_escalation_is_counted_once(
    broker: Any, services: Any, escalation: Escalation
) -> None:
    shown: list[Escalation] = []
    async with desk_in(broker, on_escalation=lambda seen, _: shown.append(seen)) as desk:
        await services.send(TOPIC, escalation)
        await services.send(TOPIC, escalation)
        assert await desk.next_escalation() == escalation
        await desk.acknowledge(escalation.incident)  # its receipt comes after the repeat
        assert shown == [escalation]
        assert desk.repeats == {escalation.id: 1}
        assert desk.received_at[escalation.id] > escalation.committed_at.timestamp()


async def test_every_command_reaches_the_zone_of_its_incident_signed(
    desk: PoliceDesk, services: Any, escalation: Escalation
) -> None:
    await services.send(TOPIC, escalation)
    incident = (await desk.next_escalation()).incident
    await desk.acknowledge(incident)
    await desk.assign(incident, "Adam 12")
    await desk.set_status(incident, Status.ON_SCENE)
    await desk.ask(incident, "Hoeveel personen?", escalation.report)
    await desk.inform(incident, "Blijf op afstand.")
    await desk.close(incident, "Geblust.")
    commands = [topics.COMMAND.decode(message.payload) for message in services.received]
    assert [type(command) for command in commands] == [
        Acknowledge,
        Assign,
        SetStatus,
        Ask,
        Inform,
        Close,
    ]
    assert {command.by for command in commands} == {"desk-gent"}
    assert {message.topic for message in services.received} == {topics.COMMAND.topic(zone="gent")}
    assert len({message.correlation for message in services.received}) == 6


async def test_a_rejected_command_raises_with_its_receipt(
    desk: PoliceDesk, services: Any, incident: UUID
) -> None:
    services.answer = lambda _: Receipt(
        subject=Subject.COMMAND,
        outcome=Outcome.REJECTED,
        at=datetime.now(UTC),
        code=Code.UNKNOWN_INCIDENT,
        field="$.incident",
        reason="There is no such incident.",
    )
    with pytest.raises(MessageRejected, match="unknown_incident"):
        await desk.close(incident, "Niets.", zone="gent")


async def test_a_command_on_an_unseen_incident_needs_its_zone(
    desk: PoliceDesk, incident: UUID
) -> None:
    with pytest.raises(ValueError, match="name its zone"):
        await desk.acknowledge(incident)


async def test_lower_versions_of_a_state_are_ignored(
    broker: Any, services: Any, state: IncidentState
) -> None:
    newer, older = replace(state, version=5), replace(state, version=3)
    topic = topics.INCIDENT.topic(zone="gent", incident=str(state.incident))
    shown: list[IncidentState] = []
    async with desk_in(broker, on_state=lambda seen, _: shown.append(seen)) as desk:
        for version in (state, newer, older, state):
            await services.send(topic, version)
        await desk.acknowledge(state.incident, zone="gent")
        assert desk.states == {state.incident: newer}
        assert shown == [state, newer]


async def test_a_desk_that_comes_later_finds_the_retained_states_and_loses_the_cleared(
    broker: Any, services: Any, state: IncidentState
) -> None:
    topic = topics.INCIDENT.topic(zone="gent", incident=str(state.incident))
    await services.client.publish(topic, encode(state), qos=1, retain=True)
    seen = asyncio.Event()
    async with desk_in(broker, on_state=lambda *_: seen.set()) as desk:
        async with asyncio.timeout(5):
            await seen.wait()
        assert desk.states == {state.incident: state}
        await services.client.publish(topic, b"", qos=1, retain=True)
        await desk.acknowledge(state.incident)
        assert desk.states == {}


async def test_a_desk_hears_nothing_of_another_zone(
    mqtt_engine: MqttEngine, broker: Any, services: Any, escalation: Escalation
) -> None:
    if mqtt_engine is not MqttEngine.MOSQUITTO:  # which grants every SUBSCRIBE
        with pytest.raises(ConnectionRefused):
            async with desk_in(broker, zones=["gent", "kortrijk"]):
                pass
        return
    async with desk_in(broker, zones=["gent", "kortrijk"]) as desk:
        elsewhere = replace(escalation, id=new_id(), zone="kortrijk")
        await services.send(topics.ESCALATION.topic(zone="kortrijk", priority="p1"), elsewhere)
        await services.send(TOPIC, escalation)
        assert await desk.next_escalation() == escalation


async def test_what_climbed_to_the_duty_desk_is_commanded_on_its_own_zones_topic(
    broker: Any, services: Any, escalation: Escalation
) -> None:
    climbed = replace(escalation, zone="kortrijk")
    async with desk_in(broker) as desk:
        await services.send(TOPIC, climbed)
        await desk.next_escalation()
        await desk.acknowledge(climbed.incident)

    assert {message.topic for message in services.received} == {topics.COMMAND.topic(zone="gent")}


async def test_an_escalation_that_the_callback_fails_to_take_is_not_confirmed(
    broker: Any, services: Any, escalation: Escalation
) -> None:
    failures = [OSError("the disk is full")]

    def take(_: Escalation, __: float) -> None:
        if failures:
            raise failures.pop()

    async with desk_in(broker, on_escalation=take) as desk:
        await services.send(TOPIC, escalation)
        await services.send(TOPIC, escalation)

        assert await desk.next_escalation() == escalation
        assert not failures
        assert desk.repeats == {}
