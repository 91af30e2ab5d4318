"""What one incident cannot do, or one item of a sweep, holds up no other."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.store import OutboxMessage
from broker.store.outbox import post
from nabij.local.policy_file import policy_at, warnings_of
from schemas import topics
from schemas.ids import alert_id, new_id
from schemas.messages import AlertReason
from services import relay
from tests.services.system import Servers, System, ago, moved, polled, running

TIMERS = {"accept_s": 2, "acknowledge_s": 2}


async def test_an_open_incident_goes_on_when_the_policy_loses_its_category(
    servers: Servers,
) -> None:
    async with running(servers, timers=TIMERS) as system:
        ann, bob = await system.connect("ann"), await system.connect("bob")
        cleo = await system.connect("cleo")
        place = system.place()
        await system.be_at(bob, place)
        await system.be_at(cleo, moved(place, north_m=350))
        incident = (await system.report(ann, place, "vandalism"))["incident"]
        first = await bob.expect("u/bob/down/alert", incident=incident)
        settings = system.settings
    assert settings.policy is not None
    text = settings.policy.read_text(encoding="utf-8")
    without = settings.policy.with_name("without.toml")
    without.write_text(re.sub(r"\[categories\.vandalism\].*?(?=\n\[)", "", text, flags=re.DOTALL))
    assert "vandalism" not in policy_at(without).codes

    async with running(servers, settings=replace(settings, policy=without)) as system:
        ann, bob = await system.connect("ann"), await system.connect("bob")
        cleo = await system.connect("cleo")
        desk = await system.connect("desk-gent", "police/gent/#")
        [warning] = await warnings_of(policy_at(without), system.partitions)
        assert warning.startswith("categories.vandalism: missing, but open incidents are of it (1)")
        # The radius grows and the police are asked again, without the policy's row.
        wider = await cleo.expect("u/cleo/down/alert", incident=incident)
        assert (wider["reason"], wider["names"]) == ("widened", first["names"])
        await desk.expect("police/gent/escalation/p2", incident=incident, attempt=2)
        # A sync repeats the alert, and who accepts is in the group.
        await bob.ask("u/bob/up/sync", {"since": ago(minutes=5)})
        again = await bob.expect("u/bob/down/alert", incident=incident)
        assert (again["id"], again["names"]) == (first["id"], first["names"])
        await system.reply(bob, incident)
        await ann.expect("u/ann/down/group", incident=incident, kind="joined")
        refused = await system.report(ann, place, "vandalism")
        assert refused["code"] == "unknown_category"
        await system.command(desk, "close", incident, outcome="solved")
        await bob.expect("u/bob/down/group", incident=incident, kind="closed")


async def test_an_incident_that_cannot_be_read_holds_up_nobody_elses_alerts(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, dirk = await system.connect("ann"), await system.connect("dirk")
        incidents = [(await system.report(ann, system.place()))["incident"] for _ in range(2)]
        for incident in incidents:  # a worker claimed them, and died before sending
            await claimed_long_ago(system, incident, "dirk")
        broken, whole = incidents
        system.corrupt(f"incident:{broken}", "incident")
        try:
            alert = await dirk.expect("u/dirk/down/alert", incident=whole)
            assert alert["id"] == str(alert_id(UUID(whole), 1))
            # Nor does it in a sync, or for reports and people near it.
            await dirk.ask("u/dirk/up/sync", {"since": ago(minutes=5)})
            await dirk.expect("u/dirk/down/alert", incident=whole, count=2)
        finally:
            system.forget(f"incident:{broken}")


async def claimed_long_ago(system: System, incident: str, user: str) -> None:
    filed = await system.filed(incident)
    assert filed is not None
    store = system.partitions.of(UUID(incident))
    await store.alerts.claim(
        filed.incident,
        [user],
        reason=AlertReason.NEARBY,
        retention_s=3_600,
        now=datetime.now(UTC) - timedelta(minutes=1),
    )


async def test_an_unreadable_neighbour_costs_neither_a_report_nor_an_alert(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, dirk = await system.connect("ann"), await system.connect("dirk")
        place = system.place()
        broken = (await system.report(ann, place))["incident"]
        await system.be_at(dirk, place)
        system.corrupt(f"incident:{broken}", "incident")
        try:
            receipt = await system.report(ann, place)
            assert (receipt["outcome"], receipt["merge"]) == ("accepted", "opened")
            await dirk.expect("u/dirk/down/alert", incident=receipt["incident"])
        finally:
            system.forget(f"incident:{broken}")


async def test_a_message_that_cannot_be_given_up_holds_up_none_of_the_outbox(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose id is none of ours is as old as the other: only that one stays."""
    monkeypatch.setattr(relay, "_GIVE_UP_TRIES", 1)
    async with running(servers, services=("relay",)) as system:
        fleet = await system.connect("nabij", "u/zoe/down/#")
        stale_ms = int((datetime.now(UTC) - timedelta(hours=73)).timestamp() * 1000)
        topic = topics.QUESTION.topic(user="zoe")
        several = [
            OutboxMessage(id=name, topic=topic, payload=b"{}", made_ms=due_ms, due_ms=due_ms)
            for name, due_ms in (
                ("odd", stale_ms),
                (str(new_id()), stale_ms),
                (str(new_id()), stale_ms + 2 * 3_600_000),
            )
        ]
        transaction = system.store.transaction()
        for message in several:
            post(transaction, message)
        await transaction.run()

        await fleet.expect("u/zoe/down/question")

        async def is_laid_aside() -> bool:
            letters = {str(one.id) for one in await system.store.dead_letters.all()}
            return several[1].id in letters

        await polled(is_laid_aside)
        await system.store.outbox.remove(several)
