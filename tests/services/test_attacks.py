"""What an attacker tried: each message of theirs is refused alone, and harms nobody else."""

from typing import Any

import pytest

from schemas.ids import new_id
from tests.services.client import Connect
from tests.services.system import System, a_report, ago

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONE_SURROGATE = b'"\\ud800"'  # valid ASCII, and no character


@pytest.mark.parametrize(
    "payload",
    [b'{"id":' + LONE_SURROGATE + b"}", b'{"id":5,"language":' + LONE_SURROGATE + b"}"],
)
@pytest.mark.parametrize("kind", ["report", "presence", "reply", "sync"])
async def test_half_a_character_in_a_refused_message_holds_up_nobody(
    system: System, connect: Connect, kind: str, payload: bytes
) -> None:
    eva, ann = await connect("eva"), await connect("ann")

    await eva.publish(f"u/eva/up/{kind}", payload)

    refusal = await eva.expect("u/eva/down/receipt", subject=kind)
    assert refusal["outcome"] == "rejected"
    assert (await system.report(ann, system.place()))["outcome"] == "accepted"


@pytest.mark.parametrize(
    "at",
    [{"at": "2000-01-01T00:00:00Z"}, {"at": 1_700_000_000}, {"at": "2026-03-01 12:00"}, {}],
    ids=["long ago", "Unix seconds", "without offset", "missing"],
)
async def test_a_button_without_a_clock_withdraws_each_time(
    system: System, connect: Connect, at: dict[str, Any]
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    place = system.place()
    muted = {**at, "availability": "muted"}
    for _ in range(2):
        await system.be_at(bob, place)
        answer = await bob.ask("u/bob/up/presence", muted, response_topic="u/bob/down/receipt")
        assert answer.payload["outcome"] == "accepted"

    incident = (await system.report(ann, place))["incident"]
    other = system.place()
    await system.be_at(bob, other)
    later = (await system.report(ann, other))["incident"]
    await bob.expect("u/bob/down/alert", incident=later)

    assert not bob.on("u/bob/down/alert", incident=incident)


async def test_a_slip_in_inform_tells_nobody_what_was_meant_for_one(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    place = system.place()
    report = a_report(place, "threat")
    receipts = [
        await system.send_report(ann, report),
        await system.send_report(bob, a_report(place, "threat")),
    ]
    escalation = await desk.expect("police/gent/escalation/", report=receipts[1]["id"])

    order = {
        "command": "inform",
        "id": str(new_id()),
        "incident": escalation["incident"],
        "by": "desk 1",
        "text": "SECRET for ann",
    }
    for slip in ("report_id", "reprot"):
        refused = await system.send_command(desk, {**order, slip: report["id"]})
        told = await system.send_command(
            desk, {**order, "id": str(new_id()), "report": report["id"]}
        )
        order["id"] = str(new_id())
        assert told["outcome"] == "accepted"
        assert refused["outcome"] == "rejected" or "read so" in refused["notes"][0]
    await ann.expect("u/ann/down/group", text="SECRET for ann")
    await bob.ask("u/bob/up/sync", {"since": ago(hours=1)})

    assert not bob.on("u/bob/down/group", text="SECRET for ann")
