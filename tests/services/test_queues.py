"""Hundreds of messages about one incident at once: one after another, each with one effect."""

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import pytest

from schemas.ids import new_id
from tests.services.client import Client, Connect
from tests.services.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEW, MANY = 60, 240


@pytest.fixture(scope="module", params=[1, 2])
def workers(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


async def ask_at_once(desk: Client, incident: str, count: int) -> float:
    """Ask so many questions, some of them twice; return how long it took, in seconds."""
    orders = [
        {
            "command": "ask",
            "id": str(new_id()),
            "incident": incident,
            "by": "me",
            "text": f"{count}, {number}?",
        }
        for number in range(count)
    ]
    began = time.monotonic()
    for first in range(0, count, 100):  # our own client's limit, not theirs
        await asyncio.gather(
            *(desk.publish("police/gent/command", order) for order in orders[first : first + 100])
        )
    for order in orders[::10]:
        await desk.publish("police/gent/command", order)
    ids = {order["id"] for order in orders}
    await desk.until(
        lambda: ids <= {one["id"] for one in desk.on("police/gent/receipt")}, f"{count} receipts"
    )
    return time.monotonic() - began


async def test_hundreds_of_questions_at_once_take_linear_time_and_are_asked_once(
    system: System, connect: Connect, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/receipt")
    incident = (await system.report(ann, system.place()))["incident"]
    few_s = await ask_at_once(desk, incident, FEW)
    many_s = await ask_at_once(desk, incident, MANY)
    await ann.expect("u/ann/down/question", count=FEW + MANY, incident=incident)
    with capsys.disabled():
        sys.stdout.write(
            f"\n[{workers} worker(s): {FEW} questions in {few_s:.2f} s, {MANY} in {many_s:.2f} s]\n"
        )

    assert many_s < 3 * MANY / FEW * max(few_s, 0.2)  # before: 13 s for 515, and that squared
    sentinel = await system.command(desk, "ask", incident, text="the last")
    await ann.expect("u/ann/down/question", text="the last", incident=incident)
    assert sentinel["outcome"] == "accepted"
    published = Counter(one["id"] for one in ann.on("u/ann/down/question", incident=incident))
    assert max(published.values()) == 1
    assert len(published) == FEW + MANY + 1
    await system.command(desk, "close", incident, outcome="done")


async def test_hundreds_of_messages_at_once_are_numbered_one_after_another(
    system: System, connect: Connect
) -> None:
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/receipt")
    incident = (await system.report(ann, system.place()))["incident"]
    said = [{"id": str(new_id()), "incident": incident, "text": str(n)} for n in range(150)]
    for first in range(0, len(said), 100):
        await asyncio.gather(
            *(ann.publish("u/ann/up/message", one) for one in said[first : first + 100])
        )

    def events() -> dict[str, dict[str, Any]]:
        """By id: one that was published again counts once."""
        return {one["id"]: one for one in ann.on("u/ann/down/group", incident=incident)}

    await ann.until(lambda: len(events()) >= len(said), f"{len(said)} messages")
    assert sorted(one["sequence"] for one in events().values()) == [*range(1, len(said) + 1)]
    assert {one["text"] for one in events().values()} == {one["text"] for one in said}
    await system.command(desk, "close", incident, outcome="done")
