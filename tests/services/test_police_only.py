"""An incident for the police alone: no reporter of it learns that there is another, nor is heard by one."""

import asyncio
import itertools
import json
from typing import Any

import pytest

from broker.core.changes import Erased
from schemas.ids import new_id
from tests.services.client import Client, Connect, Received
from tests.services.system import Place, System, a_report, ago, moved, polled
from tests.services.test_borders import border

pytestmark = pytest.mark.asyncio(loop_scope="module")

ZOE, MALLORY, EVA = "ann", "bob", "cleo"
_BORDERS = itertools.count(6_000, 300)  # how far north there is one that no test has been to
PRIVATE = {"id", "incident", "at"}  # what may differ between the receipts of two reports


@pytest.fixture(scope="module", params=[1, 16])
def partitions(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"acknowledge_s": 1_500}


async def said_at(desk: Client, report: str, text: str) -> Any:
    """What the desk reads of what the reporter of `report` says."""
    return await desk.expect("police/gent/escalation/", kind="said", report=report, text=text)


async def true_id(desk: Client, report: str) -> str:
    """The incident of a report, as the police know it."""
    incident: str = (await desk.expect("police/gent/escalation/", report=report))["incident"]
    return incident


def _is_heard(message: Received) -> bool:
    """Whether it is more than the refusal of an id, which it repeats to who sent it."""
    return bool(message.payload.get("outcome") != "rejected")


@pytest.fixture(params=["at one place", "over a border of two partitions"])
def places(request: pytest.FixtureRequest, system: System, partitions: int) -> tuple[Place, Place]:
    """Two places at most 60 m apart."""
    if request.param == "at one place":
        place = system.place()
        return place, moved(place, north_m=60)
    if partitions == 1:
        pytest.skip("one partition has no border")
    return border(next(_BORDERS))


async def test_a_stranger_who_reports_the_same_threat_learns_nothing_and_reaches_nobody(
    system: System, connect: Connect, places: tuple[Place, Place]
) -> None:
    zoe, mallory, desk = [await connect(one) for one in (ZOE, MALLORY, "desk-gent")]
    await desk.mqtt.subscribe("nabij/v1/police/gent/#", qos=1)
    before = ago()
    hers = await system.report(zoe, places[0], "threat", text="He is at my door")
    await system.say(zoe, hers["incident"], "I hide upstairs")
    incident = await true_id(desk, hers["id"])
    assert (await said_at(desk, hers["id"], "I hide upstairs"))["incident"] == incident
    await system.command(desk, "inform", incident, text="We come. Stay inside.")
    await zoe.expect("u/ann/down/group", text="We come. Stay inside.", role="police")

    report = a_report(places[1], "threat")
    his = await system.send_report(mallory, report)

    # He is told what a single reporter is told, and nothing else.
    assert [*his] == [*hers]
    assert {name: his[name] for name in his if name not in PRIVATE} == {
        name: hers[name] for name in hers if name not in PRIVATE
    }
    assert not {"merge", "sequence"} & his.keys()
    assert his["incident"] not in (hers["incident"], incident)
    assert await system.send_report(mallory, report) == his
    # The police know that it is one.
    update = await desk.expect("police/gent/escalation/", report=his["id"])
    assert (update["kind"], update["incident"], update["reports"]) == ("update", incident, 2)
    # Nor does anything that he sends reach her, by his id or by any that he might have got hold of.
    assert (await system.say(mallory, his["incident"], "Come out"))["outcome"] == "accepted"
    for stolen in {hers["incident"], incident}:
        for subject, fields in (
            ("message", {"text": "The police have left, come out"}),
            ("reply", {"kind": "accepted"}),
            ("reply", {"kind": "seen"}),
        ):
            refused = await system.up(mallory, subject, incident=stolen, **fields)
            assert (refused["outcome"], refused["code"]) == ("rejected", "unknown_incident")
    assert (await system.reply(mallory, his["incident"]))["outcome"] == "accepted"
    assert (await said_at(desk, his["id"], "Come out"))["incident"] == incident
    again = await connect(MALLORY)
    await again.ask("u/bob/up/sync", {"since": before})
    await system.command(desk, "inform", incident, text="Who is there?", report=his["id"])
    await mallory.expect("u/bob/down/group", text="Who is there?")
    await system.command(desk, "inform", incident, text="Two minutes.")
    for one in (zoe, mallory):
        told = await one.expect(f"u/{one.name}/down/group", text="Two minutes.")
        assert (told["member"], told["role"], told["members"]) == ("police", "police", 1)

    heard_by = {
        name: json.dumps([one.payload for one in client.received if _is_heard(one)])
        for name, client in ((ZOE, zoe), (MALLORY, mallory), ("again", again))
    }
    for theirs in (his["incident"], his["id"], "Come out", "come out", "Who is there?"):
        assert theirs not in heard_by[ZOE]
    for theirs in (hers["incident"], hers["id"], "upstairs", "Stay inside"):
        assert theirs not in heard_by[MALLORY] + heard_by["again"]
    for client in (zoe, mallory):
        events = {one["sequence"]: one for one in client.on(f"u/{client.name}/down/group")}
        assert [*events] == [*range(1, len(events) + 1)]  # no gap where others speak
        assert {one["you"] for one in events.values()} == {"reporter-1"}
        assert {one["members"] for one in events.values()} == {1}
    assert {one["incident"] for one in again.on("u/bob/down/group")} == {his["incident"]}


async def test_every_reporter_is_asked_answers_and_hears_the_end_in_their_own_conversation(
    system: System, connect: Connect, places: tuple[Place, Place]
) -> None:
    zoe, mallory, eva, desk = [await connect(one) for one in (ZOE, MALLORY, EVA, "desk-gent")]
    await desk.mqtt.subscribe("nabij/v1/police/gent/#", qos=1)
    before = ago()
    reporters = [
        (client, await system.report(client, place, "suspicious"))
        for client, place in ((zoe, places[0]), (mallory, places[1]), (eva, places[0]))
    ]
    _, his = reporters[1]
    incident = await true_id(desk, reporters[0][1]["id"])
    await system.command(desk, "ask", incident, text="What do you see?", reporters="all")
    for client, receipt in reporters:
        question = await client.expect(f"u/{client.name}/down/question", text="What do you see?")
        assert (question["report"], question["incident"]) == (receipt["id"], receipt["incident"])
        given = await system.up(client, "answer", question=question["id"], text=client.name)
        assert (given["outcome"], given["incident"]) == ("accepted", receipt["incident"])
        answer = await desk.expect("police/gent/escalation/", kind="answer", text=client.name)
        assert (answer["report"], answer["incident"]) == (receipt["id"], incident)
    by_his_id = await system.command(desk, "ask", his["incident"], text="?")
    assert by_his_id["code"] == "unknown_incident"  # the police have ids of their own
    back = await connect(MALLORY)
    await back.ask("u/bob/up/sync", {"since": before})
    assert {one["incident"] for one in back.on("u/bob/down/question")} == {his["incident"]}
    await system.command(desk, "close", incident, outcome="All is well.")
    for client, receipt in reporters:
        topic = f"u/{client.name}/down/group"
        closed = await client.expect(topic, kind="closed", incident=receipt["incident"])
        assert (closed["text"], closed["members"]) == ("All is well.", 1)
        assert {one["incident"] for one in client.on(topic)} == {receipt["incident"]}
        late = await system.say(client, receipt["incident"], "hello?")
        assert late["code"] == "incident_closed"
    again = await connect(MALLORY)
    await again.ask("u/bob/up/sync", {"since": before})
    assert [one["kind"] for one in again.on("u/bob/down/group")][-1] == "closed"


async def test_two_reports_of_one_person_do_not_tell_that_something_lies_between_them(
    system: System, connect: Connect
) -> None:
    ann, bob, desk = await connect(ZOE), await connect(MALLORY), await connect("desk-gent")
    await desk.mqtt.subscribe("nabij/v1/police/gent/#", qos=1)
    place = system.place()
    hers = await system.report(ann, place, "threat")
    probes = [
        await system.report(bob, moved(place, north_m=north_m), "threat") for north_m in (-90, 90)
    ]
    incident = await true_id(desk, hers["id"])
    assert {await true_id(desk, probe["id"]) for probe in probes} == {incident}
    assert len({probe["incident"] for probe in probes}) == 2
    state = await desk.expect(f"police/gent/incident/{incident}", reports=3)
    assert (state.get("accepted", 0), state.get("alerted", 0)) == (0, 0)


async def test_the_number_of_a_receipt_does_not_tell_how_many_others_reported_to_the_police_alone(
    system: System, connect: Connect, partitions: int
) -> None:
    zoe, mallory, eva = [await connect(one) for one in (ZOE, MALLORY, EVA)]
    place = system.place()
    before = await system.report(eva, place, "fight")
    for other in (zoe, mallory, zoe):
        await system.report(other, place, "threat")

    after = await system.report(eva, place, "fight")

    assert after["sequence"] - before["sequence"] == partitions  # the next one of this partition


async def test_what_is_said_about_a_case_of_the_city_reaches_its_desk_and_no_neighbour(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect(ZOE), await connect(MALLORY)
    city = await connect("nabij", "city/gent/case/noise")
    place = system.place()
    first, second = [await system.report(one, place, "noise") for one in (ann, bob)]
    assert [*first] == [*second]
    said = await system.say(bob, second["incident"], "It is the house with the green door")
    assert said["outcome"] == "accepted"
    case = await city.expect("city/gent/case/noise", message=said["id"])
    assert (case["report"], case["text"]) == (
        second["id"],
        "It is the house with the green door",
    )
    assert not ann.on("u/ann/down/group")


async def test_a_crowd_that_reports_one_threat_at_once_is_one_incident_with_as_many_conversations(
    system: System, connect: Connect
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    place = system.place()
    receipts = await asyncio.gather(
        *(system.report(fleet, place, "threat", user=f"t-{number}") for number in range(20))
    )
    assert len({receipt["incident"] for receipt in receipts}) == 20
    assert len({await true_id(desk, receipt["id"]) for receipt in receipts}) == 1


async def test_with_the_incident_every_conversation_about_it_is_erased(
    system: System, connect: Connect, places: tuple[Place, Place]
) -> None:
    clients = [await connect(one) for one in (ZOE, MALLORY)]
    desk = await connect("desk-gent", "police/gent/#")
    receipts = [
        await system.report(client, place, "threat")
        for client, place in zip(clients, places, strict=True)
    ]
    for client, receipt in zip(clients, receipts, strict=True):
        await system.say(client, receipt["incident"], "here")
    incident = await true_id(desk, receipts[0]["id"])
    await system.command(desk, "close", incident, outcome="done")
    for client in clients:
        await client.expect(f"u/{client.name}/down/group", kind="closed")
    filed = await system.filed(incident)
    assert filed is not None
    store = system.partitions.of(filed.incident.id)
    await store.incidents.erase(
        filed.incident, filed.people, Erased(incident=filed.incident.id, zone="gent")
    )

    for client, receipt in zip(clients, receipts, strict=True):
        refused = await system.say(client, receipt["incident"], str(new_id()))
        assert refused["code"] == "unknown_incident"
        assert not [
            one for one in await system.involving(client.name) if str(one) == receipt["incident"]
        ]

    async def is_gone() -> bool:
        return await system.filed(incident) is None

    await polled(is_gone)
