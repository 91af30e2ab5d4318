"""The Redis server's settings, disk and clock, and whether it can write."""

import time
from collections.abc import Sequence

import msgspec

from broker.core.clock_jumps import GRACE_S, SharedTime
from broker.core.health import Cause, Severity, redis_cause
from broker.errors import UnavailableError
from broker.store.kernel.redis_connection import RedisConnection

_WANTED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
_UNSAFE = "unsafe_redis"
_LOSES = {
    "appendonly": "what got a receipt is lost when it dies",
    "appendfsync": "what got a receipt in the last second is lost when it dies",
    "maxmemory-policy": "it deletes reports when its memory is full",
}
_PROBE_MS = 60_000
_SHARED_MS = int(
    GRACE_S * 1000
)  # as long as a jump is held off, so that a restart does not end that


class Server:
    """The server of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def write(self, shared: SharedTime | None = None) -> float:
        """Write, as the commit of a receipt does; return the server's clock (Unix s).

        `shared` is the time that the worker uses, for workers that start.

        Raises:
            UnavailableError: it cannot be reached, or refuses to write.
        """
        commands: list[tuple[str | int | bytes, ...]] = [
            ("SET", self._redis.keys.probe, int(time.time()), "PX", _PROBE_MS)
        ]
        if shared is not None:
            told = msgspec.json.encode(shared)
            commands.append(("SET", self._redis.keys.shared_time, told, "PX", _SHARED_MS))
        *_, clock = await self._redis.calls([*commands, ("TIME",)])
        return _unix_s(clock)

    async def shared_time(self) -> tuple[SharedTime, float]:
        """Return the time that the workers use, or else the server's; and the server's clock (Unix s).

        Raises:
            UnavailableError: it cannot be reached.
        """
        key = self._redis.keys.shared_time
        told, left_ms, clock = await self._redis.calls([("GET", key), ("PTTL", key), ("TIME",)])
        redis_s = _unix_s(clock)
        age_s = (_SHARED_MS - left_ms) / 1000
        if (
            told is None or not 0 <= age_s <= GRACE_S
        ):  # otherwise the server's clock went back since
            return SharedTime(redis_s, from_redis=True), redis_s
        shared = msgspec.json.decode(told, type=SharedTime)
        held_for_s = max(0.0, shared.held_for_s - age_s)
        return SharedTime(shared.seconds + age_s, held_for_s), redis_s

    async def clock(self) -> float:
        """Return the server's clock (Unix s).

        Raises:
            UnavailableError: it cannot be reached.
        """
        return _unix_s(await self._redis.call("TIME"))

    async def unsafe(self) -> list[Cause]:
        """Return the settings with which it may lose what got a receipt, and notes of what is hidden.

        Raises:
            UnavailableError: it cannot be reached.
        """
        try:
            found = [await self._redis.call("CONFIG", "GET", name) for name in _WANTED]
        except UnavailableError as error:
            if not _is_refusal(str(error)):
                raise
            return await self._unsafe_by_info()
        present = {
            name: answer[1].decode() if answer else ""
            for name, answer in zip(_WANTED, found, strict=True)
        }
        return [
            *(
                _unsafe(name, present[name])
                for name in _WANTED
                if present[name] not in ("", _WANTED[name])
            ),
            *_unchecked([name for name in _WANTED if not present[name]]),
        ]

    async def _unsafe_by_info(self) -> list[Cause]:
        """Managed servers refuse CONFIG; INFO shows all but appendfsync."""
        try:
            info = (await self._redis.call("INFO", "everything")).decode()
        except UnavailableError as error:
            if not _is_refusal(str(error)):
                raise
            return _unchecked([*_WANTED])
        told = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        appendonly = {"1": "yes", "0": "no"}.get(told.get("aof_enabled", ""))
        present = {"appendonly": appendonly, "maxmemory-policy": told.get("maxmemory_policy")}
        return [
            *(
                _unsafe(name, value)
                for name, value in present.items()
                if value is not None and value != _WANTED[name]
            ),
            *_unchecked(
                ["appendfsync", *(name for name, value in present.items() if value is None)]
            ),
        ]

    async def disk(self) -> list[Cause]:
        """Return the causes that keep it from writing to its disk now.

        Raises:
            UnavailableError: it cannot be reached.
        """
        try:
            info = (await self._redis.call("INFO", "persistence")).decode()
        except UnavailableError as error:
            if not _is_refusal(str(error)):
                raise
            return []
        if "aof_last_write_status:err" not in info.splitlines():
            return []
        return [redis_cause("MISCONF: aof_last_write_status:err", "of Redis")]


def _unix_s(clock: Sequence[bytes]) -> float:
    seconds, microseconds = clock
    return int(seconds) + int(microseconds) / 1e6


def _unsafe(name: str, present: str) -> Cause:
    return Cause(
        code=_UNSAFE,
        what=f"Redis has {name} {present}: {_LOSES[name]}",
        mend=f"set `{name} {_WANTED[name]}` in redis.conf (now: CONFIG SET {name} {_WANTED[name]})",
    )


def _unchecked(names: list[str]) -> list[Cause]:
    if not names:
        return []
    return [
        Cause(
            code="redis_unchecked",
            what=f"this Redis lets nobody see {', '.join(names)} (CONFIG GET is refused): "
            "whether it keeps what got a receipt could not be checked",
            mend="make sure that it has " + ", ".join(f"{name} {_WANTED[name]}" for name in names),
            severity=Severity.NOTE,
        )
    ]


def _is_refusal(problem: str) -> bool:
    """Whether the server answered, and only refuses this command."""
    return "NOPERM" in problem or "unknown command" in problem or "not allowed" in problem
