"""The whole path in 16 partitions on a Redis Cluster, one of whose nodes is killed in the middle."""

import asyncio
import os
import signal

import pytest

from broker.errors import UnavailableError
from tests.cluster.conftest import PARTITIONS
from tests.cluster.nodes import Cluster
from tests.services.client import WITHIN_S, Connect
from tests.services.system import KORENMARKT, System, a_report, ago, moved, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_partitions_are_on_every_node(system: System, cluster: Cluster) -> None:
    masters = {(await cluster.master_of(one.keys.slot)).port for one in system.partitions}

    assert len(masters) == 3
    assert len(system.partitions) == PARTITIONS


async def test_the_whole_path(system: System, connect: Connect) -> None:
    ann, bob = await connect("ann"), await connect("bob")
    desk = await connect("desk-gent", "police/gent/#")
    before = ago()
    for north_m in range(-8_000, 8_001, 4_000):  # over the borders of several partitions
        place = moved(KORENMARKT, north_m=north_m)
        await system.be_at(bob, moved(place, east_m=50))
        receipt = await system.report(ann, place)
        incident = receipt["incident"]
        assert receipt["merge"] == "opened"
        await bob.expect("u/bob/down/alert", incident=incident)
        await desk.expect("police/gent/escalation/", incident=incident)
        assert (await system.reply(bob, incident))["outcome"] == "accepted"
        merged = await system.report(ann, moved(place, east_m=20))
        assert (merged["merge"], merged["incident"]) == ("merged", incident)
        asked = await system.command(desk, "ask", incident, text="Where?", report=receipt["id"])
        assert asked["outcome"] == "accepted"
        question = await ann.expect("u/ann/down/question", incident=incident)
        answered = await system.up(ann, "answer", question=question["id"], text="Here.")
        assert answered["outcome"] == "accepted"
        closed = await system.command(desk, "close", incident, outcome="done")
        assert closed["outcome"] == "accepted"
        await bob.expect("u/bob/down/group", incident=incident, kind="closed")
    again = await connect("bob")
    await again.ask("u/bob/up/sync", {"since": before})
    assert len({event["incident"] for event in again.on("u/bob/down/group", kind="closed")}) == 5


async def counted(system: System) -> int:
    """Write something in the first partition, and return how often that was done."""
    transaction = system.store.transaction()
    transaction.call("INCR", f"{system.store.keys.prefix}test")
    results = await transaction.run()
    assert results is not None
    return int(results[0])


async def test_a_write_is_done_when_the_replica_has_it(system: System, cluster: Cluster) -> None:
    await cluster.whole()

    async def is_known() -> bool:
        """The client asks again every 5 s whether there is a replica."""
        await counted(system)
        known = system.store._redis._nodes.known(system.store.keys.slot)
        return known is not None and known[1]

    await polled(is_known)
    before = await counted(system)
    replica = await cluster.replica_of(system.store.keys.slot)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match="the replica has not confirmed a write"):
            await counted(system)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    await cluster.whole()
    assert await counted(system) == before + 2  # it was done at the master: to be repeated safely


async def test_without_a_replica_a_write_is_done_by_the_master_alone(
    system: System, cluster: Cluster
) -> None:
    await cluster.whole()
    before = await counted(system)
    replica = await cluster.replica_of(system.store.keys.slot)
    await replica.kill()
    assert [await counted(system) for _ in range(5)] == [before + n for n in range(1, 6)]
    await replica.restart()
    await cluster.whole()


async def test_a_partition_that_moves_to_another_node_is_followed(
    system: System, connect: Connect, cluster: Cluster
) -> None:
    ann = await connect("ann")
    slot = system.partitions.at(*KORENMARKT).keys.slot
    master, replica = await cluster.master_of(slot), await cluster.replica_of(slot)
    place = moved(KORENMARKT, north_m=9_000)
    first = await system.report(ann, place)
    await replica.ask("CLUSTER", "FAILOVER")
    await cluster.whole()
    again = await system.report(ann, place)

    assert again["incident"] == first["incident"]
    assert await cluster.master_of(slot) is replica
    assert (await master.ask("ROLE"))[0] == "slave"


async def test_a_node_is_killed_and_its_replica_takes_over_and_nothing_is_lost(
    system: System, connect: Connect, cluster: Cluster
) -> None:
    fleet = await connect("nabij", "u/+/down/#")
    await cluster.whole()
    victim = await cluster.master_of(system.partitions.at(*KORENMARKT).keys.slot)
    reports = [
        a_report(moved(KORENMARKT, north_m=-7_000 + 350 * (number % 40), east_m=600 * (number % 3)))
        for number in range(240)
    ]
    receipts: dict[str, str] = {}
    some_are_done = asyncio.Event()

    async def send(number: int) -> None:
        user = f"p-{number % 40 + 1}"
        while reports[number]["id"] not in receipts:  # as a device with a journal does
            try:
                answer = await fleet.ask(f"u/{user}/up/report", reports[number])
            except (AssertionError, TimeoutError):
                continue
            assert answer.payload["outcome"] == "accepted", answer.payload
            receipts[reports[number]["id"]] = answer.payload["incident"]
            if len(receipts) == 60:
                some_are_done.set()

    async def send_some(first: int, last: int) -> None:
        for number in range(first, last):
            await send(number)

    sending = asyncio.gather(*(send_some(first, first + 20) for first in range(0, 240, 20)))
    async with asyncio.timeout(WITHIN_S):
        await some_are_done.wait()
    await victim.kill()
    await sending

    assert len(receipts) == len(reports)
    for report, incident in receipts.items():
        filed = await system.filed(incident)
        assert filed is not None, f"report {report} has its receipt and is nowhere"
    for number in range(0, 240, 7):  # whatever was repeated was committed once
        report = reports[number]
        user = f"p-{number % 40 + 1}"
        again = await fleet.ask(f"u/{user}/up/report", report)
        assert again.payload["incident"] == receipts[report["id"]]
    counted = [await system.filed(incident) for incident in set(receipts.values())]
    assert sum(filed.incident.reports for filed in counted if filed) == len(reports)
    await victim.restart()  # as the replica of its replica
    await cluster.whole()
    assert (await victim.ask("ROLE"))[0] == "slave"
