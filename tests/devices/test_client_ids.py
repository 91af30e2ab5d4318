"""A client that connects with a device's client id takes its session: so no other can derive one."""

import socket
from datetime import UTC, datetime

import aiomqtt
import pytest

from devices.device_connection import Broker, client_id
from devices.police_desk import DeviceOptions, PoliceDesk
from nabij.local.embedded import Account, EmbeddedMqtt
from schemas import topics
from schemas.codec import encode
from schemas.ids import new_id
from schemas.messages import Escalation, EscalationKind, Position
from schemas.taxonomy import Priority


def test_a_client_id_is_the_same_at_each_start_and_needs_the_password() -> None:
    mine = client_id("bob", "device", "correct horse")

    assert mine == client_id("bob", "device", "correct horse")
    assert mine.startswith("bob-device-")
    others = [
        client_id("bob", "device", "wrong"),
        client_id("bob", "phone", "correct horse"),
        client_id("ann", "device", "correct horse"),
        client_id("bob", "device", None),
    ]
    assert len({mine, *others}) == 5
    assert "correct" not in mine


@pytest.mark.parametrize("guessed", ["desk-gent-desk", "desk-gent", "desk-gent-desk-0"])
async def test_a_stranger_who_guesses_a_desks_client_id_gets_nothing_of_its_queue(
    mqtt_server: EmbeddedMqtt, accounts: dict[str, Account], broker: Broker, guessed: str
) -> None:
    escalation = Escalation(
        id=new_id(),
        kind=EscalationKind.NEW,
        incident=new_id(),
        version=1,
        zone="gent",
        priority=Priority.P1,
        category="fire",
        location=Position(51.05, 3.72),
        committed_at=datetime.now(UTC),
        text=guessed,
    )
    stranger = aiomqtt.Client(
        mqtt_server.host,
        mqtt_server.port,
        username="ann",
        password=accounts["ann"].password,
        identifier=guessed,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    services = aiomqtt.Client(
        mqtt_server.host,
        mqtt_server.port,
        username="nabij",
        password=accounts["nabij"].password,
    )
    desk = PoliceDesk(
        "desk-gent",
        "secret-of-gent",
        broker,
        zones=["gent"],
        options=DeviceOptions(session_expiry_s=0),
    )
    async with desk, stranger, services:
        topic = topics.ESCALATION.topic(zone="gent", priority="p1")
        await services.publish(topic, encode(escalation), qos=1)

        assert (await desk.next_escalation()).text == guessed
        assert desk.connections == 1
