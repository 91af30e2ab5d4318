"""The group around an incident: who hears what, under which name, and what was missed."""

import json
from uuid import UUID

import pytest

from schemas.ids import new_id
from tests.services.client import Client, Connect
from tests.services.system import System, ago, moved

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timers() -> dict[str, int]:
    return {"accept_s": 1_500, "acknowledge_s": 1_500}


async def alerted(system: System, reporter: Client, *clients: Client) -> str:
    """Report something that all of `clients` are alerted to; the incident."""
    place = system.place()
    for client in clients:
        await system.be_at(client, moved(place, north_m=60))
    receipt = await system.report(reporter, place)
    incident: str = receipt["incident"]
    for client in clients:
        await client.expect(f"u/{client.name}/down/alert", incident=incident)
    return incident


def heard(client: Client, incident: str) -> list[tuple[str, str]]:
    """What the client heard of the group, in order, repeats dropped."""
    events = {one["id"]: one for one in client.on(f"u/{client.name}/down/group", incident=incident)}
    return [(one["kind"], one["member"]) for one in events.values()]


async def test_who_accepts_joins_and_all_in_the_group_hear_it_and_nobody_else(
    system: System, connect: Connect
) -> None:
    ann, bob, cleo, dirk = [await connect(name) for name in ("ann", "bob", "cleo", "dirk")]
    incident = await alerted(system, ann, bob, cleo, dirk)
    await system.reply(bob, incident, eta_s=240)
    joined = await ann.expect("u/ann/down/group", kind="joined", incident=incident)
    assert (joined["member"], joined["eta_s"], joined["you"]) == ("helper-1", 240, "reporter-1")
    assert (joined["members"], joined.get("on_scene", 0), joined["sequence"]) == (2, 0, 1)
    await system.reply(cleo, incident, "seen")
    await system.reply(cleo, incident)
    second = await bob.expect("u/bob/down/group", kind="joined", member="helper-2")
    assert (second["members"], second["you"], second["sequence"]) == (3, "helper-1", 2)
    await system.reply(dirk, incident, "declined")
    await system.say(ann, incident, "he ran off")
    for client in (bob, cleo):
        said = await client.expect(f"u/{client.name}/down/group", kind="said")
        assert (said["member"], said["text"]) == ("reporter-1", "he ran off")
    assert not heard(dirk, incident)
    assert heard(cleo, incident) == [("joined", "helper-2"), ("said", "reporter-1")]


async def test_moving_arriving_leaving_and_coming_back_are_told_under_the_same_name(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/incident/#")
    incident = await alerted(system, ann, bob)
    await system.reply(bob, incident, eta_s=240)
    await system.reply(bob, incident, eta_s=60)
    moving = await ann.expect("u/ann/down/group", kind="moved", incident=incident)
    assert moving["eta_s"] == 60
    await system.reply(bob, incident, "on_scene")
    arrived = await ann.expect("u/ann/down/group", kind="moved", count=2, incident=incident)
    assert arrived["on_scene"] == 1
    state = await desk.expect(f"police/gent/incident/{incident}", on_scene=1)
    assert (state["accepted"], state["alerted"]) == (1, 1)
    await system.reply(bob, incident, "left")
    left = await ann.expect("u/ann/down/group", kind="left", incident=incident)
    assert (left["member"], left["members"]) == ("helper-1", 1)
    await bob.expect("u/bob/down/group", kind="left", incident=incident)
    refused = await system.say(bob, incident, "am I still in?")
    assert refused["code"] == "not_a_member"
    await system.reply(bob, incident)
    back = await ann.expect("u/ann/down/group", kind="joined", count=2, incident=incident)
    assert back["member"] == "helper-1"
    assert [one["sequence"] for one in ann.on("u/ann/down/group", incident=incident)] == [
        1,
        2,
        3,
        4,
        5,
    ]


async def test_a_repeated_reply_or_message_has_no_second_effect(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    incident = await alerted(system, ann, bob)
    reply = {"id": str(new_id()), "incident": incident, "kind": "accepted", "eta_s": 90}
    said = {"id": str(new_id()), "incident": incident, "text": "coming"}
    for subject, payload in (("reply", reply), ("message", said), ("reply", reply)):
        answers = [(await bob.ask(f"u/bob/up/{subject}", payload)).payload for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert answers[0]["outcome"] == "accepted"
    await system.say(ann, incident, "thanks")
    await bob.expect("u/bob/down/group", text="thanks", incident=incident)
    assert heard(bob, incident) == [
        ("joined", "helper-1"),
        ("said", "helper-1"),
        ("said", "reporter-1"),
    ]
    filed = await system.filed(incident)
    assert filed is not None
    assert filed.group_events == 3


async def test_an_old_reply_that_is_repeated_does_not_undo_a_newer_one(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    incident = await alerted(system, ann, bob)
    accepted = {"id": str(new_id()), "incident": incident, "kind": "accepted"}
    await bob.ask("u/bob/up/reply", accepted)
    await system.reply(bob, incident, "left")
    await bob.ask("u/bob/up/reply", accepted)
    assert (await system.say(bob, incident, "hello"))["code"] == "not_a_member"


async def test_an_older_reply_that_comes_late_does_not_undo_a_newer_one(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    incident = await alerted(system, ann, bob)
    a_second_ago = UUID(int=new_id().int - (1000 << 80))
    accepted = {"id": str(a_second_ago), "incident": incident, "kind": "accepted"}
    await system.reply(bob, incident, "left")
    assert (await bob.ask("u/bob/up/reply", accepted)).payload["outcome"] == "accepted"
    assert (await system.say(bob, incident, "hello"))["code"] == "not_a_member"
    filed = await system.filed(incident)
    assert filed is not None
    assert filed.group_events == 0


async def test_sync_repeats_what_was_missed_to_who_missed_it_and_no_more(
    system: System, connect: Connect
) -> None:
    ann, bob, cleo = [await connect(name) for name in ("ann", "bob", "cleo")]
    before = ago()
    incident = await alerted(system, ann, bob, cleo)
    await system.reply(bob, incident)
    await system.say(ann, incident, "missed")
    between = ago()
    await system.say(ann, incident, "also missed")
    again = await connect("bob")  # with a clean session: what was sent in between is lost
    done = await again.ask("u/bob/up/sync", {"since": before})
    assert done.payload["outcome"] == "accepted"
    [alert] = again.on("u/bob/down/alert", incident=incident)
    first = bob.on("u/bob/down/alert", incident=incident)[0]
    assert {**alert, "expires_at": ""} == {**first, "expires_at": ""}
    await bob.expect("u/bob/down/group", text="also missed")
    assert heard(again, incident) == heard(bob, incident)
    later = await connect("bob")
    await later.ask("u/bob/up/sync", {"since": between})
    assert not later.on("u/bob/down/alert", incident=incident)
    assert [one["text"] for one in later.on("u/bob/down/group", incident=incident)] == [
        "also missed"
    ]
    knowing = await connect("bob")
    spoken, *_ = bob.on("u/bob/down/group", incident=incident, text="missed")
    has = {"alerts": [alert["id"]], "groups": {incident: [spoken["sequence"]]}}
    await knowing.ask("u/bob/up/sync", {"since": before, **has})
    assert not knowing.on("u/bob/down/alert", incident=incident)
    told = knowing.on("u/bob/down/group", incident=incident)
    assert [one["text"] for one in told if one["kind"] == "said"] == ["also missed"]
    outsider = await connect("cleo")
    await outsider.ask("u/cleo/up/sync", {"since": before})
    assert len(outsider.on("u/cleo/down/alert", incident=incident)) == 1
    assert not outsider.on("u/cleo/down/group", incident=incident)
    stranger = await connect("eva")
    await stranger.ask("u/eva/up/sync", {"since": before})
    assert len(stranger.received) == 1


async def test_who_joins_hears_nothing_that_was_said_before_not_by_sync_nor_by_a_repeat(
    system: System, connect: Connect
) -> None:
    ann, bob, cleo = [await connect(name) for name in ("ann", "bob", "cleo")]
    desk = await connect("desk-gent", "police/gent/receipt")
    before = ago()
    incident = await alerted(system, ann, bob)
    message = {"id": str(new_id()), "incident": incident, "text": "before"}
    await ann.ask("u/ann/up/message", message)
    await system.command(desk, "inform", incident, text="before, by the police")
    await ann.expect("u/ann/down/group", text="before, by the police")
    filed = await system.filed(incident)
    assert filed is not None
    place = filed.incident.location
    await system.report(cleo, (place.lat, place.lon))  # joins as a reporter
    await system.reply(bob, incident)  # joins as a helper
    await ann.ask("u/ann/up/message", message)  # which is told again, to who had heard it
    await system.say(ann, incident, "after")
    for client in (bob, cleo):
        await client.expect(f"u/{client.name}/down/group", text="after")
        again = await connect(client.name)
        await again.ask(f"u/{client.name}/up/sync", {"since": before})
        for heard_by in (client, again):
            said = heard_by.on(f"u/{client.name}/down/group", incident=incident, kind="said")
            assert {one["text"] for one in said} == {"after"}
        first = again.on(f"u/{client.name}/down/group", incident=incident)[0]
        assert (first["kind"], first["sequence"]) == ("joined", 3)
    told = [one["sequence"] for one in bob.on("u/bob/down/group", incident=incident)]
    knowing = await connect("bob")
    await knowing.ask("u/bob/up/sync", {"since": before, "groups": {incident: told}})
    assert not knowing.on("u/bob/down/group", incident=incident)
    await system.reply(bob, incident, "left")
    await system.say(ann, incident, "while bob was out")
    await system.reply(bob, incident)
    back = await connect("bob")
    await back.ask("u/bob/up/sync", {"since": before})
    assert [one["kind"] for one in back.on("u/bob/down/group", incident=incident)] == ["joined"]


async def test_a_message_shows_as_what_its_sender_speaks_whatever_it_says(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/receipt")
    incident = await alerted(system, ann, bob)
    await system.reply(bob, incident)
    for client in (ann, bob):
        await system.say(client, incident, "POLICE: the police have left, come out")
    await system.command(desk, "inform", incident, text="We are here.")
    await ann.expect("u/ann/down/group", text="We are here.")
    await system.reply(ann, incident)  # a reporter who helps stays one
    await system.command(desk, "close", incident, outcome="done")
    closed = await bob.expect("u/bob/down/group", kind="closed", incident=incident)
    roles = [
        (one["kind"], one["member"], one["role"])
        for one in sorted(
            {one["id"]: one for one in bob.on("u/bob/down/group", incident=incident)}.values(),
            key=lambda one: one["sequence"],
        )
    ]
    assert roles == [
        ("joined", "helper-1", "responder"),
        ("said", "reporter-1", "reporter"),
        ("said", "helper-1", "responder"),
        ("said", "police", "police"),
        ("moved", "reporter-1", "reporter"),
        ("closed", "police", "police"),
    ]
    assert closed["text"] == "done"


async def test_the_reporter_who_helps_elsewhere_is_a_helper_there(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    first = await alerted(system, ann, bob)
    second = await alerted(system, bob, ann)
    await system.reply(bob, first)
    await system.reply(ann, second)
    assert (await ann.expect("u/ann/down/group", incident=first))["you"] == "reporter-1"
    assert (await ann.expect("u/ann/down/group", incident=second))["you"] == "helper-1"


async def test_who_was_alerted_and_reports_too_is_in_the_group_as_a_reporter(
    system: System, connect: Connect
) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    incident = await alerted(system, ann, bob)
    filed = await system.filed(incident)
    assert filed is not None
    place = filed.incident.location
    merged = await system.report(bob, (place.lat, place.lon))
    assert merged["incident"] == incident
    await system.say(bob, incident, "me too")
    said = await ann.expect("u/ann/down/group", text="me too")
    assert said["member"] == "reporter-2"


async def test_everyone_hears_the_closing_and_nobody_speaks_after_it(
    system: System, connect: Connect
) -> None:
    ann, bob, cleo, dirk = [await connect(name) for name in ("ann", "bob", "cleo", "dirk")]
    desk = await connect("desk-gent", "police/gent/receipt")
    incident = await alerted(system, ann, bob, cleo, dirk)
    await system.reply(bob, incident)
    await system.reply(cleo, incident, "declined")
    await system.command(desk, "close", incident, outcome="All is well.")
    for client in (ann, bob, cleo, dirk):
        closed = await client.expect(f"u/{client.name}/down/group", kind="closed")
        assert (closed["incident"], closed["text"]) == (incident, "All is well.")
    for receipt in (await system.reply(dirk, incident), await system.say(bob, incident, "?")):
        assert (receipt["outcome"], receipt["code"]) == ("rejected", "incident_closed")
    assert json.dumps(dirk.on("u/dirk/down/group")).count("helper") == 0
