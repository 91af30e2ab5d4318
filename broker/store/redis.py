"""Redis or Valkey as the store uses it: scripts by digest, and errors as ours to mend.

Nothing is retried here: what is safe to repeat is decided above, where effects carry ids. Blocking
reads have connections of their own.
"""

from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Self

from broker.errors import UnavailableError
from broker.store.wire import Refused, Wire, Word

__all__ = ["Connection", "CorruptError", "Word"]

_SCRIPTS = (
    "commit", "neighbourhood", "near", "claim", "unconfirmed", "bury", "presence", "sweep", "missed",
)  # fmt: skip
_ANSWER_S = 10.0
# What no repetition mends: a key or an entry that is not what we stored.
_CORRUPT = ("WRONGTYPE", "ERR user_script", "ERR Error running script")
_PASSING = ("OOM", "MISCONF", "READONLY", "LOADING", "BUSY")  # may stand inside a script's error


class CorruptError(Exception):
    """What is in Redis is not what we stored there. To try again would not help: poison."""


class Connection:
    """Commands and scripts on one Redis. `async with` connects and loads the scripts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wire = Wire(url, answer_s=_ANSWER_S)
        self._blocking: dict[str, Wire] = {}
        self._digests: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        await self._load()
        return self

    async def __aexit__(self, *_: object) -> None:
        for wire in (self._wire, *self._blocking.values()):
            await wire.close()

    async def _load(self) -> None:
        folder = resources.files("broker.store").joinpath("scripts")
        for name in _SCRIPTS:
            source = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
            self._digests[name] = await self.call("SCRIPT", "LOAD", source)

    async def call(self, *words: Word) -> Any:
        """Return the answer to one command, as the server gives it.

        Raises:
            UnavailableError: Redis cannot be reached, or refuses.
            CorruptError: what it has is not what we stored.
        """
        try:
            return await self._wire.call(*words)
        except Refused as error:
            raise _ours(error) from error

    async def calls(self, several: Iterable[Sequence[Word]]) -> list[Any]:
        """Return the answers to several commands that do not depend on each other, sent together.

        Raises:
            UnavailableError, CorruptError: as `call`.
        """
        try:
            return await self._wire.calls(several)
        except Refused as error:
            raise _ours(error) from error

    async def blocking(self, who: str, block_ms: int, *words: Word) -> Any:
        """Return the answer to a command that may block for `block_ms`, on a connection of `who`.

        Raises:
            UnavailableError: Redis cannot be reached, or refuses.
        """
        wire = self._blocking.get(who)
        if wire is None:
            wire = self._blocking[who] = Wire(self._url, answer_s=block_ms / 1000 + _ANSWER_S)
        try:
            return await wire.call(*words)
        except Refused as error:
            raise _ours(error) from error

    async def script(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """Run the script `name`; loads it again if Redis has forgotten it (a restart).

        Raises:
            UnavailableError: Redis cannot be reached, or refuses to write.
        """
        try:
            return await self._evalsha(name, keys, words)
        except UnavailableError as error:
            if "NOSCRIPT" not in str(error):
                raise
        await self._load()
        return await self._evalsha(name, keys, words)

    async def _evalsha(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        return await self.call("EVALSHA", self._digests[name], len(keys), *keys, *words)


def _ours(error: Refused) -> Exception:
    text = str(error)
    if text.startswith(_CORRUPT) and not any(code in text for code in _PASSING):
        return CorruptError(f"Redis: {text}")
    return UnavailableError(f"Redis: {text}")
