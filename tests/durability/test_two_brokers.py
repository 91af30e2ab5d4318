"""Two independent MQTT brokers that serve one city as one; one of them is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from broker.runtime import session_takeover
from broker.store import WorkerState
from nabij.local.embedded import Account, EmbeddedMqtt, MqttEngine
from tests.services.client import Client, Connect, connecting
from tests.services.system import KORENMARKT, Servers, System, ago, moved, polled, running

PLACE = moved(KORENMARKT, north_m=2_000)


class Two:
    """The two brokers, the services that speak on both, and a way in at each."""

    def __init__(
        self, system: System, where: Servers, servers: list[EmbeddedMqtt], at: list[Connect]
    ) -> None:
        self.system = system
        self.where = where
        self.servers = servers
        self.at = at


@pytest.fixture
async def two(
    data_dir: Path, accounts: dict[str, Account], mqtt_engine: MqttEngine, redis_url: str
) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                EmbeddedMqtt(data_dir / name, list(accounts.values()), engine=mqtt_engine)
            )
            for name in ("one", "two")
        ]
        at = [await stack.enter_async_context(connecting(one, accounts)) for one in servers]
        nabij = accounts["nabij"]
        login = servers[0].url_for(nabij).rpartition("@")[0]
        hosts = ",".join(f"{one.host}:{one.port}" for one in servers)
        where = Servers(
            mqtt=servers[0],
            redis_url=redis_url,
            accounts=accounts,
            directory=data_dir,
            mqtt_url=f"{login}@{hosts}",
        )
        system = await stack.enter_async_context(running(where))
        yield Two(system, where, servers, at)


async def test_each_answer_goes_by_the_broker_that_its_device_speaks_on(two: Two) -> None:
    ann, bob = await two.at[0]("ann"), await two.at[1]("bob")
    bob_elsewhere = await two.at[0]("bob")  # another device of his, which says nothing
    desks = [await at("desk-gent", "police/gent/#") for at in two.at]
    await two.system.be_at(bob, moved(PLACE, east_m=60))
    receipt = await two.system.report(ann, PLACE)
    incident = receipt["incident"]

    await bob.expect("u/bob/down/alert", incident=incident)
    for desk in desks:
        await desk.expect("police/gent/escalation/", incident=incident)
        await desk.expect("police/gent/incident/", incident=incident)
    assert (await two.system.reply(bob, incident))["outcome"] == "accepted"
    await ann.expect("u/ann/down/group", incident=incident, kind="joined")
    ordered = await two.system.command(desks[1], "close", incident, outcome="done")
    assert ordered["outcome"] == "accepted"
    await bob.expect("u/bob/down/group", incident=incident, kind="closed")
    assert not bob_elsewhere.on("u/bob/down/alert")
    assert not bob_elsewhere.on("u/bob/down/receipt")


async def test_one_that_is_killed_costs_those_on_the_other_nothing(two: Two) -> None:
    ann, cleo = await two.at[0]("ann"), await two.at[0]("cleo")
    bob = await two.at[1]("bob")
    desk = await two.at[0]("desk-gent", "police/gent/#", confirms=False)
    for client in (bob, cleo):
        await two.system.be_at(client, moved(PLACE, east_m=60))
    before = ago()
    await two.servers[1].kill()
    incidents = []
    for number in range(3):
        receipt = await two.system.report(ann, PLACE, ("fight", "fire", "medical")[number])
        incidents.append(receipt["incident"])
        await cleo.expect("u/cleo/down/alert", incident=incidents[-1])
        await desk.expect("police/gent/escalation/", incident=incidents[-1])
        await desk.expect("police/gent/incident/", incident=incidents[-1])
    assert (await two.system.reply(cleo, incidents[0]))["outcome"] == "accepted"

    await two.servers[1].restart()
    again = await two.at[1]("bob")
    late = await two.at[1]("desk-gent", "police/gent/#")  # is sent what no desk has confirmed
    await _synced(again, before)  # a device asks for what it missed
    for incident in incidents:
        await again.expect("u/bob/down/alert", incident=incident)
        await late.expect("police/gent/incident/", incident=incident)
        await late.expect("police/gent/escalation/", incident=incident)


async def _synced(client: Client, since: str) -> None:
    """Ask until a service is there to answer."""
    topic = f"u/{client.name}/down/receipt"
    while not client.on(topic, subject="sync"):
        await client.publish(f"u/{client.name}/up/sync", {"since": since}, response_topic=topic)
        try:
            async with asyncio.timeout(1.0):
                await client.expect(topic, subject="sync")
        except TimeoutError:
            continue


async def test_services_start_while_one_is_away(two: Two) -> None:
    await two.servers[1].kill()

    async with running(two.where, services=("police", "intake")):
        pass  # they became ready


async def test_the_session_of_a_worker_that_is_gone_is_ended_at_each(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_takeover, "BEAT_S", 0.1)
    gone = replace(two.system.settings, instance="gone")
    async with running(two.where, services=("intake",), settings=gone):
        pass
    ann, bob = await two.at[0]("ann"), await two.at[1]("bob")
    for client in (ann, bob) * 3:
        receipt = await two.system.report(client, PLACE)
        assert receipt["outcome"] == "accepted"

    async def are_gone() -> bool:
        registered = await two.system.store.workers.of("intake")
        theirs = [one.session for one in registered if one.session.instance == "gone-1"]
        assert {session.server for session in theirs} == {0, 1}
        return all(session.state is WorkerState.GONE for session in theirs)

    await polled(are_gone)
