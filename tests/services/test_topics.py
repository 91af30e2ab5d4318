"""Every row of the topic table: its message really goes from its sender to its receiver.

One scenario takes every way there is. What real accounts published and received in it is then held
against the table, row by row, and against what nobody may learn.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from schemas import topics
from schemas.messages import PoliceCommand
from schemas.topics import ROOT, TOPICS, Topic
from tests.services.client import Client, Received, connecting
from tests.services.system import KORTRIJK, Place, Servers, System, ago, moved, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"unattended_s": 1}


@dataclass
class Scenario:
    """What everybody was sent in it; `spy` is subscribed to everything."""

    ann: Client
    bob: Client
    cleo: Client
    desk: Client
    city: Client
    operators: Client
    late: Client
    spy: Client
    places: Mapping[str, Place]
    incident: str
    receipts: list[dict[str, Any]]
    delivered: list[str]

    @property
    def participants(self) -> list[Client]:
        return [self.ann, self.bob, self.cleo]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(servers: Servers, system: System) -> Any:
    """A fight: ann reports, bob helps and leaves, cleo declines, the police ask, tell and close."""
    async with AsyncExitStack() as stack:
        connect = await stack.enter_async_context(connecting(servers.mqtt, servers.accounts))
        spy = await connect("nabij", f"{ROOT}/#", confirms=False)
        ann, bob, cleo = [await connect(name) for name in ("ann", "bob", "cleo")]
        desk = await connect("desk-gent", "police/gent/#")
        city = await connect("nabij", "city/#")
        operators = await connect("nabij", "ops/#")
        here = system.place()
        places = {
            "ann": moved(here, north_m=137, east_m=42),
            "bob": moved(here, north_m=-61, east_m=93),
            "cleo": moved(here, north_m=25, east_m=-171),
        }
        receipts = [
            await system.be_at(client, places[client.name], form="short")
            for client in (ann, bob, cleo)
        ]
        began = ago(seconds=1)
        standing = {"lat": places["ann"][0], "lon": places["ann"][1]}
        receipt = await system.report(ann, here, reporter_location=standing, text="two men")
        incident = receipt["incident"]
        receipts.append(receipt)
        for helper in (bob, cleo):
            await helper.expect(f"u/{helper.name}/down/alert", incident=incident)
        receipts += [
            await system.reply(cleo, incident, "declined"),
            await system.reply(bob, incident, "accepted", eta_s=120),
            await system.say(bob, incident, "on my way"),
            await system.reply(bob, incident, "on_scene"),
            await system.command(desk, "acknowledge", incident),
            await system.command(desk, "ask", incident, text="Any weapons?"),
        ]
        question = await ann.expect("u/ann/down/question", incident=incident)
        receipts += [
            await system.up(ann, "answer", question=question["id"], text="No."),
            await system.command(desk, "inform", incident, text="Stay back."),
        ]
        await bob.expect("u/bob/down/group", kind="said", text="Stay back.")
        receipts += [
            await system.reply(bob, incident, "left"),
            (await bob.ask("u/bob/up/sync", {"since": began})).payload,
            await system.report(ann, here, "illegal-dumping", text="a sofa"),
            (await desk.ask("police/gent/up/sync", {"has": []})).payload,
            (await city.ask("city/gent/up/sync", {"has": []})).payload,
            await system.report(ann, KORTRIJK),  # no desk is there
        ]
        case = await city.expect("city/gent/case/illegal-dumping", text="a sofa")
        escalation = await desk.expect("police/gent/escalation/p1", incident=incident)
        delivered = {"police": escalation["id"], "city": case["id"], "u": question["id"]}
        for identifier in delivered.values():
            await polled(partial(_is_delivered, system, identifier))
        await operators.expect("ops/unattended/police/kortrijk", zone="kortrijk")
        await spy.publish("u/Not_A_User/up/report", b"{}")
        await operators.expect("ops/rejected/intake", topic=f"{ROOT}/u/Not_A_User/up/report")
        receipts.append(await system.command(desk, "close", incident, outcome="Both are gone."))
        for client in (ann, bob, cleo):
            await client.expect(f"u/{client.name}/down/group", kind="closed", incident=incident)
        await desk.expect(f"police/gent/incident/{incident}", status="closed")
        late = await connect("desk-gent", "police/gent/incident/+")
        await late.expect(f"police/gent/incident/{incident}", status="closed")
        yield Scenario(
            ann,
            bob,
            cleo,
            desk,
            city,
            operators,
            late,
            spy,
            places,
            incident,
            receipts,
            list(delivered),
        )


async def _is_delivered(system: System, identifier: str) -> bool:
    return await system.waiting(identifier) is None


def _receipt_of(subject: str) -> Callable[[Scenario], bool]:
    """What a participant or desk published was received: its receiver says so."""

    def came(scenario: Scenario) -> bool:
        found = [one for one in scenario.receipts if one["subject"] == subject]
        return bool(found) and all(one["outcome"] == "accepted" for one in found)

    return came


def _delivers(kind: str) -> Callable[[Scenario], bool]:
    """A reader's word was received: what it was about is not sent again."""
    return lambda scenario: kind in scenario.delivered


def _reaches(who: str, prefix: str) -> Callable[[Scenario], bool]:
    """A service's message came to the real account that may read it."""

    def came(scenario: Scenario) -> bool:
        client: Client = getattr(scenario, who)
        return bool(client.messages(prefix))

    return came


FLOWS: dict[str, Callable[[Scenario], bool]] = {
    "u/{user}/up/report": _receipt_of("report"),
    "u/{user}/up/presence": _receipt_of("presence"),
    "u/{user}/up/reply": _receipt_of("reply"),
    "u/{user}/up/message": _receipt_of("message"),
    "u/{user}/up/answer": _receipt_of("answer"),
    "u/{user}/up/sync": _receipt_of("sync"),
    "u/{user}/up/receipt": _delivers("u"),
    "u/{user}/down/receipt": _reaches("ann", "u/ann/down/receipt"),
    "u/{user}/down/alert": _reaches("bob", "u/bob/down/alert"),
    "u/{user}/down/brief": _reaches("bob", "u/bob/down/brief"),
    "u/{user}/down/group": _reaches("bob", "u/bob/down/group"),
    "u/{user}/down/question": _reaches("ann", "u/ann/down/question"),
    "police/{zone}/escalation/{priority}": _reaches("desk", "police/gent/escalation/p1"),
    "police/{zone}/incident/{incident}": _reaches("late", "police/gent/incident/"),
    "police/{zone}/command": _receipt_of("command"),
    "police/{zone}/receipt": _reaches("desk", "police/gent/receipt"),
    "police/{zone}/up/receipt": _delivers("police"),
    "police/{zone}/up/sync": _receipt_of("sync"),
    "city/{municipality}/receipt": _reaches("city", "city/gent/receipt"),
    "city/{municipality}/up/receipt": _delivers("city"),
    "city/{municipality}/up/sync": _receipt_of("sync"),
    "ops/unattended/{desk}/{zone}": _reaches("operators", "ops/unattended/police/kortrijk"),
    "city/{municipality}/case/{category}": _reaches("city", "city/gent/case/illegal-dumping"),
    "ops/service/{name}/{instance}": _reaches("operators", "ops/service/intake/"),
    "ops/probe/{name}/{instance}": _reaches("operators", "ops/probe/intake/"),
    "ops/rejected/{service}": _reaches("operators", "ops/rejected/intake"),
}


def _row_of(topic: str) -> Topic[Any]:
    rows = [row for row in TOPICS if row.parse(f"{ROOT}/{topic}") is not None]
    assert len(rows) == 1, f"{topic} belongs to {len(rows)} rows of the table"
    return rows[0]


def _on(row: Topic[Any], client: Client) -> list[Received]:
    return [one for one in client.received if row.parse(f"{ROOT}/{one.topic}") is not None]


async def test_no_row_of_the_topic_table_is_without_a_flow() -> None:
    assert set(FLOWS) == {row.template for row in TOPICS}


@pytest.mark.parametrize("row", TOPICS, ids=lambda row: row.template)
async def test_every_topic_carries_its_payload_from_its_sender_to_its_receiver(
    row: Topic[Any], scenario: Scenario
) -> None:
    assert FLOWS[row.template](scenario)
    messages = [one for one in _on(row, scenario.spy) if one.raw != b"{}"]
    assert messages
    for message in messages:
        value = row.decode(message.raw)
        assert isinstance(value, PoliceCommand if row is topics.COMMAND else row.payload)
        assert message.qos == row.qos


async def test_nothing_goes_over_the_mqtt_broker_that_is_not_in_the_topic_table(
    scenario: Scenario,
) -> None:
    for message in scenario.spy.received:
        if "Not_A_User" not in message.topic:
            _row_of(message.topic)


@pytest.mark.parametrize("row", TOPICS, ids=lambda row: row.template)
async def test_a_topic_is_retained_if_and_only_if_the_table_says_so(
    row: Topic[Any], scenario: Scenario, servers: Servers
) -> None:
    async with connecting(servers.mqtt, servers.accounts) as connect:
        latecomer = await connect("nabij", f"{ROOT}/#", confirms=False)
        await latecomer.publish("ops/service/test/sentinel", b"{}")
        await latecomer.expect("ops/service/test/sentinel")  # retained messages came before it
    retained = {_row_of(one.topic).template for one in latecomer.received if one.retain}
    assert (row.template in retained) == row.retain
    assert scenario.incident


async def test_the_devices_receive_each_topic_at_the_quality_of_service_of_the_table(
    scenario: Scenario,
) -> None:
    everybody = [*scenario.participants, scenario.desk, scenario.city, scenario.operators]
    for message in [one for client in everybody for one in client.received]:
        assert message.qos == _row_of(message.topic).qos, message.topic


async def test_every_device_that_takes_part_is_sent_its_own_topics_and_no_others(
    scenario: Scenario,
) -> None:
    for client in scenario.participants:
        assert {one.topic.split("/")[1] for one in client.received} == {client.name}


async def test_no_participant_learns_another_participants_user_id_or_position(
    scenario: Scenario,
) -> None:
    for client in scenario.participants:
        others = [other for other in scenario.participants if other is not client]
        everything = b"\n".join(one.raw for one in client.received).decode()
        for other in others:
            assert other.name not in everything
            lat, lon = scenario.places[other.name]
            assert f"{lat:.4f}" not in everything
            assert f"{lon:.4f}" not in everything


async def test_the_police_learn_nobodys_user_id(scenario: Scenario) -> None:
    theirs = [one for one in scenario.desk.received if not one.topic.endswith("/command")]
    everything = b"\n".join(one.raw for one in theirs).decode()
    assert not any(json.dumps(client.name) in everything for client in scenario.participants)


async def test_the_reporters_words_and_the_polices_question_stay_with_the_police_and_the_reporter(
    scenario: Scenario,
) -> None:
    for client in (scenario.bob, scenario.cleo):
        everything = b"\n".join(one.raw for one in client.received).decode()
        assert "two men" not in everything
        assert "Any weapons?" not in everything
        assert "No." not in everything


async def test_members_have_names_that_hold_within_the_incident_only(scenario: Scenario) -> None:
    events = scenario.bob.on("u/bob/down/group", incident=scenario.incident)
    assert {event["member"] for event in events} == {"helper-1", "police"}
    assert {event["you"] for event in events} == {"helper-1"}
    assert {event["you"] for event in scenario.ann.on("u/ann/down/group")} == {"reporter-1"}
    assert all("you" not in event for event in scenario.cleo.on("u/cleo/down/group"))
