"""An escalation or case is delivered on a desk's word; until then it is sent again, and climbs."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from broker.core.health import Cause, Severity
from broker.store.kernel.transaction import Transaction
from broker.store.outbox import post
from devices.device_connection import Broker
from devices.police_desk import DeviceOptions, PoliceDesk
from nabij.local.store_metrics import StoreFigures
from schemas.messages import EscalationKind
from tests.services.client import Client, Connect
from tests.services.system import KORTRIJK, NOWHERE, Servers, System, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")

ESCALATIONS, CASES = "police/gent/escalation/+", "city/gent/case/+"


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"unattended_s": 1}


@pytest.fixture(scope="module")
def policy_extra() -> str:
    return 'duty_zone = "unassigned"'


async def sent(desk: Client, report: str, count: int = 1) -> dict[str, Any]:
    """The escalation or case of `report`, when it has come `count` times."""
    found: dict[str, Any] = await desk.expect("", count=count, report=report)
    return found


async def reported(system: System, connect: Connect, **fields: Any) -> str:
    ann = await connect("ann")
    place = fields.pop("place", None) or system.place()
    receipt = await system.report(ann, place, **fields)
    report: str = receipt["id"]
    return report


async def causes(system: System) -> list[Cause]:
    """What /readyz says of desks."""
    assert system.settings.redis_url is not None
    figures = StoreFigures(system.settings.redis_url, system.settings.partitions)
    async with figures:
        await figures.refresh()
        return list(figures.causes())


async def is_settled(system: System, identifier: str) -> bool:
    return await system.waiting(identifier) is None


@pytest.mark.parametrize("stranger_filter", ["#", "nabij/v1/police/#", ESCALATIONS])
async def test_a_stranger_who_subscribed_is_no_desk(
    system: System, connect: Connect, stranger_filter: str
) -> None:
    """Mosquitto grants every SUBSCRIBE, delivers nothing of it, and says that there is a reader."""
    await connect("bob", stranger_filter)
    report = await reported(system, connect)

    desk = await connect("desk-gent", ESCALATIONS)  # too late for the first sending

    escalation = await sent(desk, report)
    assert (escalation["kind"], escalation["report"]) == ("new", report)
    await polled(lambda: is_settled(system, escalation["id"]))


async def test_an_onlooker_with_every_right_is_no_desk(system: System, connect: Connect) -> None:
    """As `nabij tail` is: it reads, and confirms nothing."""
    onlooker = await connect("nabij", ESCALATIONS, confirms=False)
    report = await reported(system, connect)

    escalation = await sent(onlooker, report, count=3)

    assert await system.waiting(escalation["id"]) is not None
    await onlooker.confirm("police/gent", escalation["id"])


async def test_a_desk_that_confirms_gets_it_once(system: System, connect: Connect) -> None:
    desk = await connect("desk-gent", ESCALATIONS)
    report = await reported(system, connect)

    escalation = await sent(desk, report)

    await polled(lambda: is_settled(system, escalation["id"]))
    assert len(desk.on("", report=report)) == 1


async def test_our_own_desk_confirms_what_a_later_version_sends_and_it_is_not_sent_again(
    system: System, connect: Connect, servers: Servers
) -> None:
    onlooker = await connect("nabij", ESCALATIONS, confirms=False)
    report = await reported(system, connect)
    identifier = (await sent(onlooker, report))["id"]
    message = await system.waiting(identifier)
    assert message is not None
    payload = {**json.loads(message.payload), "kind": "drone", "mood": 1, "text": "Later."}
    later = replace(message, payload=json.dumps(payload).encode(), due_ms=message.due_ms - 3_000)
    transaction = Transaction(system.store.outbox._redis)
    post(transaction, later)
    await transaction.run()

    broker = Broker(servers.mqtt.host, servers.mqtt.port)
    password = servers.accounts["desk-gent"].password
    async with PoliceDesk(
        "desk-gent", password, broker, zones=["gent"], options=DeviceOptions(device="later")
    ) as desk:
        while (heard := await asyncio.wait_for(desk.next_escalation(), 20)).report != UUID(report):
            pass
        assert (heard.kind, heard.text) == (EscalationKind.OTHER, "Later.")
        await polled(lambda: is_settled(system, identifier))


async def test_another_zones_desk_cannot_confirm(system: System, connect: Connect) -> None:
    onlooker = await connect("desk-gent", ESCALATIONS, confirms=False)
    kortrijk = await connect("desk-kortrijk", "police/kortrijk/#")
    report = await reported(system, connect)
    escalation = await sent(onlooker, report)

    await kortrijk.confirm("police/kortrijk", escalation["id"])
    await kortrijk.confirm("police/gent", escalation["id"])  # the ACL drops it

    await sent(onlooker, report, count=2)
    assert await system.waiting(escalation["id"]) is not None
    await onlooker.confirm("police/gent", escalation["id"])


async def test_a_case_is_delivered_on_the_citys_word(system: System, connect: Connect) -> None:
    city = await connect("nabij", CASES, confirms=False)
    report = await reported(system, connect, category="graffiti")
    case = await sent(city, report, count=2)

    await city.confirm("city/gent", case["id"])

    await polled(lambda: is_settled(system, case["id"]))


async def test_a_question_is_delivered_on_the_word_of_who_was_asked(
    system: System, connect: Connect
) -> None:
    cleo = await connect("cleo", confirms=False)
    desk = await connect("desk-gent", "police/gent/#")
    receipt = await system.report(cleo, system.place())
    order = await system.command(desk, "ask", receipt["incident"], text="Hoeveel?")
    assert order["outcome"] == "accepted"

    question = await cleo.expect("u/cleo/down/question", count=2, incident=receipt["incident"])
    await cleo.confirm("u/cleo", question["id"])

    await polled(lambda: is_settled(system, question["id"]))


async def test_a_sync_brings_what_the_desk_lacks_and_confirms_what_it_has(
    system: System, connect: Connect
) -> None:
    onlooker = await connect("nabij", ESCALATIONS, confirms=False)
    first, second = [await reported(system, connect) for _ in range(2)]
    has = await sent(onlooker, first, count=3)
    await sent(onlooker, second, count=3)

    desk = await connect("desk-gent", "police/gent/#")
    answer = await desk.ask("police/gent/up/sync", {"has": [has["id"]]})

    assert (answer.payload["subject"], answer.payload["outcome"]) == ("sync", "accepted")
    escalation = await sent(desk, second)
    await polled(lambda: is_settled(system, escalation["id"]))
    assert await is_settled(system, has["id"])
    assert desk.on("police/gent/escalation", report=first) == []


@pytest.mark.usefixtures("system")
async def test_a_bad_receipt_of_a_desk_is_told_to_it(connect: Connect) -> None:
    desk = await connect("desk-gent", "police/gent/#")

    for payload in ({"ids": []}, {"ids": ["nonsense"]}, {}):
        answer = await desk.ask("police/gent/up/receipt", payload)
        assert (answer.payload["subject"], answer.payload["outcome"]) == ("receipt", "rejected")
    answer = await desk.ask("police/gent/up/sync", {"has": 5})
    assert (answer.payload["subject"], answer.payload["outcome"]) == ("sync", "accepted")
    assert answer.payload["notes"][0].startswith("has: ")  # a detail costs no message


async def test_what_no_desk_takes_alarms_until_one_does(system: System, connect: Connect) -> None:
    operator = await connect("nabij", "ops/unattended/police/kortrijk")
    report = await reported(system, connect, place=KORTRIJK)

    alarm = await operator.expect("ops/unattended", zone="kortrijk")
    assert (alarm["desk"], alarm["count"]) == ("police", 1)
    [cause] = await causes(system)
    assert (cause.code, cause.severity) == ("unattended", Severity.DEGRADES)
    assert "police/kortrijk" in cause.what
    assert "connected must confirm by id on nabij/v1/police/kortrijk/up/receipt" in cause.mend

    desk = await connect("desk-kortrijk", "police/kortrijk/#")
    await desk.ask("police/kortrijk/up/sync", {})
    await sent(desk, report)
    await operator.until(
        lambda: operator.messages("ops/unattended")[-1].raw == b"", "the alarm cleared"
    )

    async def is_well() -> bool:  # the alarm's end is recorded once it was told
        return await causes(system) == []

    await polled(is_well)
    heard = await system.store.desks.last_heard()
    assert ("police", "kortrijk") in heard


async def test_an_escalation_that_no_desk_takes_climbs_to_the_duty_desk(
    system: System, connect: Connect
) -> None:
    duty = await connect("nabij", "police/unassigned/escalation/+")
    report = await reported(system, connect, text="Brand in de keuken")

    escalation = await sent(duty, report)
    assert (escalation["zone"], escalation["text"]) == ("gent", "Brand in de keuken")
    kept = await system.waiting(escalation["id"])
    assert kept is not None

    desk = await connect("desk-gent", "police/gent/#")  # its own desk still gets it
    await desk.ask("police/gent/up/sync", {})
    await sent(desk, report)
    await polled(lambda: is_settled(system, escalation["id"]))


async def test_the_duty_desk_commands_incidents_of_every_zone(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    duty = await connect("nabij", "police/unassigned/receipt")
    receipt = await system.report(ann, system.place())
    await sent(desk, receipt["id"])

    order = await system.command(duty, "acknowledge", receipt["incident"], zone="unassigned")
    assert order["outcome"] == "accepted"
    kortrijk = await connect("desk-kortrijk", "police/kortrijk/#")
    order = await system.command(kortrijk, "acknowledge", receipt["incident"], zone="kortrijk")
    assert order["code"] == "wrong_zone"


async def test_what_is_outside_every_zone_alarms_too(system: System, connect: Connect) -> None:
    operator = await connect("nabij", "ops/unattended/police/unassigned")
    report = await reported(system, connect, place=NOWHERE)

    await operator.expect("ops/unattended", zone="unassigned")

    duty = await connect("nabij", "police/unassigned/#")
    await sent(duty, report)
