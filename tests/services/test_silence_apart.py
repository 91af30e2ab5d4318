"""When a reporter's conversation with the desk ends does not tell whether others reported the same."""

import asyncio
import time

import pytest

from tests.services.client import Client, Connect
from tests.services.system import Place, System

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SILENCE_S, _MARGIN_S = 2, 0.8
_View = list[tuple[float, str, str | None]]  # when (s after the receipt), what, and its text


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {
        "accept_s": 1,
        "acknowledge_s": 1,
        "silence_s": _SILENCE_S,
        "silence_routine_s": _SILENCE_S,
    }


async def _incident(desk: Client, report: str) -> str:
    found: str = (await desk.expect("police/gent/escalation/", report=report))["incident"]
    return found


async def _told_the_end(system: System, client: Client, place: Place) -> tuple[str, _View]:
    """What a reporter who says one word sees until their conversation has ended, and after that."""
    receipt = await system.report(client, place, "threat")
    began, name = time.monotonic(), receipt["incident"]
    said = await system.say(client, name, "He is here")
    view = [(time.monotonic() - began, said["outcome"], None)]
    closed = await client.expect(f"u/{client.name}/down/group", kind="closed", incident=name)
    view.append((time.monotonic() - began, f"{closed['member']} {closed['role']}", closed["text"]))
    for subject, fields in (("message", {"text": "More"}), ("reply", {"kind": "accepted"})):
        refused = await system.up(client, subject, incident=name, **fields)
        view.append((time.monotonic() - began, refused["code"], refused["reason"]))
    return receipt["id"], view


async def test_a_reporter_sees_the_same_end_alone_and_with_another_who_goes_on_speaking(
    system: System, connect: Connect
) -> None:
    alone, zoe, other = [await connect(name) for name in ("ann", "bob", "cleo")]
    desk = await connect("desk-gent", "police/gent/#")
    place = system.place()

    async def another() -> str:
        await asyncio.sleep(_SILENCE_S / 2)
        receipt = await system.report(other, place, "threat")
        await asyncio.sleep(_SILENCE_S * 0.9)
        assert (await system.say(other, receipt["incident"], "Still"))["outcome"] == "accepted"
        return str(receipt["incident"])

    (_, hers), (report, theirs), others = await asyncio.gather(
        _told_the_end(system, alone, system.place()),
        _told_the_end(system, zoe, place),
        another(),
    )

    assert [one[1:] for one in hers] == [one[1:] for one in theirs]
    assert hers[1][1:] == ("nabij nabij", "silent")
    assert hers[2][1] == hers[3][1] == "incident_closed"
    assert "112" in str(hers[2][2])
    for one, same in zip(hers, theirs, strict=True):
        assert abs(one[0] - same[0]) < _MARGIN_S
    assert _SILENCE_S - 0.1 <= theirs[1][0] < _SILENCE_S + _MARGIN_S

    # The incident is open: its desk reaches her, by which her conversation is open again.
    incident = await _incident(desk, report)
    await system.command(desk, "inform", incident, text="We come", report=report)
    told = await zoe.expect("u/bob/down/group", text="We come", role="police")
    assert (await system.say(zoe, told["incident"], "Thanks"))["outcome"] == "accepted"
    await desk.expect("police/gent/escalation/", kind="said", report=report, text="Thanks")
    await other.expect("u/cleo/down/group", kind="closed", incident=others)
    await zoe.expect("u/bob/down/group", count=2, kind="closed")
    await desk.expect(f"police/gent/incident/{incident}", status="closed", outcome="silent")
    for client in (alone, zoe, other):
        sequences = {e["sequence"] for e in client.on(f"u/{client.name}/down/group")}
        assert sequences == {*range(1, max(sequences) + 1)}
        ends = {e["id"] for e in client.on(f"u/{client.name}/down/group", kind="closed")}
        assert len(ends) == (2 if client is zoe else 1)
