"""The police's side: commands, questions and answers, retained states, and other zones' privacy."""

import asyncio

import pytest

from schemas.ids import new_id
from tests.services.client import Connect
from tests.services.system import KORTRIJK, NOWHERE, System, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


async def test_acknowledge_assign_status_and_close_are_in_the_retained_state(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    incident = (await system.report(ann, system.place()))["incident"]
    topic = f"police/gent/incident/{incident}"
    await system.command(desk, "acknowledge", incident, by="first")
    assert (await desk.expect(topic, status="acknowledged"))["acknowledged_by"] == "first"
    await system.command(desk, "assign", incident, unit="car 3")
    await system.command(desk, "assign", incident, unit="car 4")
    await desk.expect(topic, status="assigned", assigned=["car 3", "car 4"])
    await system.command(desk, "status", incident, status="on_scene")
    await desk.expect(topic, status="on_scene")
    await system.command(desk, "close", incident, outcome="two arrests")
    await desk.expect(topic, status="closed", outcome="two arrests", acknowledged_by="first")
    late = await connect("desk-gent", "police/gent/incident/+")
    state = await late.expect(topic)
    assert (state["status"], late.messages(topic)[0].retain) == ("closed", True)


async def test_a_question_reaches_whose_report_it_names_and_the_answer_names_it_too(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann, bob, cleo = [await connect(name) for name in ("ann", "bob", "cleo")]
    desk = await connect("desk-gent", "police/gent/#")
    before = ago()
    await system.be_at(bob, place)
    first = await system.report(ann, place)
    incident = first["incident"]
    second = await system.report(cleo, place)
    await bob.expect("u/bob/down/alert", incident=incident)
    await system.reply(bob, incident)
    which = await system.command(desk, "ask", incident, text="What do they wear?")
    assert (which["code"], which["field"]) == ("several_reports", "$.report")
    assert all(report["id"] in which["reason"] for report in (first, second))
    await system.command(desk, "ask", incident, text="What do they wear?", report=first["id"])
    question = await ann.expect("u/ann/down/question", incident=incident)
    assert (question["text"], question["report"]) == ("What do they wear?", first["id"])
    await system.command(desk, "ask", incident, text="And you, Cleo?", report=second["id"])
    await cleo.expect("u/cleo/down/question", text="And you, Cleo?")
    stolen = await system.up(bob, "answer", question=question["id"], text="I know!")
    assert (stolen["outcome"], stolen["code"]) == ("rejected", "unknown_question")
    answer = {"id": str(new_id()), "question": question["id"], "text": "Red coats."}
    receipts = [(await ann.ask("u/ann/up/answer", answer)).payload for _ in range(2)]
    assert receipts[0] == receipts[1]
    assert receipts[0]["outcome"] == "accepted"
    escalation = await desk.expect("police/gent/escalation/p1", kind="answer", incident=incident)
    assert (escalation["text"], escalation["question"]) == ("Red coats.", question["id"])
    assert escalation["report"] == first["id"]
    await system.command(desk, "inform", incident, text="We are coming.")
    said = await bob.expect("u/bob/down/group", kind="said", incident=incident)
    assert (said["text"], said["member"]) == ("We are coming.", "police")
    assert len(desk.on("police/gent/escalation/", kind="answer", incident=incident)) == 1
    assert not bob.on("u/bob/down/question")
    assert len(cleo.on("u/cleo/down/question")) == len(ann.on("u/ann/down/question")) == 1
    again = await connect("ann")  # an MQTT broker that dies forgets what it was to bring
    await again.ask("u/ann/up/sync", {"since": before})
    assert again.on("u/ann/down/question", incident=incident)


async def test_all_reporters_may_be_asked_and_each_answer_names_its_report(
    system: System, connect: Connect
) -> None:
    place = system.place()
    desk = await connect("desk-gent", "police/gent/#")
    reporters = [await connect(name) for name in ("ann", "bob", "cleo")]
    reports = [(await system.report(one, place))["id"] for one in reporters]
    incident = (await desk.expect("police/gent/escalation/", report=reports[0]))["incident"]
    both = await system.command(desk, "ask", incident, text="?", report=reports[0], reporters="all")
    assert (both["code"], both["field"]) == ("out_of_range", "$.reporters")
    await system.command(desk, "ask", incident, text="Are you safe?", reporters="all")
    for client, report in zip(reporters, reports, strict=True):
        question = await client.expect(f"u/{client.name}/down/question", text="Are you safe?")
        assert question["report"] == report
        await system.up(client, "answer", question=question["id"], text=f"{client.name}: yes")
    for client, report in zip(reporters, reports, strict=True):
        answer = await desk.expect("police/gent/escalation/", kind="answer", report=report)
        assert answer["text"] == f"{client.name}: yes"
    assert all(len(one.on(f"u/{one.name}/down/question")) == 1 for one in reporters)


async def test_inform_names_no_report_where_there_is_a_group(
    system: System, connect: Connect
) -> None:
    ann, desk = await connect("ann"), await connect("desk-gent", "police/gent/#")
    report = await system.report(ann, system.place())
    refused = await system.command(
        desk, "inform", report["incident"], text="?", report=report["id"]
    )
    assert (refused["outcome"], refused["code"]) == ("rejected", "has_group")


async def test_inform_reaches_the_group_and_nobody_who_did_not_join(
    system: System, connect: Connect
) -> None:
    place = system.place()
    ann, bob, cleo = [await connect(name) for name in ("ann", "bob", "cleo")]
    desk = await connect("desk-gent", "police/gent/#")
    for client in (bob, cleo):
        await system.be_at(client, place)
    incident = (await system.report(ann, place))["incident"]
    for client in (bob, cleo):
        await client.expect(f"u/{client.name}/down/alert", incident=incident)
    await system.reply(bob, incident)
    order = {
        "command": "inform",
        "id": str(new_id()),
        "incident": incident,
        "by": "me",
        "text": "Stay.",
    }
    receipts = [await system.send_command(desk, order) for _ in range(3)]
    assert receipts[0] == receipts[1] == receipts[2]
    for client in (ann, bob):
        await client.expect(f"u/{client.name}/down/group", text="Stay.")
    await system.command(desk, "close", incident, outcome="done")
    for client in (ann, bob, cleo):
        await client.expect(f"u/{client.name}/down/group", kind="closed", incident=incident)
    assert len({one["id"] for one in bob.on("u/bob/down/group", text="Stay.")}) == 1
    assert not cleo.on("u/cleo/down/group", text="Stay.")


async def test_a_question_repeated_by_its_commands_id_is_asked_once(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    incident = (await system.report(ann, system.place()))["incident"]
    order = {
        "command": "ask",
        "id": str(new_id()),
        "incident": incident,
        "by": "me",
        "text": "Where?",
    }
    await asyncio.gather(*(system.send_command(desk, order) for _ in range(5)))
    await system.command(desk, "ask", incident, text="And when?")
    await ann.expect("u/ann/down/question", text="And when?")
    assert len({one["id"] for one in ann.on("u/ann/down/question", text="Where?")}) == 1


async def test_a_command_that_comes_often_at_once_does_not_meet_its_own_effect(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    for _ in range(10):
        incident = (await system.report(ann, system.place()))["incident"]
        order = {
            "command": "close",
            "id": str(new_id()),
            "incident": incident,
            "by": "me",
            "outcome": "x",
        }

        receipts = await asyncio.gather(*(system.send_command(desk, order) for _ in range(30)))

        assert {receipt["outcome"] for receipt in receipts} == {"accepted"}


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        ([("close", {"outcome": "x"})], ("close", {"outcome": "y"}), "incident_closed"),
        ([("close", {"outcome": "x"})], ("acknowledge", {}), "incident_closed"),
        ([("close", {"outcome": "x"})], ("assign", {"unit": "7"}), "incident_closed"),
        ([("close", {"outcome": "x"})], ("inform", {"text": "?"}), "incident_closed"),
        ([("close", {"outcome": "x"})], ("status", {"status": "open"}), "incident_closed"),
        ([("acknowledge", {})], ("status", {"status": "open"}), "bad_transition"),
        (
            [("status", {"status": "on_scene"})],
            ("status", {"status": "acknowledged"}),
            "bad_transition",
        ),
        ([], ("status", {"status": "closed"}), "bad_transition"),
        ([], ("ask", {"text": "?", "report": str(new_id())}), "unknown_report"),
    ],
)
async def test_an_illegal_step_is_rejected_and_changes_nothing(
    system: System,
    connect: Connect,
    *,
    before: list[tuple[str, dict[str, str]]],
    command: tuple[str, dict[str, str]],
    code: str,
) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    incident = (await system.report(ann, system.place()))["incident"]
    for name, fields in before:
        assert (await system.command(desk, name, incident, **fields))["outcome"] == "accepted"
    was = await system.filed(incident)
    refused = await system.command(desk, command[0], incident, **command[1])
    assert (refused["outcome"], refused["code"]) == ("rejected", code)
    now = await system.filed(incident)
    assert was is not None
    assert now is not None
    assert now.incident.status == was.incident.status


async def test_the_version_of_the_retained_state_never_goes_back(
    system: System, connect: Connect
) -> None:
    place = system.place()
    fleet = await connect("nabij", "u/+/down/#")
    desk = await connect("desk-gent", "police/gent/#")
    await system.be_at(fleet, place, user="helper")
    incident = (await system.report(fleet, place, user="reporter"))["incident"]
    await asyncio.gather(
        *(system.report(fleet, place, user=f"more-{number}") for number in range(20)),
        *(system.command(desk, "assign", incident, unit=f"car {number}") for number in range(10)),
    )
    filed = await system.filed(incident)
    assert filed is not None
    topic = f"police/gent/incident/{incident}"
    await desk.until(
        lambda: desk.messages(topic)[-1].payload["version"] >= filed.incident.version, "the last"
    )
    late = await connect("desk-gent", topic)
    state = await late.expect(topic)
    assert state["version"] >= filed.incident.version
    assert (state["reports"], len(state["assigned"])) == (21, 10)


async def test_a_desk_sees_its_own_zone_and_cannot_command_another(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    gent = await connect("desk-gent", "police/gent/#", "police/#")
    kortrijk = await connect("desk-kortrijk", "police/kortrijk/#", "police/#", "u/#", "#")
    nowhere = await connect("desk-unassigned", "police/unassigned/#", "police/+/incident/+")
    incident = (await system.report(ann, system.place()))["incident"]
    await gent.expect(f"police/gent/incident/{incident}")
    order = {"command": "acknowledge", "id": str(new_id()), "incident": incident, "by": "me"}
    await kortrijk.publish("police/gent/command", order)  # refused by the ACL
    there = await system.report(ann, KORTRIJK)
    outside = await system.report(ann, NOWHERE)
    await kortrijk.expect("police/kortrijk/escalation/p1", report=there["id"])
    await nowhere.expect("police/unassigned/escalation/p1", report=outside["id"])
    assert (await system.command(gent, "assign", incident, unit="7"))["outcome"] == "accepted"
    filed = await system.filed(incident)
    assert filed is not None
    assert filed.incident.acknowledged_by == "sergeant 7"
    zones = {"kortrijk": kortrijk, "unassigned": nowhere, "gent": gent}
    for zone, desk in zones.items():
        assert {one.topic.split("/")[1] for one in desk.received} <= {zone}


@pytest.mark.parametrize("category", ["illegal-dumping", "graffiti", "noise", "street-lighting"])
async def test_a_routine_report_becomes_a_case_and_the_police_and_neighbours_hear_nothing(
    system: System, connect: Connect, category: str
) -> None:
    place = system.place()
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    city = await connect("nabij", f"city/gent/case/{category}")
    await system.be_at(bob, place)
    receipts = [await system.report(ann, place, category, text=text) for text in ("one", "two")]
    assert all("advice" not in one for one in receipts)
    incidents = set()
    for number, receipt in enumerate(receipts, 1):
        case = await city.expect("city/gent/case/", report=receipt["id"])
        assert (case["category"], case["municipality"]) == (category, "gent")
        assert case.get("reports", 1) == number
        incidents.add(case["incident"])
    assert len(incidents) == 1
    later = await system.report(ann, place)
    await desk.expect("police/gent/incident/", incident=later["incident"])
    await bob.expect("u/bob/down/alert", incident=later["incident"])
    told = {one.payload.get("incident") for one in desk.received if one.payload}
    assert incidents.isdisjoint(told)
    assert not bob.on("u/bob/down/alert", incident=receipts[0]["incident"])


async def test_a_case_outside_every_municipality_is_unassigned(
    system: System, connect: Connect
) -> None:
    ann = await connect("ann")
    city = await connect("nabij", "city/#")
    receipt = await system.report(ann, moved(NOWHERE, north_m=3_000), "noise")
    await city.expect("city/unassigned/case/noise", report=receipt["id"])


async def test_a_bicycle_theft_goes_to_the_police_as_p3(system: System, connect: Connect) -> None:
    ann = await connect("ann")
    desk = await connect("desk-gent", "police/gent/#")
    receipt = await system.report(ann, system.place(), "bicycle-theft")
    assert (await desk.expect("police/gent/escalation/p3", report=receipt["id"]))["kind"] == "new"
