"""`nabij explain` tells from the record why everybody was alerted, or was not."""

from typing import Any
from uuid import uuid4

from tests.durability.alerted import alerted
from tests.durability.conftest import nabij
from tests.services.system import Servers, moved, running


def events(told: dict[str, Any]) -> list[str]:
    return [note["event"] for note in told["decisions"]]


async def test_every_decision_stands_in_the_record_with_its_reason_and_time(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, bob, cleo, dirk = [
            await system.connect(name) for name in ("ann", "bob", "cleo", "dirk")
        ]
        desk = await system.connect("desk-gent", "police/gent/#")
        place = system.place()
        await system.be_at(bob, place)
        opened = await system.report(ann, place)
        incident = opened["incident"]
        await bob.expect("u/bob/down/alert", incident=incident)
        await system.report(dirk, moved(place, north_m=10))
        await system.be_at(cleo, place)
        await cleo.expect("u/cleo/down/alert", incident=incident)
        await system.reply(bob, incident, eta_s=60)
        await system.say(bob, incident, "Ik kom eraan")
        await system.command(desk, "assign", incident, unit="Alfa 1")
        await system.command(desk, "close", incident, outcome="solved")

        status, told = await nabij(system, "explain", incident)

        assert status == 0
        assert await nabij(system, "explain", incident[:8].upper()) == (0, told)
        assert events(told)[:9] == [
            "opened",
            "alerted",
            "merged",
            "alerted",
            "replied",
            "said",
            "commanded",
            "commanded",
            "closed",
        ]
        first, alerted = told["decisions"][:2]
        assert opened["id"] in first["why"]
        assert "zone gent" in first["why"]
        assert alerted["why"] == "1 nearby at commit: wave 1, radius 300 m"
        reasons = {one["user"]: one["reason"] for one in told["recipients"]}
        assert reasons == {"bob": "nearby", "cleo": "walked_in"}
        delivery = {one["user"]: one["delivery"] for one in told["recipients"]}
        assert delivery["bob"] == "delivered"
        assert str(place[0]) not in str(told)  # no positions
        assert "Ik kom eraan" not in str(told)


async def test_one_user_is_told_why_they_were_or_were_not_alerted(servers: Servers) -> None:
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        incident = await alerted(system, ann, bob)
        await system.reply(bob, incident, "seen")
        secret = (await system.report(ann, system.place(), audience="police"))["incident"]

        async def why(of: str, user: str) -> tuple[bool, str]:
            status, told = await nabij(system, "explain", of, user)
            assert status == 0
            return told["alerted"], told["why"]

        was_alerted, reason = await why(incident, "bob")
        assert was_alerted
        assert reason.startswith("nearby at commit (wave 1); delivered")
        assert await why(incident, "ann") == (
            False,
            "reported the incident: reporters are not alerted to it",
        )
        assert await why(secret, "bob") == (
            False,
            "alerts nobody: its audience is the police alone",
        )
        was_alerted, reason = await why(incident, "eva")
        assert not was_alerted
        assert "no place in effect" in reason


async def test_an_unknown_incident_is_said_to_be_unknown(servers: Servers) -> None:
    async with running(servers, services=()) as system:
        assert await nabij(system, "explain", str(uuid4())) == (1, None)


async def test_the_record_is_erased_with_the_incident(servers: Servers) -> None:
    timers = {"retention_s": 1}
    async with running(servers, timers=timers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        desk = await system.connect("desk-gent", "police/gent/#")
        incident = await alerted(system, ann, bob)
        await system.reply(bob, incident, "seen")
        await system.command(desk, "close", incident, outcome="solved")

        await desk.until(
            lambda: any(one.raw == b"" for one in desk.messages("police/gent/incident/")),
            "the cleared state",
        )

        left = [key for key in system.keys_with(incident) if ":receipt:" not in key]
        assert left == []
        assert await system.store.alerts.unconfirmed() == []


async def test_the_id_of_a_reporter_of_a_threat_leads_to_the_incident_and_names_the_report(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        desk = await system.connect("desk-gent", "police/gent/escalation/#")
        place = system.place()
        first, second = [await system.report(one, place, "threat") for one in (ann, bob)]
        incident = (await desk.expect("police/gent/", report=second["id"]))["incident"]

        for receipt, name in ((first, "ann"), (second, "bob")):
            status, told = await nabij(system, "explain", receipt["incident"], name)
            assert (status, told["incident"]["id"]) == (0, incident)
            assert told["conversation"] == {"id": receipt["incident"], "report": receipt["id"]}
            assert "reported the incident" in told["why"]
