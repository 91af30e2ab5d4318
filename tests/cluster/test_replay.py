"""A verified replay of a real stream on the cluster, while a node is killed and failed over."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.store.kernel.keys import Keys
from tests.cluster.conftest import PARTITIONS
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPORTS, KILLED_AFTER = 500, 150


async def test_a_verified_replay_loses_nothing_when_a_node_is_killed(
    cluster: Cluster, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    for node in await cluster.masters():
        await node.ask("FLUSHALL")
    await cluster.whole()
    stream = shared_data("incidents/emergency_calls_montgomery_2015_2016.csv.gz")
    tracks = shared_data("positions/walks_and_drives_relative.csv.gz")
    replay = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nabij.cli",
        "replay",
        str(stream),
        "--map",
        "montgomery",
        "--tracks",
        str(tracks),
        "--participants",
        "100",
        "--limit",
        str(REPORTS),
        "--verify",
        "--json",
        "--data-dir",
        str(tmp_path),
        env={**os.environ, "NABIJ_REDIS_URL": cluster.url, "NABIJ_PARTITIONS": str(PARTITIONS)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(120):
            while await _committed(cluster) < KILLED_AFTER:
                assert replay.returncode is None
                await asyncio.sleep(0.05)
        victim = await cluster.master_of(Keys(7, PARTITIONS).slot)  # the Korenmarkt's
        await victim.kill()
        output, _ = await asyncio.wait_for(replay.communicate(), 180)
    finally:
        if replay.returncode is None:
            replay.kill()
            await replay.wait()
    result = json.loads(output)
    assert replay.returncode == 0, result
    assert (result["missing"], result["unexpected"]) == (0, 0)
    assert result["verdict"]["merges_wrong"] == 0
    await victim.restart()


async def _committed(cluster: Cluster) -> int:
    """How many reports are committed, in all partitions."""
    sequences = [Keys(number, PARTITIONS) for number in range(PARTITIONS)]
    nodes = [await cluster.master_of(keys.slot) for keys in sequences]
    found = [
        await node.ask("GET", counter)
        for node, keys in zip(nodes, sequences, strict=True)
        for counter in (keys.sequence, keys.sequence_apart)
    ]
    return sum(int(each or 0) for each in found)
