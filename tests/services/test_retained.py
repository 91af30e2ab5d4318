"""What is published retained is handled once, and does not stay at the MQTT broker."""

from collections import Counter
from collections.abc import Mapping

import pytest

from tests.services.client import Client, Connect, connecting
from tests.services.system import Servers, a_presence, a_report, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

UP = ("u/+/up/#", "police/+/command")


async def retained(connect: Connect) -> list[str]:
    """The topics that a fresh subscriber finds something retained on; its own message ends them."""
    fresh = await connect("nabij", *UP, "ops/service/test/fresh")
    await fresh.publish("ops/service/test/fresh", {"end": True})
    await fresh.expect("ops/service/test/fresh")
    return [one.topic for one in fresh.received if one.retain]


async def cleared(fleet: Client, times: Mapping[str, int]) -> None:
    """Wait until each topic was cleared so often: an empty message tells."""

    def came() -> bool:
        empty = Counter(one.topic for one in fleet.received if one.raw == b"")
        return all(empty[topic] >= count for topic, count in times.items())

    await fleet.until(came, f"what clears {sorted(times)}")


async def test_a_retained_position_does_not_outlive_its_owners_withdrawal(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        fleet = await system.connect("nabij", "u/+/up/#", "u/+/down/#", "ops/rejected/#")
        place = system.place()
        await fleet.publish("u/bob/up/presence", a_presence(place), retain=True)
        await fleet.publish("u/eva/up/presence", b"{", retain=True)
        report = a_report(place)
        await fleet.publish("u/ann/up/report", report, retain=True)
        receipt = await fleet.expect("u/ann/down/receipt", id=report["id"])
        assert receipt["outcome"] == "accepted"
        await fleet.expect("u/bob/down/alert", incident=receipt["incident"])
        await fleet.expect("u/eva/down/receipt", outcome="rejected")
        await cleared(fleet, {"u/bob/up/presence": 1, "u/eva/up/presence": 1, "u/ann/up/report": 1})
        assert await retained(system.connect) == []
        await system.be_at(fleet, None, user="bob", availability="muted")
        later = await system.report(fleet, place, "robbery", user="ann")
        assert later["outcome"] == "accepted"
        # What clears is no message: nobody is told that it is wrong.
        assert len(fleet.on("u/", outcome="rejected")) == 1
        assert len(fleet.on("u/ann/down/receipt", id=report["id"])) == 1
        assert fleet.on("ops/rejected/") == []


async def test_what_was_retained_while_no_service_ran_is_handled_and_cleared(
    servers: Servers,
) -> None:
    async with connecting(servers.mqtt, servers.accounts) as connect:
        fleet = await connect("nabij", "u/+/up/#", "u/+/down/#")
        report = a_report((51.01, 3.61))
        await fleet.publish("u/ann/up/report", report, retain=True)
        await fleet.publish("u/bob/up/presence", a_presence((51.01, 3.61)), retain=True)
        assert sorted(await retained(connect)) == ["u/ann/up/report", "u/bob/up/presence"]
        async with running(servers):
            receipt = await fleet.expect("u/ann/down/receipt", id=report["id"])
            assert receipt["outcome"] == "accepted"
            await cleared(fleet, {"u/bob/up/presence": 1, "u/ann/up/report": 1})
            assert await retained(connect) == []
