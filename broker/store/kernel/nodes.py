"""The Redis servers behind a URL: one, or the masters of a Redis Cluster.

The servers tell which it is (`CLUSTER SLOTS`). A URL may name several, `redis://a:7001,b:7002,c`:
any node of a cluster that answers names the others. All partitions share one connection to each
server; each blocking reader has its own.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import structlog

from broker.errors import UnavailableError
from broker.hosts import each_url
from broker.store.kernel.pipeline import CommandRefused, RedisPipeline

_log = structlog.get_logger()

_PORT = 6379
_LEARN_APART_S = 0.1  # how often at most the servers are asked for the slots,
_LEARN_EVERY_S = 5.0  # and how often at least: replicas come and go silently
_LEARN_S = 1.0  # how long one of several may take to answer before the next is asked
_LOST = ("CLUSTERDOWN", "READONLY", "MASTERDOWN", "LOADING")  # another node may have it now

Slots = list[tuple[range, str, bool]]


class OpenRedis(Protocol):
    """Makes a connection to one server: the class `RedisPipeline`, or what stands for it."""

    def __call__(self, url: str, *, answer_s: float) -> RedisPipeline:
        """Return a connection that opens with its first call."""


class Nodes:
    """The nodes of all slots, and the connections to them."""

    def __init__(self, url: str, *, answer_s: float, open_redis: OpenRedis = RedisPipeline) -> None:
        self.open_redis = open_redis
        self._url = url
        self._answer_s = answer_s
        self._seeds = each_url(url)
        self._wires: dict[str, RedisPipeline] = {}
        self._slots: Slots | None = None  # None: not known yet, or doubtful
        self._by_slot: dict[int, tuple[RedisPipeline, bool]] = {}
        self._learned_at = -_LEARN_APART_S
        self._learning = asyncio.Lock()
        self._masters: list[str] = []
        self.is_cluster = False

    async def close(self) -> None:
        """Close the connections."""
        for wire in self._wires.values():
            await wire.close()

    def known(self, slot: int) -> tuple[RedisPipeline, bool] | None:
        """Return what `wire` does if no server has to be asked; else None."""
        if self.is_cluster and _now() > self._learned_at + _LEARN_EVERY_S:
            self.doubt()
        return self._by_slot.get(slot)

    def unreplicated(self, slot: int) -> None:
        """Expect no replica of `slot` until the nodes are asked again."""
        if known := self._by_slot.get(slot):
            self._by_slot[slot] = (known[0], False)

    async def wire(self, slot: int) -> tuple[RedisPipeline, bool]:
        """Return the connection to the node that has `slot`, and whether it has a replica.

        Raises:
            UnavailableError: no server answers, or none has it.
        """
        url, is_replicated = await self.place(slot)
        found = self._by_slot[slot] = (self._wire(url), is_replicated)
        return found

    async def place(self, slot: int) -> tuple[str, bool]:
        """Return the URL of the node with `slot`, and whether it has a replica; raises as `wire`."""
        if self._slots is None:
            await self._learn()
        assert self._slots is not None
        for slots, url, is_replicated in self._slots:
            if slot in slots:
                return url, is_replicated
        self.doubt()
        raise UnavailableError(f"Redis: nobody has the slot {slot}")

    def where(self, slot: int) -> str:
        """Return host and port of the node that had `slot` last, as far as known: for an error."""
        known = (_bare(url) for slots, url, _ in self._slots or () if slot in slots)
        return next(known, ", ".join(map(_bare, self._seeds)))

    def doubt(self) -> None:
        """Ask again before the next command: a node is gone, or does not have the slot."""
        if self.is_cluster:
            self._slots = None
            self._by_slot.clear()

    def is_moved(self, error: CommandRefused) -> bool:
        """Whether a server refused because another has the slot; if so, ask again."""
        text = str(error)
        if text.startswith(_LOST):
            self.doubt()
        if not text.startswith("MOVED"):
            return False
        self.doubt()
        return True

    async def _learn(self) -> None:
        async with self._learning:
            if self._slots is not None:
                return  # another task has asked since
            await asyncio.sleep(max(0.0, self._learned_at + _LEARN_APART_S - _now()))
            failure: Exception | None = None
            urls = dict.fromkeys((*self._seeds, *self._wires))
            for url in urls:
                try:
                    async with asyncio.timeout(_LEARN_S if len(urls) > 1 else None):
                        self._slots = await self._slots_of(url)
                except (UnavailableError, TimeoutError) as error:
                    failure = error
                else:
                    return
                finally:
                    self._learned_at = _now()
            raise UnavailableError(str(failure) or f"Redis: no answer for {_LEARN_S:g} s each")

    async def _slots_of(self, url: str) -> Slots:
        try:
            rows = await self._wire(url).call("CLUSTER", "SLOTS")
        except CommandRefused as error:
            if self.is_cluster or str(error).startswith(_LOST):
                raise UnavailableError(f"Redis at {_bare(url)}: {error}") from error
            return [(range(16_384), url, False)]  # no cluster
        self.is_cluster = True
        slots = [
            (range(first, last + 1), _at(url, *master[:2]), bool(replicas))
            for first, last, master, *replicas in rows
        ]
        known = {url for _, url, _ in slots} | {*self._seeds}
        for gone in self._wires.keys() - known:
            await self._wires.pop(gone).close()
        masters = sorted({_bare(url) for _, url, _ in slots})
        if masters != self._masters:
            self._masters = masters
            _log.info("the cluster's masters", masters=masters)
        return slots

    def _wire(self, url: str) -> RedisPipeline:
        wire = self._wires.get(url)
        if wire is None:
            wire = self._wires[url] = self.open_redis(url, answer_s=self._answer_s)
        return wire


def _now() -> float:
    return asyncio.get_running_loop().time()


async def has_replica(wire: RedisPipeline) -> bool:
    """Whether a replica is connected to this server at this moment."""
    role: Sequence[Any] = await wire.call("ROLE")
    return role[0] == b"master" and bool(role[2])


def _at(url: str, host: bytes | None, port: int) -> str:
    """Return the URL of another server of the same cluster, which has the same passwords."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    name = host.decode() if host else parts.hostname or "localhost"
    name = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{login}{at}{name}:{port}").geturl()


def _bare(url: str) -> str:
    """Return a URL's host and port, or the path of its socket: without its password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
