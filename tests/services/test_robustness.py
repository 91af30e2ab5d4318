"""Kill what may be killed while reports flow: nothing that had a receipt is lost or done twice."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.core.zones import ZoneIndex, ZoneKind
from broker.identity.principal import Principal
from broker.mqtt import Message
from broker.runtime.config import Settings
from broker.runtime.service import Context, Zones
from broker.runtime.worker import load_policy
from broker.store import Partitions
from nabij.local.embedded import MqttEngine
from schemas import topics
from schemas.ids import escalation_id
from schemas.messages import Report, ServiceState
from schemas.roles import Role
from services import ALL, intake
from tests.services.client import Client, connecting
from tests.services.system import (
    Servers,
    System,
    a_report,
    polled,
    running,
    zones,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL_BUT_INTAKE = tuple(name for name in ALL if name != "intake")
PLACES = ((51.02, 3.70), (51.05, 3.72), (51.07, 3.74))


class Intake:
    """The intake service as a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._states: Any = None

    async def start(self) -> None:
        read, write = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "nabij.local.worker_process",
            "intake",
            "1",
            str(write),
            str(os.getpid()),
            env={**os.environ, **_environment(self._settings)},
            pass_fds=(write,),
            stderr=asyncio.subprocess.DEVNULL,
        )
        os.close(write)
        # Open for as long as it runs: a worker whose supervisor reads no more ends itself.
        self._states = os.fdopen(read)
        await asyncio.to_thread(_until_ready, self._states)

    async def kill(self) -> None:
        """SIGKILL: whatever it was doing stays half done."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
            self._states.close()


def _until_ready(pipe: Any) -> None:
    for line in pipe:
        if line.strip() == ServiceState.READY:
            return
    raise AssertionError("the worker ended before it was ready")


def _environment(settings: Settings) -> Mapping[str, str]:
    assert settings.mqtt_url is not None
    assert settings.redis_url is not None
    assert settings.share_group is not None
    return {
        "NABIJ_MQTT_URL": settings.mqtt_url,
        "NABIJ_REDIS_URL": settings.redis_url,
        "NABIJ_PARTITIONS": str(settings.partitions),
        "NABIJ_SHARE_GROUP": settings.share_group,
        "NABIJ_POLICY": str(settings.policy),
        "NABIJ_DATA_DIR": str(settings.data_dir),
        "NABIJ_INSTANCE": settings.instance,
        "NABIJ_LOG_LEVEL": "error",
    }


@asynccontextmanager
async def intake_process(settings: Settings) -> AsyncIterator[Intake]:
    process = Intake(settings)
    try:
        await process.start()
        yield process
    finally:
        await process.kill()


async def send_until_received(client: Client, user: str, report: dict[str, Any]) -> None:
    """What a device does with its journal: publish again until there is a receipt."""
    topic = f"u/{user}/down/receipt"
    while not client.on(topic, id=report["id"]):
        await client.publish(f"u/{user}/up/report", report)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.7):
                await client.until(lambda: bool(client.on(topic, id=report["id"])), "a receipt")


async def test_whatever_was_receipted_is_escalated_exactly_once_though_intake_is_killed(
    servers: Servers,
) -> None:
    async with running(servers, services=ALL_BUT_INTAKE) as system:
        fleet = await system.connect("nabij", "u/+/down/receipt")
        desk = await system.connect("desk-gent", "police/gent/escalation/#")
        reports = [a_report(PLACES[number % 3], "threat") for number in range(150)]
        async with intake_process(system.settings) as process:
            for first in range(0, len(reports), 50):
                sending = [
                    asyncio.create_task(send_until_received(fleet, f"w-{number}", report))
                    for number, report in enumerate(reports[first : first + 50])
                ]
                await fleet.expect("u/", count=first + 15, outcome="accepted")
                await process.kill()
                await process.start()
                await asyncio.gather(*sending)
        receipted = {one["id"] for one in fleet.on("u/", outcome="accepted")}
        for report in sorted(receipted):
            await desk.expect("police/gent/escalation/", report=report)
        new = [one for one in desk.on("police/gent/escalation/") if one["kind"] != "overdue"]
        assert {one["report"] for one in new} == receipted
        assert len({one["id"] for one in new}) == len(receipted)
        assert receipted == {report["id"] for report in reports}
        assert len({one["incident"] for one in new}) == 3


async def test_what_was_committed_and_never_published_is_swept_to_the_police(
    servers: Servers,
) -> None:
    async with running(servers, services=ALL_BUT_INTAKE) as system:
        desk = await system.connect("desk-gent", "police/gent/escalation/#")
        payload = a_report(PLACES[0], "robbery", text="never published")
        await intake.take(_report(payload), _context(system, payload))  # its effects are dropped
        escalation = await desk.expect("police/gent/escalation/p1", report=payload["id"])
        assert escalation["text"] == "never published"
        assert escalation["id"] == str(escalation_id(_report(payload).id))
        await _emptied(system.partitions)


def _report(payload: dict[str, Any]) -> Report:
    return topics.REPORT.decode(_bytes(payload))


def _bytes(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload).encode()


def _context(system: System, payload: dict[str, Any]) -> Context:
    indices = {kind: ZoneIndex(some) for kind, some in zones().items()}
    return Context(
        store=system.partitions.at(*PLACES[0]),
        partitions=system.partitions,
        policy=load_policy(system.settings.policy),
        zones=Zones(indices[ZoneKind.POLICE], indices[ZoneKind.MUNICIPALITY]),
        now=datetime.now(UTC),
        principal=Principal(Role.PARTICIPANT, "ann"),
        message=Message("nabij/v1/u/ann/up/report", _bytes(payload)),
    )


async def _emptied(partitions: Partitions) -> None:
    """A message leaves the outbox after the publishing: soon after the desk has it."""

    async def is_empty() -> bool:
        return not any([await one.outbox.size() for one in partitions])

    await polled(is_empty)


async def test_a_restarted_service_finishes_what_it_had_begun(servers: Servers) -> None:
    async with running(servers, services=ALL_BUT_INTAKE) as first:
        settings = first.settings
    others = tuple(name for name in ALL if name != "alerting")
    async with running(servers, services=others, settings=settings) as system:
        ann, bob = await system.connect("ann"), await system.connect("bob")
        await system.be_at(bob, PLACES[1])
        receipt = await system.report(ann, PLACES[1], "medical")
        consumer = f"{settings.instance}-1-0"  # a reader that took it up and died
        home = system.partitions.at(*PLACES[1])
        taken = await home.events.read("alerting", consumer, count=10, block_ms=1_000)
        assert taken
        async with running(servers, services=("alerting",), settings=settings):
            await bob.expect("u/bob/down/alert", incident=receipt["incident"])
        assert len(bob.on("u/bob/down/alert", incident=receipt["incident"])) == 1


async def test_reports_that_come_while_redis_is_away_get_their_receipts_later(
    own_servers: Servers, own_redis: Any
) -> None:
    async with running(own_servers) as system:
        fleet = await system.connect("nabij", "u/+/down/#")
        desk = await system.connect("desk-gent", "police/gent/escalation/#")
        await system.be_at(fleet, PLACES[0], user="neighbour")
        before = await system.report(fleet, PLACES[0], user="w-0")
        await own_redis.kill()
        reports = [a_report(PLACES[number % 3], "fire") for number in range(30)]
        for number, report in enumerate(reports):
            await fleet.publish(f"u/w-{number}/up/report", report)
        await fleet.publish("u/w-1/up/report", b"{}")
        await fleet.expect("u/w-1/down/receipt", code="missing_field")  # needs no Redis
        assert not [one for one in reports if fleet.on("u/", id=one["id"])]
        await own_redis.restart()
        for number, report in enumerate(reports):
            receipt = await fleet.expect(f"u/w-{number}/down/receipt", id=report["id"])
            assert receipt["outcome"] == "accepted"
            await desk.expect("police/gent/escalation/p1", report=report["id"])
        fire = fleet.on("u/w-0/down/receipt", id=reports[0]["id"])[0]["incident"]
        await fleet.expect("u/neighbour/down/alert", incident=fire)
        again = await system.report(fleet, PLACES[0], user="w-99")
        assert again["incident"] == before["incident"]
        await desk.expect("police/gent/escalation/p1", report=again["id"])
        assert len({one["id"] for one in desk.on("police/")}) == 32


async def test_after_the_mqtt_broker_was_killed_the_services_resume(
    own_servers: Servers, own_mqtt: Any
) -> None:
    async with running(own_servers) as system:
        bob = await system.connect("bob")
        ann = await system.connect("ann")
        await system.be_at(bob, PLACES[0])
        first = await system.report(ann, PLACES[0])
        await bob.expect("u/bob/down/alert", incident=first["incident"])
        await own_mqtt.kill()
        # Committed while nobody can be told: by an intake that is not ours.
        unseen = a_report(PLACES[2], "robbery")
        await intake.take(_report(unseen), _context(system, unseen))
        await own_mqtt.restart()
        async with connecting(own_servers.mqtt, own_servers.accounts) as connect:
            ann, bob = await connect("ann"), await connect("bob")
            desk = await connect("desk-gent", "police/gent/#")
            report = a_report(PLACES[1])
            await system.be_at_last(bob, PLACES[1])
            await send_until_received(ann, "ann", report)
            [receipt] = ann.on("u/ann/down/receipt", id=report["id"])[:1]
            await bob.expect("u/bob/down/alert", incident=receipt["incident"])
            await desk.expect("police/gent/escalation/p1", report=report["id"])
            await desk.expect("police/gent/incident/", incident=receipt["incident"])
            done = await system.command(desk, "acknowledge", first["incident"])
            assert done["outcome"] == "accepted"
            await _emptied(system.partitions)  # while a desk takes what is published


@pytest.mark.parametrize("mqtt_engine", [MqttEngine.MOSQUITTO])
async def test_an_escalation_that_the_mqtt_broker_refuses_is_not_lost(
    own_servers: Servers, own_mqtt: Any
) -> None:
    """An operator's mistake in the ACL, fixed later: the police must get what came in between."""
    acl: Path = own_mqtt.directory / "acl"
    right = await asyncio.to_thread(acl.read_text)
    wrong = right.replace(
        "topic readwrite nabij/v1/#",
        "topic readwrite nabij/v1/u/#\ntopic readwrite nabij/v1/ops/#\ntopic read nabij/v1/#",
    )
    assert wrong != right
    async with running(own_servers) as system:
        ann = await system.connect("ann")
        desk = await system.connect("desk-gent", "police/gent/escalation/#")

        async def put_in_force(rights: str) -> None:
            await asyncio.to_thread(acl.write_text, rights)
            os.kill(own_mqtt.pid, signal.SIGHUP)
            for _ in range(2):  # Mosquitto reads it between two turns of its loop
                await system.be_at(ann, None, availability="away")

        await put_in_force(wrong)
        receipt = await system.report(ann, PLACES[0])
        assert receipt["outcome"] == "accepted"
        await put_in_force(right)
        assert not desk.received
        await desk.expect("police/gent/escalation/p1", report=receipt["id"])
