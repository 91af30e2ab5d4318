"""The version of the stored layout, and how data of an older release is migrated to today's.

Version 1 is what was stored before versions were recorded. A migration may be killed at any point
and is then run again from its start: it changes what is of the older layout, and nothing else.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn

import msgspec
import structlog

from broker.errors import ConfigError, UnavailableError
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.transaction import Transaction
from broker.store.outbox_messages import OutboxMessage
from broker.store.split_conversations import split_conversations
from broker.store.worker_sessions import WorkerStore

_log = structlog.get_logger()

_LOCK_MS = 10_000  # renewed by a task; how long a killed migrator holds up the next
_POLL_S = 0.1
_RENEWED_S = 1.0
_WORKERS_STOP_S = 15.0  # longer than a worker that was killed counts as alive
_BATCH = 200
_SCAN_COUNT = 1_000

Migration = Callable[
    [RedisConnection], AsyncIterator[None]
]  # of one partition; yields after each batch


class _PostedV1(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the outbox before desks confirmed what they have."""

    id: str
    topic: str
    payload: bytes
    due_ms: int
    made_ms: int | None = None
    attended: bool = False


async def _readers_confirm(redis: RedisConnection) -> AsyncIterator[None]:
    """1 to 2: a message stays in the outbox until its reader confirms it; a PUBACK proves nothing.

    Messages with only a PUBACK are due again. Readers drop repeats by id.
    """
    keys, cursor = redis.keys, b"0"
    while True:
        cursor, found = await redis.call("HSCAN", keys.outbox_messages, cursor, "COUNT", _BATCH)
        transaction = Transaction(redis)
        for name, body in zip(found[::2], found[1::2], strict=True):
            _convert_posted(transaction, name.decode(), body)
        if await transaction.run() is None:
            raise UnavailableError("Redis: the outbox changed while it was migrated")
        yield
        if int(cursor) == 0:
            break
    await redis.call("DEL", f"{keys.prefix}outbox-sent", f"{keys.prefix}outbox-again")


def _convert_posted(transaction: Transaction, name: str, body: bytes) -> None:
    keys, now_ms = transaction.keys, int(time.time() * 1000)
    try:
        old = msgspec.msgpack.decode(body, type=_PostedV1)
    except msgspec.MsgspecError as error:  # it stays, and is logged when the outbox is read
        _log.error("a message in the outbox cannot be migrated", why=str(error), size=len(body))
        return
    transaction.require_field(keys.outbox_messages, name, body)
    if old.made_ms is None:
        new = OutboxMessage(
            id=old.id, topic=old.topic, payload=old.payload, made_ms=old.due_ms, due_ms=old.due_ms
        )
        transaction.call("HSET", keys.outbox_messages, name, msgspec.msgpack.encode(new))
    transaction.call("ZADD", keys.outbox, "NX", now_ms, name)


MIGRATIONS: tuple[Migration, ...] = (_readers_confirm, split_conversations)
SCHEMA_VERSION = 1 + len(MIGRATIONS)


class Schema:
    """The version of what is stored in one partition; the first partition's counts for all."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def version(self, *, is_used: bool) -> int | None:
        """Return the version of what is stored; None if nothing is.

        Raises:
            ConfigError: a newer release has stored it.
        """
        recorded = await self._redis.call("GET", self._keys.schema_version)
        if recorded is None:
            return 1 if is_used else None
        version = int(recorded)
        if version > SCHEMA_VERSION:
            problem = (
                f"NABIJ_REDIS_URL: its data is of schema version {version}, this release of Nabij "
                f"knows {SCHEMA_VERSION} at most: install the release that wrote it or a newer one, or "
                "restore the backup from before the upgrade (docs/operations.md, Upgrade)"
            )
            raise ConfigError([problem])
        return version

    async def prepare(self, partitions: "Sequence[Schema]", *, is_used: bool) -> None:
        """Record the version if nothing is stored yet; migrate what is older, one process at a time.

        Raises:
            ConfigError: a newer release has stored it, or workers of an older one still run.
        """
        if not is_used:
            await self._redis.call("SET", self._keys.schema_version, SCHEMA_VERSION, "NX")
        token = secrets.token_hex(16)
        while True:
            version = await self.version(is_used=is_used)
            if version == SCHEMA_VERSION and not await self._redis.call(
                "EXISTS", self._keys.migrating
            ):
                return
            if await self._redis.call("SET", self._keys.migrating, token, "NX", "PX", _LOCK_MS):
                await self._migrate(partitions, token)
            else:
                await asyncio.sleep(_POLL_S)

    async def _migrate(self, partitions: "Sequence[Schema]", token: str) -> None:
        """Migrate while the lock is held; a task renews it, so a batch may take any time."""
        work = asyncio.create_task(self._migrate_all(partitions, token), name="migrate")
        renewing = asyncio.create_task(self._renew_on(token), name="renew the migration's lock")
        try:
            await asyncio.wait((work, renewing), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await renewing  # raises why it failed
            await work
        finally:
            for task in (work, renewing):
                task.cancel()
            await asyncio.gather(work, renewing, return_exceptions=True)
            if await self._holds(token):
                await self._redis.call("DEL", self._keys.migrating)

    async def _migrate_all(self, partitions: "Sequence[Schema]", token: str) -> None:
        version = await self.version(is_used=True) or SCHEMA_VERSION
        if version < SCHEMA_VERSION:
            await self._workers_stopped()
        for number, migration in enumerate(MIGRATIONS[version - 1 :], version):
            _log.warning("the store is migrated", version=number, to=number + 1)
            for each in partitions:
                async for _ in migration(each._redis):  # noqa: SLF001 - of the same class
                    await self._renew(token)
            await self._renew(token)
            await self._redis.call("SET", self._keys.schema_version, number + 1)

    async def _renew_on(self, token: str) -> NoReturn:
        while True:
            await asyncio.sleep(_RENEWED_S)
            await self._renew(token)

    async def _workers_stopped(self) -> None:
        """Wait until no worker of an older release is alive: it would write the older layout."""
        until_s = time.monotonic() + _WORKERS_STOP_S
        services = await self._services()
        while alive := await self._alive(services):
            if time.monotonic() > until_s:
                problem = (
                    "NABIJ_REDIS_URL: its data must be migrated, and workers of an older release "
                    f"still run ({', '.join(alive)}): stop `nabij up` on every host first"
                )
                raise ConfigError([problem])
            await asyncio.sleep(_POLL_S)

    async def _services(self) -> list[str]:
        """Return the services that have ever had a worker; looks at every key."""
        prefix, found, cursor = self._keys.workers(""), set(), b"0"
        while True:
            cursor, keys = await self._redis.call(
                "SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _SCAN_COUNT
            )
            found |= {key.decode().removeprefix(prefix) for key in keys}
            if int(cursor) == 0:
                return sorted(found)

    async def _alive(self, services: Sequence[str]) -> list[str]:
        workers = WorkerStore(self._redis)
        known = [one for service in services for one in await workers.of(service)]
        return [f"{one.session.service} {one.session.instance}" for one in known if one.is_alive]

    async def _renew(self, token: str) -> None:
        if not await self._holds(token):
            raise UnavailableError("Redis: another process has taken over the migration")
        await self._redis.call("PEXPIRE", self._keys.migrating, _LOCK_MS)

    async def _holds(self, token: str) -> bool:
        return bool(await self._redis.call("GET", self._keys.migrating) == token.encode())
