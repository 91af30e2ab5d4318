"""The hosts of chaos change as the plan says; their workers here do nothing but run."""

import os
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from broker.core.health import Health
from verify.chaos.hosts import Hosts
from verify.chaos.plan import HostChange, Rescale, rescales_of

SAYS = b"ready\n" + msgspec.json.encode(Health()) + b"\n"
IDLE = f"import os, signal, sys; os.write(int(sys.argv[3]), {SAYS!r}); signal.pause()"
PROGRAM = (sys.executable, "-I", "-S", "-c", IDLE)


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    services = {"intake": 1, "deadlines": 1}
    async with Hosts(dict(os.environ), PROGRAM, names=("a", "b"), workers=services) as hosts:
        await hosts.wait_ready()
        yield hosts


async def names_after(hosts: Hosts, change: HostChange, pick: float = 0.0) -> set[str]:
    await hosts.change(Rescale(0.0, change, pick))
    assert hosts.ready
    return {name.partition("-")[0] for name in hosts.processes()}


async def test_a_host_that_dies_comes_back_under_another_name_and_touches_no_other(
    hosts: Hosts,
) -> None:
    before = hosts.processes()
    assert await names_after(hosts, HostChange.HOST_DIES, pick=0.9) == {"a", "h1"}
    after = hosts.processes()
    assert {name: pid for name, pid in after.items() if name.startswith("a-")} == {
        name: pid for name, pid in before.items() if name.startswith("a-")
    }
    for name, pid in before.items():
        if name.startswith("b-"):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


async def test_hosts_are_swapped_restarted_and_all_stopped(hosts: Hosts) -> None:
    assert await names_after(hosts, HostChange.SWAP) == {"b", "h1"}
    before = hosts.processes()
    assert await names_after(hosts, HostChange.ROLLING_RESTART) == {"b", "h1"}
    assert not {*before.values()} & {*hosts.processes().values()}
    assert await names_after(hosts, HostChange.ALL_DOWN) == {"h2", "h3"}


async def test_a_host_is_scaled_up_and_down_again(hosts: Hosts) -> None:
    await names_after(hosts, HostChange.SCALE_UP, pick=0.9)
    assert "b-intake-2" in hosts.processes()
    assert "b-deadlines-2" not in hosts.processes()
    await names_after(hosts, HostChange.SCALE_DOWN, pick=0.0)
    assert "b-intake-2" not in hosts.processes()
    assert len(hosts.workers) == 4


def test_a_plan_has_each_change_once_a_round() -> None:
    plan = rescales_of(2, seed=1)
    assert sorted(one.change for one in plan) == sorted([*HostChange] * 2)
    assert [one.share for one in plan] == sorted(one.share for one in plan)
    assert rescales_of(2, seed=1) == plan
    assert rescales_of(2, seed=2) != plan
