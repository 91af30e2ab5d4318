"""An incident in which nothing happens closes, and is erased when its retention ends."""

import asyncio
import time

import pytest

from tests.services.client import Connect
from tests.services.system import System, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {
        "accept_s": 1,
        "acknowledge_s": 1,
        "silence_s": 2,
        "silence_routine_s": 2,
        "retention_s": 1,
    }


async def test_silence_closes_tells_everyone_who_was_alerted_and_then_all_is_erased(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann, bob, cleo, dirk = [await connect(name) for name in ("ann", "bob", "cleo", "dirk")]
    desk = await connect("desk-gent", "police/gent/#")
    for client in (bob, cleo, dirk):
        await system.be_at(client, moved(place, north_m=60))
    receipt = await system.report(ann, place)
    incident = receipt["incident"]
    for client in (bob, cleo, dirk):
        await client.expect(f"u/{client.name}/down/alert", incident=incident)
    await system.reply(bob, incident)
    await system.reply(cleo, incident, "declined")
    for client in (ann, bob, cleo, dirk):
        closed = await client.expect(f"u/{client.name}/down/group", kind="closed")
        assert closed["incident"] == incident
    topic = f"police/gent/incident/{incident}"
    closed = await desk.expect(topic, status="closed")
    assert closed["outcome"] == "silent"
    await desk.until(lambda: desk.messages(topic)[-1].raw == b"", "an empty retained message")
    late = await connect("desk-gent", "police/gent/#")
    other = await system.report(ann, system.place(), "threat")  # a sentinel: after all retained
    await late.expect("police/gent/escalation/p1", report=other["id"])
    assert not late.messages(topic)
    left = await asyncio.to_thread(system.keys_with, incident)
    assert not left
    for user in ("ann", "bob", "cleo", "dirk"):
        assert incident not in map(str, await system.involving(user))
    assert (await system.reply(bob, incident))["code"] == "unknown_incident"


async def test_activity_postpones_the_closing(system: System, connect: Connect) -> None:
    place = system.place()
    ann = await connect("ann")
    receipt = await system.report(ann, place, "fire")
    began = time.monotonic()
    await asyncio.sleep(1.2)  # a known moment: more than half of the silence
    said = await system.say(ann, receipt["incident"], "still burning")
    spoke = time.monotonic()
    assert said["outcome"] == "accepted"
    await ann.expect("u/ann/down/group", kind="closed", incident=receipt["incident"])
    assert time.monotonic() - spoke >= 1.9
    assert time.monotonic() - began >= 3.1


async def test_a_routine_incident_closes_too(system: System, connect: Connect) -> None:
    ann = await connect("ann")
    receipt = await system.report(ann, system.place(), "noise")
    await ann.expect("u/ann/down/group", kind="closed", incident=receipt["incident"])
