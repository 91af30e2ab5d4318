"""Whatever a user sends, no log says who they are, where, or what they said."""

import json
import re
from typing import Any
from uuid import UUID

import pytest

from schemas.topics import COMMAND, Topic
from tests.services.bad_input import GOOD
from tests.services.client import Connect
from tests.services.logs import logged
from tests.services.system import System

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "Kanarievogel"
PLACE = {"lat": 50.98765, "lon": 3.43219}


def poisons(topic: Topic[Any]) -> list[bytes]:
    """Messages with the canary in each value, in a key, as another type, and as no JSON."""
    good = GOOD[topic]() | ({"location": PLACE} if "location" in GOOD[topic]() else {})
    values = [
        CANARY,
        [CANARY],
        {CANARY: CANARY},
        {**PLACE, CANARY: 1},
        f"{CANARY}\\ud800",
        50.98765,
    ]
    some = [{**good, name: value} for name in good for value in values]
    return [
        *(json.dumps(one).encode() for one in [*some, {**good, CANARY: PLACE}]),
        f'{{"{CANARY}": 1, "{CANARY}": 2, "lat": 50.98765'.encode(),
        CANARY.encode(),
    ]


@pytest.mark.parametrize("topic", GOOD, ids=lambda topic: topic.name)
@pytest.mark.parametrize("sender", ["eva", CANARY])
@pytest.mark.usefixtures("system")
async def test_no_log_names_a_sender_that_is_refused_nor_what_it_says(
    topic: Topic[Any], sender: str, connect: Connect
) -> None:
    where, answers = f"u/{sender}/up/{topic.name}", f"u/{sender}/down/receipt"
    if topic is COMMAND:
        zone = "gent" if sender == "eva" else CANARY
        where, answers = f"police/{zone}/command", f"police/{zone}/receipt"
    client = await connect("nabij", answers)
    with logged() as lines:
        for payload in poisons(topic):
            await client.publish(where, payload)
        await client.ask(where, CANARY.encode())
    assert lines
    for line in lines:
        assert CANARY not in line
        assert not re.search(r"\d\.98765|\d\.43219|(?<![\w-])eva(?![\w-])", line)


async def test_no_log_of_a_handler_that_fails_repeats_what_it_failed_on(
    connect: Connect, system: System
) -> None:
    eva = await connect("eva")
    operators = await connect("nabij", "ops/rejected/#")
    incident = (await system.report(eva, system.place()))["incident"]
    message = GOOD[COMMAND]() | {"incident": incident}
    say = {"id": message["id"], "incident": incident, "text": CANARY}
    system.corrupt(f"incident:{UUID(incident)}", "incident")
    with logged() as lines:
        await eva.publish("u/eva/up/message", say)
        await operators.expect("ops/rejected/groups")
    failed = [line for line in lines if "handler failed" in line]
    assert failed
    assert all("Traceback" in line for line in failed)  # where, and of what type
    assert CANARY not in "".join(lines)
