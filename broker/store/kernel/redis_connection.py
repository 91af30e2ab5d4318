"""Redis or Valkey as the store uses it: scripts by digest, and errors as UnavailableError.

Nothing is retried here: callers, whose effects carry ids, decide what is safe to repeat. Blocking
reads have connections of their own.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import resources
from typing import Any, Self

from broker.core.changes import Routes
from broker.errors import UnavailableError
from broker.store.kernel.keys import Keys
from broker.store.kernel.nodes import Nodes, has_replica
from broker.store.kernel.pipeline import CommandRefused, RedisPipeline, Word

__all__ = ["CorruptError", "RedisConnection", "Word"]

_SCRIPTS = (
    "commit",
    "neighbourhood",
    "near",
    "claim",
    "unconfirmed",
    "bury",
    "presence",
    "sweep",
    "missed",
    "moved",
    "worker",
    "rebase",
    "forget",
)
_READING = ("neighbourhood", "near", "missed")
_FOLDER = resources.files("broker.store.kernel").joinpath("scripts")
_SOURCES = {name: _FOLDER.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in _SCRIPTS}
_DIGESTS = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    for name, text in _SOURCES.items()
}
SCRIPT_NAMES = {digest: name for name, digest in _DIGESTS.items()}
ANSWER_S = 10.0
_REPLICA_MS = 1_000  # how long a replica may take to confirm a write
_HOPS = 5
# Errors that no retry fixes: a key or an entry is not what we stored.
_CORRUPT = ("WRONGTYPE", "ERR user_script", "ERR Error running script")
_PASSING = ("OOM", "MISCONF", "READONLY", "LOADING", "BUSY")  # may be inside a script's error


class CorruptError(Exception):
    """What is in Redis is not what we stored: a retry would not help."""


class RedisConnection:
    """Commands and scripts on one partition. `async with` connects.

    `nodes` may be shared by the connections of several partitions; by default each has its own.
    `routes` say which services read which events; without them none can be written.
    """

    def __init__(
        self,
        url: str,
        keys: Keys | None = None,
        nodes: Nodes | None = None,
        routes: Routes | None = None,
    ) -> None:
        self.keys = keys or Keys()
        self.routes = routes
        self._shares_nodes = nodes is not None
        self._nodes = nodes or Nodes(url, answer_s=ANSWER_S)
        self._blocking: dict[str, tuple[str, RedisPipeline]] = {}

    async def __aenter__(self) -> Self:
        await self.call("PING")
        return self

    async def __aexit__(self, *exc: object) -> None:
        for _, blocking in self._blocking.values():
            await blocking.close()
        if not self._shares_nodes:
            await self._nodes.close()

    async def call(self, *words: Word) -> Any:
        """Return the answer to one command, as the server gives it.

        Raises:
            UnavailableError: Redis cannot be reached, or refuses.
            CorruptError: its data is not what we stored.
        """
        return await self._ask(lambda wire, _: wire.call(*words))

    async def calls(self, several: Iterable[Sequence[Word]]) -> list[Any]:
        """Return the answers to several commands that do not depend on each other, sent together.

        Raises:
            UnavailableError, CorruptError: as `call`.
        """
        commands = [tuple(words) for words in several]
        answers: list[Any] = await self._ask(lambda wire, _: wire.calls(commands))
        return answers

    async def _ask(self, send: Callable[[RedisPipeline, bool], Awaitable[Any]]) -> Any:
        """Send to the partition's node; if another node has it, nothing was done: send there."""
        nodes = self._nodes
        for _ in range(_HOPS):
            wire, is_replicated = nodes.known(self.keys.slot) or await nodes.wire(self.keys.slot)
            try:
                return await send(wire, is_replicated)
            except CommandRefused as error:
                where = nodes.where(self.keys.slot)
                if not nodes.is_moved(error):
                    raise _ours(error, where) from error
            except UnavailableError:
                nodes.doubt()
                raise
        raise UnavailableError("Redis: the cluster does not agree on who has what")

    async def blocking(self, who: str, block_ms: int, *words: Word) -> Any:
        """Return the answer to a command that may block for `block_ms`, on the connection of `who`.

        Raises:
            UnavailableError: Redis cannot be reached, or refuses.
        """
        url, _ = await self._nodes.place(self.keys.slot)
        known = self._blocking.get(who)
        if known is None or known[0] != url:
            if known is not None:
                await known[1].close()
            known = self._blocking[who] = (
                url,
                self._nodes.open_redis(url, answer_s=block_ms / 1000 + ANSWER_S),
            )
        try:
            return await known[1].call(*words)
        except CommandRefused as error:
            where = self._nodes.where(self.keys.slot)
            self._nodes.is_moved(error)
            raise _ours(error, where) from error
        except UnavailableError:
            self._nodes.doubt()
            raise

    async def script(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """Run the script `name`; load it if Redis does not have it.

        A write is done only when a replica, if there is one, has it too: a cluster that loses the
        server a moment later loses nothing.

        Raises:
            UnavailableError: Redis cannot be reached, refuses to write, or the replica is silent.
        """
        command = ("EVALSHA", _DIGESTS[name], len(keys), *keys, *words)

        async def run(wire: RedisPipeline, is_replicated: bool) -> Any:  # noqa: FBT001 - as `_ask` has it
            if not is_replicated or name in _READING:
                return await wire.call(*command)
            answer, replicas = await wire.calls([command, ("WAIT", 1, _REPLICA_MS)])
            if replicas < 1:
                if await has_replica(wire):
                    raise UnavailableError("Redis: the replica has not confirmed a write")
                self._nodes.unreplicated(self.keys.slot)
            return answer

        try:
            return await self._ask(run)
        except UnavailableError as error:
            if "NOSCRIPT" not in str(error):
                raise
        await self.call("SCRIPT", "LOAD", _SOURCES[name])
        return await self._ask(run)


def _ours(error: CommandRefused, where: str) -> Exception:
    text = str(error)
    if text.startswith(_CORRUPT) and not any(code in text for code in _PASSING):
        return CorruptError(f"Redis at {where}: {text}")
    return UnavailableError(f"Redis at {where}: {text}")
