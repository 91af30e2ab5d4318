"""Whatever is wrong with a message, its sender is told code, field and reason, and nobody else
notices: after each, a good report still reaches the police and those nearby, and nothing else does.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from schemas.codec import MAX_PAYLOAD_BYTES
from schemas.ids import new_id, question_id
from schemas.topics import ANSWER, COMMAND, MESSAGE, PRESENCE, REPLY, REPORT, ROOT, SYNC, Topic
from tests.services.bad_input import BAD, GOOD, Bad, padded, with_more
from tests.services.client import Client, Received, connecting
from tests.services.system import Place, Servers, System, a_report, ago

pytestmark = pytest.mark.asyncio(loop_scope="module")

UP = (REPORT, PRESENCE, REPLY, MESSAGE, ANSWER, SYNC)


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    """Nothing comes late, however slow the machine is."""
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


@dataclass
class Street:
    """Eva does things wrong; bob may be alerted, the desk, other desk and operators watch."""

    system: System
    eva: Client
    bob: Client
    desk: Client
    other_desk: Client
    operators: Client
    reports: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)

    def news(self, client: Client) -> list[Received]:
        """What `client` has been sent since this was asked last, but for receipts."""
        first = self.seen.get(client.name, 0)
        self.seen[client.name] = len(client.received)
        sent = ("receipt", "command", "report")
        return [one for one in client.received[first:] if not one.topic.endswith(sent)]

    async def send(self, topic: Topic[Any], payload: bytes) -> Received:
        """What came back on the sender's own receipt topic, with its correlation data."""
        if topic is COMMAND:
            return await self.desk.ask("police/gent/command", payload)
        return await self.eva.ask(f"u/eva/up/{topic.name}", payload)

    async def report(self, client: Client, place: Place, **fields: Any) -> dict[str, Any]:
        """Report what is in order, and wait until it has been escalated."""
        receipt = await self.system.report(client, place, **fields)
        assert receipt["outcome"] == "accepted"
        self.reports.add(receipt["id"])
        await self.desk.expect("police/gent/escalation/", report=receipt["id"])
        return receipt

    async def assert_harmless(self) -> None:
        """A good report takes its whole way; all else that anybody has heard since is nothing."""
        place = self.system.place()
        await self.system.be_at(self.bob, place)
        receipt = await self.report(self.eva, place)
        incident = receipt["incident"]
        await self.bob.expect("u/bob/down/alert", incident=incident)
        await self.desk.expect("police/gent/incident/", incident=incident, alerted=1)
        assert {one.payload["incident"] for one in self.news(self.bob)} == {incident}
        to_police = [one for one in self.news(self.desk) if "/escalation/" in one.topic]
        assert {one.payload["report"] for one in to_police} <= self.reports
        assert not self.news(self.other_desk)
        assert not self.news(self.operators)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(servers: Servers, system: System) -> AsyncIterator[Street]:
    async with AsyncExitStack() as stack:
        connect = await stack.enter_async_context(connecting(servers.mqtt, servers.accounts))
        yield Street(
            system=system,
            eva=await connect("eva"),
            bob=await connect("bob"),
            desk=await connect("desk-gent", "police/gent/#"),
            other_desk=await connect("desk-kortrijk", "police/kortrijk/#"),
            operators=await connect("nabij", "ops/rejected/#"),
        )


def assert_rejected(answer: Received, code: str, path: str, subject: str) -> None:
    receipt = answer.payload
    assert receipt["outcome"] == "rejected"
    assert (receipt["code"], receipt["field"]) == (code, path)
    assert receipt["subject"] == subject
    assert len(receipt["reason"]) > 10
    assert receipt["reason"].endswith(".")
    assert "`" not in receipt["reason"]  # msgspec's words, not ours
    assert ("112" in receipt.get("advice", "")) == (subject == "report")


@pytest.mark.parametrize("bad", BAD, ids=str)
async def test_a_bad_message_gets_a_receipt_that_says_why_and_harms_nothing_else(
    bad: Bad, street: Street
) -> None:
    answer = await street.send(bad.topic, bad.payload())
    place = "police/gent/receipt" if bad.topic is COMMAND else "u/eva/down/receipt"
    assert answer.topic == place
    assert_rejected(answer, bad.code, bad.field, bad.topic.name)
    await street.assert_harmless()


@pytest.mark.parametrize(
    "topic", [REPORT, REPLY, MESSAGE, ANSWER, COMMAND], ids=lambda topic: topic.name
)
async def test_a_rejection_carries_the_id_of_its_message_where_there_is_one(
    topic: Topic[Any], street: Street
) -> None:
    message = GOOD[topic]()
    broken = json.dumps({"id": message["id"], "x": 1}).encode()
    assert (await street.send(topic, broken)).payload["id"] == message["id"]
    await street.assert_harmless()


BAD_USERS = ("Ann", "ann.b", "ann_b", "an n", "é", "x" * 41, "-" * 41, "\U0001f600")


@pytest.mark.parametrize("user", BAD_USERS)
@pytest.mark.parametrize("topic", UP, ids=lambda topic: topic.name)
async def test_a_user_level_that_does_not_match_leaves_a_dead_letter_without_its_words(
    topic: Topic[Any], user: str, street: Street
) -> None:
    where = f"u/{user}/up/{topic.name}"
    await street.operators.publish(where, json.dumps(GOOD[topic]()).encode())
    rejected = f"ops/rejected/{topic.service}"
    letter = await street.operators.expect(rejected, topic=f"{ROOT}/{where}")
    assert (letter["code"], letter["field"]) == ("bad_topic", "$")
    assert letter["service"] == topic.service
    assert letter["payload"] == ""
    assert letter["size"] > 0
    assert len(street.news(street.operators)) == 1


async def test_a_command_for_no_zone_leaves_a_dead_letter(street: Street) -> None:
    where = "police/No_Zone/command"
    await street.operators.publish(where, GOOD[COMMAND]())
    letter = await street.operators.expect("ops/rejected/police", topic=f"{ROOT}/{where}")
    assert letter["code"] == "bad_topic"
    assert len(street.news(street.operators)) == 1
    await street.assert_harmless()


async def test_a_desk_of_no_zone_is_told_on_its_own_topic(street: Street, servers: Servers) -> None:
    async with connecting(servers.mqtt, servers.accounts) as connect:
        desk = await connect("nabij", "police/Zone.9/receipt")
        answer = await desk.ask("police/Zone.9/command", json.dumps(GOOD[COMMAND]()).encode())
    assert_rejected(answer, "bad_topic", "$", "command")
    await street.operators.expect("ops/rejected/police", topic=f"{ROOT}/police/Zone.9/command")
    street.news(street.operators)


@pytest.mark.parametrize("topic", [REPORT, PRESENCE, SYNC], ids=lambda topic: topic.name)
async def test_a_payload_of_16_kib_is_not_too_large(topic: Topic[Any], street: Street) -> None:
    answer = await street.eva.ask(
        f"u/eva/up/{topic.name}",
        padded(topic, MAX_PAYLOAD_BYTES),
        response_topic="u/eva/down/receipt",
    )
    assert answer.payload["outcome"] == "accepted"
    street.reports.add(answer.payload.get("id"))
    await street.system.be_at(street.eva, None, availability="away")


async def test_a_number_of_5000_digits_that_we_do_not_know_harms_nobody(street: Street) -> None:
    payload = with_more(REPORT, f'"x": {"9" * 5_000}')
    answer = await street.send(REPORT, payload)
    assert answer.payload["outcome"] == "accepted"
    street.reports.add(answer.payload["id"])
    await street.assert_harmless()


async def test_brackets_in_a_text_are_no_nesting_and_2000_characters_not_too_long(
    street: Street,
) -> None:
    text = "[{" * 500 + "\t\n é \U0001f600" + "x" * 993
    receipt = await street.report(street.eva, street.system.place(), text=text)
    escalation = await street.desk.expect("police/gent/escalation/", report=receipt["id"])
    assert escalation["text"] == text


@pytest.mark.parametrize("span", [{"minutes": -4.9}, {"days": 6.99}], ids=str)
async def test_a_time_just_within_bounds_is_accepted(
    span: dict[str, float], street: Street
) -> None:
    await street.report(street.eva, street.system.place(), seen_at=ago(**span))
    await street.assert_harmless()


async def test_an_id_of_another_users_report_is_rejected(street: Street) -> None:
    report = a_report(street.system.place())
    street.reports.add(report["id"])
    mine = await street.system.send_report(street.eva, report)
    theirs = await street.system.send_report(street.bob, report)
    assert (theirs["outcome"], theirs["code"], theirs["field"]) == ("rejected", "id_reused", "$.id")
    assert await street.system.send_report(street.eva, report) == mine


async def test_an_id_with_other_content_is_rejected(street: Street) -> None:
    report = a_report(street.system.place())
    street.reports.add(report["id"])
    mine = await street.system.send_report(street.eva, report)
    other = await street.system.send_report(street.eva, {**report, "text": "and more"})
    assert (other["outcome"], other["code"], other["field"]) == ("rejected", "id_reused", "$.id")
    assert await street.system.send_report(street.eva, report) == mine


async def test_an_id_of_a_message_of_another_kind_is_rejected(street: Street) -> None:
    receipt = await street.report(street.eva, street.system.place())
    said = {"id": receipt["id"], "incident": receipt["incident"], "text": "hello"}
    answer = await street.send(MESSAGE, json.dumps(said).encode())
    assert_rejected(answer, "id_reused", "$.id", "message")
    replied = {"id": receipt["id"], "incident": receipt["incident"], "kind": "seen"}
    assert_rejected(
        await street.send(REPLY, json.dumps(replied).encode()), "id_reused", "$.id", "reply"
    )
    order = {**said, "command": "inform", "by": "sergeant 7"}
    answer = await street.send(COMMAND, json.dumps(order).encode())
    assert_rejected(answer, "id_reused", "$.id", "command")
    question = question_id(
        new_id(), new_id(), UUID(receipt["incident"])
    )  # an id is known in its partition
    answered = {"id": receipt["id"], "question": str(question), "text": "no"}
    answer = await street.send(ANSWER, json.dumps(answered).encode())
    assert_rejected(answer, "id_reused", "$.id", "answer")


async def test_who_was_never_alerted_may_neither_reply_nor_speak(street: Street) -> None:
    receipt = await street.report(street.bob, street.system.place())
    fields = {"id": str(new_id()), "incident": receipt["incident"]}
    for topic, rest in ((REPLY, {"kind": "accepted"}), (MESSAGE, {"text": "hello"})):
        answer = await street.send(topic, json.dumps({**fields, **rest}).encode())
        assert_rejected(answer, "not_alerted", "$.incident", topic.name)
    assert not street.bob.on("u/bob/down/group", incident=receipt["incident"])


async def test_who_was_alerted_and_is_no_member_may_not_speak(street: Street) -> None:
    place = street.system.place()
    await street.system.be_at(street.eva, place)
    receipt = await street.report(street.bob, place)
    incident = receipt["incident"]
    await street.eva.expect("u/eva/down/alert", incident=incident)
    said = {"id": str(new_id()), "incident": incident, "text": "hello"}
    answer = await street.send(MESSAGE, json.dumps(said).encode())
    assert_rejected(answer, "not_a_member", "$.incident", "message")
    assert not street.bob.on("u/bob/down/group", incident=incident)
    await street.system.be_at(street.eva, None, availability="away")


async def test_a_command_from_the_wrong_zone_is_told_there_and_changes_nothing(
    street: Street,
) -> None:
    receipt = await street.report(street.eva, street.system.place())
    incident = receipt["incident"]
    refused = await street.system.command(
        street.other_desk, "acknowledge", incident, zone="kortrijk"
    )
    assert (refused["outcome"], refused["code"]) == ("rejected", "wrong_zone")
    assert refused["field"] == "$.incident"
    filed = await street.system.filed(incident)
    assert filed is not None
    assert filed.incident.status == "open"


async def test_a_command_repeated_from_the_wrong_zone_is_not_said_to_be_accepted(
    street: Street,
) -> None:
    receipt = await street.report(street.eva, street.system.place())
    order = {
        **GOOD[COMMAND](),
        "incident": receipt["incident"],
    }
    accepted = await street.system.send_command(street.desk, order)
    assert accepted["outcome"] == "accepted"
    refused = await street.system.send_command(street.other_desk, order, zone="kortrijk")
    assert refused["outcome"] == "rejected"


@pytest.mark.parametrize("topic", GOOD, ids=lambda topic: topic.name)
@pytest.mark.parametrize("size", [200])
async def test_a_flood_of_bad_messages_holds_up_nobody(
    topic: Topic[Any], size: int, street: Street
) -> None:
    flood = [bad for bad in BAD if bad.topic is topic]
    sender = street.desk if topic is COMMAND else street.eva
    where = "police/gent/command" if topic is COMMAND else f"u/eva/up/{topic.name}"
    await asyncio.gather(
        *(sender.publish(where, flood[number % len(flood)].payload()) for number in range(size))
    )
    await street.assert_harmless()
