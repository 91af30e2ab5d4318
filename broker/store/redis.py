"""The connection to Redis or Valkey: scripts by digest, and errors as ours to mend.

The client retries nothing by itself: what is safe to repeat is decided above, where effects carry
ids. Blocking reads run on a connection of their own.
"""

from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from broker.errors import UnavailableError

Word = bytes | str | int | float

_SCRIPTS = ("commit", "neighbourhood", "near", "claim", "presence", "sweep")


class Connection:
    """Commands and scripts on one Redis. `async with` connects and loads the scripts."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=False,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=5,
            socket_timeout=None,
            protocol=2,
            max_connections=512,
        )
        self._redis.response_callbacks.clear()  # answers as the server gives them, in every command
        # redis-py leaves this method untyped.
        self._execute = cast("Callable[..., Awaitable[Any]]", self._redis.execute_command)
        self._sources = {
            name: resources.files("broker.store").joinpath(f"scripts/{name}.lua").read_text()
            for name in _SCRIPTS
        }
        self._digests: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self._load()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def _load(self) -> None:
        for name, source in self._sources.items():
            digest = await self.call("SCRIPT LOAD", source)
            self._digests[name] = digest.decode() if isinstance(digest, bytes) else digest

    async def call(self, command: str, *words: Word) -> Any:
        """Run one command.

        Raises:
            UnavailableError: Redis cannot be reached, or refuses to write.
        """
        try:
            return await self._execute(command, *words)
        except RedisError as error:
            raise _ours(error) from error

    async def script(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Any:
        """Run the script `name`; loads it again if Redis has forgotten it (a restart).

        Raises:
            UnavailableError: Redis cannot be reached, or refuses to write.
        """
        try:
            return await self._evalsha(name, keys, words)
        except ResponseError as error:
            if "NOSCRIPT" not in str(error):
                raise _ours(error) from error
        except RedisError as error:
            raise _ours(error) from error
        await self._load()
        try:
            return await self._evalsha(name, keys, words)
        except RedisError as error:
            raise _ours(error) from error

    def _evalsha(self, name: str, keys: Sequence[str], words: Sequence[Word]) -> Awaitable[Any]:
        return self._execute("EVALSHA", self._digests[name], len(keys), *keys, *words)


def _ours(error: RedisError) -> UnavailableError:
    return UnavailableError(f"Redis: {type(error).__name__}: {error}")
