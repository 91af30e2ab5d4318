"""A Redis Cluster of three masters, each with a replica: six real servers."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis
import redis.asyncio

from nabij.local.embedded import EmbeddedRedis, redis_config
from nabij.local.managed_process import HOST, free_port, write_private

MASTERS = 3
SLOTS = 16_384
TIMEOUT_MS = 1_000  # after so long a node counts as failed, and its replica takes over
WITHIN_S = 60.0


class Node(EmbeddedRedis):
    """One server of a cluster, all of whom have one password."""

    def __init__(self, data_dir: Path, password: str) -> None:
        super().__init__(data_dir)
        self._password = password
        self.bus = free_port()

    def _command(self) -> list[str]:
        config = self.directory / "redis.conf"
        lines = [
            redis_config(self.directory, self.port, self._password),
            "cluster-enabled yes",
            f"cluster-port {self.bus}",
            f"cluster-node-timeout {TIMEOUT_MS}",
            "cluster-require-full-coverage no",
            f"masterauth {self._password}",
            "repl-diskless-sync-delay 0",
            "",
        ]
        write_private(config, "\n".join(lines))
        return [self._program, str(config)]

    async def ask(self, *words: str | int) -> Any:
        """Return the answer to one command."""
        async with redis.asyncio.Redis.from_url(
            self.url.rpartition("/")[0], decode_responses=True
        ) as client:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]


class Cluster:
    """Six nodes, running and agreed while the `async with` lasts."""

    def __init__(self, directory: Path) -> None:
        password = secrets.token_urlsafe(16)
        self._password = password
        self.nodes = [Node(directory / f"node-{number}", password) for number in range(2 * MASTERS)]

    @property
    def url(self) -> str:
        """The first node of each pair: each of them tells of the others."""
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes[:MASTERS])
        return f"redis://:{self._password}@{hosts}"

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            node.directory.parent.mkdir()
            await asyncio.to_thread(node._claim)
            node._spawn()
        await asyncio.gather(*(asyncio.to_thread(node._await_ready) for node in self.nodes))
        await self._form()
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            await asyncio.to_thread(node.stop)

    async def _form(self) -> None:
        first, *others = self.nodes
        for node in others:
            await first.ask("CLUSTER", "MEET", HOST, node.port, node.bus)
        for number, node in enumerate(self.nodes[:MASTERS]):
            begin, end = (SLOTS * each // MASTERS for each in (number, number + 1))
            await node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        await self.until(lambda node: _knows(node, 2 * MASTERS))
        for master, replica in zip(self.nodes, self.nodes[MASTERS:], strict=False):
            await replica.ask("CLUSTER", "REPLICATE", await master.ask("CLUSTER", "MYID"))
        await self.until(_is_whole)

    async def until(self, holds: Any, nodes: Sequence[Node] | None = None) -> None:
        """Wait until every node says so."""
        async with asyncio.timeout(WITHIN_S):
            for node in nodes or self.nodes:
                while not await holds(node):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)

    async def whole(self) -> None:
        """Wait until every slot has a master, and every master a replica that is up to date."""
        await self.until(_is_whole)

    async def masters(self) -> list[Node]:
        """Return who is a master now, of those that run."""
        return [
            node for node in self.nodes if node.running and (await node.ask("ROLE"))[0] == "master"
        ]

    async def master_of(self, slot: int) -> Node:
        """Return the node that has a slot now."""
        running = next(node for node in self.nodes if node.running)
        for first, last, (_, port, *_), *_ in await running.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    async def replica_of(self, slot: int) -> Node:
        """Return the replica of the node that has a slot now."""
        master = await self.master_of(slot)
        [[_, port, _]] = (await master.ask("ROLE"))[2]
        return next(node for node in self.nodes if node.port == int(port))


async def _knows(node: Node, count: int) -> bool:
    return f"cluster_known_nodes:{count}" in await _info(node)


async def _is_whole(node: Node) -> bool:
    info = await _info(node)
    if "cluster_state:ok" not in info or f"cluster_slots_ok:{SLOTS}" not in info:
        return False
    role = await node.ask("ROLE")
    return bool(role[2]) if role[0] == "master" else role[3] == "connected"


async def _info(node: Node) -> str:
    info: dict[str, str] | str = await node.ask("CLUSTER", "INFO")
    if isinstance(info, dict):
        return "\n".join(f"{name}:{value}" for name, value in info.items())
    return info
