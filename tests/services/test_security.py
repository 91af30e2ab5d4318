"""Attacks of a participant who has an account like any other, and knows the whole protocol."""

import asyncio

import aiomqtt
import pytest

from tests.services.client import Client, Connect
from tests.services.system import System, a_presence, a_report

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def publish_refused(client: Client, topic: str, payload: object) -> None:
    """Publish what the ACL refuses; some clients hear of it, and some do not."""
    try:
        await client.publish(topic, payload)
    except aiomqtt.MqttError:
        return


GUESSES = ("intake", "nabij", "services", "secret", "1")


async def test_who_guesses_the_filter_but_not_the_share_group_gets_and_swallows_nothing(
    system: System, connect: Connect
) -> None:
    up = "nabij/v1/u/+/up"
    attacker = await connect(
        "eva",
        *(f"$share/{group}/{up}/{name}" for group in GUESSES for name in ("report", "presence")),
        *(f"$share/{group}/nabij/v1/#" for group in GUESSES),
        "nabij/v1/u/+/up/report",
        "nabij/v1/#",
        "#",
        "u/eva/down/#",
    )
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/escalation/#")
    place = system.place()
    await system.be_at(bob, place)
    receipts = await asyncio.gather(
        *(system.report(ann, place, audience="police_and_nearby") for _ in range(40))
    )
    assert {receipt["outcome"] for receipt in receipts} == {"accepted"}
    for receipt in receipts:
        await desk.expect("police/gent/escalation/", report=receipt["id"])
    await bob.expect("u/bob/down/alert", incident=receipts[0]["incident"])
    mine = await system.report(attacker, system.place())  # a sentinel: through the same broker
    assert mine["outcome"] == "accepted"
    assert {one.topic for one in attacker.received} <= {"u/eva/down/receipt", "u/eva/up/report"}
    assert {one.payload["id"] for one in attacker.received} == {mine["id"]}


@pytest.mark.parametrize("forged", ["police/gent/receipt", "u/bob/down/receipt", "u/eva/up/report"])
async def test_a_forged_response_topic_brings_no_receipt_there(
    system: System, connect: Connect, forged: str
) -> None:
    eva, bob = await connect("eva"), await connect("bob")
    spy = await connect("nabij", "nabij/v1/#")
    report = a_report(system.place())
    marked = b"forged-" + report["id"].encode()
    await eva.publish("u/eva/up/report", report, response_topic=forged, correlation=marked)
    receipt = await eva.answer_to(marked)
    assert receipt.topic == "u/eva/down/receipt"
    presence = b"presence-" + report["id"].encode()
    await eva.publish(
        "u/eva/up/presence",
        a_presence(None, availability="away"),
        response_topic=forged,
        correlation=presence,
    )
    await system.be_at(eva, None, availability="away")  # after it, by the same way
    await spy.expect("u/eva/down/receipt", subject="presence")
    theirs = [one for one in spy.received if one.correlation in (marked, presence)]
    assert {one.topic for one in theirs if not one.topic.startswith("u/eva/up/")} == {
        "u/eva/down/receipt"
    }
    assert not bob.received
    assert not [one for one in eva.received if one.correlation == presence]


@pytest.mark.parametrize(
    "topic",
    [
        "u/bob/up/report",
        "u/bob/down/alert",
        "u/eva/down/receipt",
        "police/gent/command",
        "police/gent/escalation/p1",
        "police/gent/incident/x",
        "city/gent/case/noise",
        "ops/service/intake/1",
        "ops/rejected/intake",
    ],
)
async def test_a_participant_cannot_publish_but_on_their_own_up_topics(
    system: System, connect: Connect, topic: str
) -> None:
    eva = await connect("eva")
    spy = await connect("nabij", "nabij/v1/#")
    report = a_report(system.place())
    await publish_refused(eva, topic, report)
    mine = await system.report(eva, system.place())
    await spy.expect("u/eva/up/report", id=mine["id"])
    assert not [one for one in spy.received if report["id"] in one.raw.decode()]


async def test_nobody_reads_another_participants_alerts(system: System, connect: Connect) -> None:
    place = system.place()
    ann, bob = await connect("ann"), await connect("bob")
    eva = await connect("eva", "u/bob/down/#", "u/+/down/#", "u/eva/down/#")
    await system.be_at(bob, place)
    incident = (await system.report(ann, place))["incident"]
    await bob.expect("u/bob/down/alert", incident=incident)
    mine = await system.report(eva, system.place())
    await eva.expect("u/eva/down/receipt", id=mine["id"])
    assert {one.topic.split("/")[1] for one in eva.received} == {"eva"}
