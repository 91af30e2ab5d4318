"""The workers' MQTT sessions, the holder of each, and its last heartbeat.

A worker's session outlives it and keeps its place in the shared subscriptions: until a living
worker has ended it, it swallows its share. Every change requires that the record is as it was read.
So only one of several claimants gets a session, and of two last workers that leave at once one
stays.
"""

import enum
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from broker.store.kernel.redis_connection import RedisConnection

ALIVE_MS = 5_000  # for status pages; a claim trusts no clock (`broker/runtime/liveness.py`)
_KEPT_MS = 86_400_000  # how long an MQTT broker may bring back an ended session


class WorkerState(enum.StrEnum):
    """The state of a worker's session."""

    STARTING = "starting"  # it may not have subscribed yet
    RUNNING = "running"
    LEAVING = "leaving"  # for good: it unsubscribes, and handles what is queued
    CLAIMED = "claimed"  # another worker is taking it over
    GONE = "gone"  # ended; an MQTT broker that restarts from an old file may bring it back


class WorkerSession(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's session at one MQTT broker; `server` is the broker's number.

    `holder` is the process that is responsible for it, `claimed_by` the instance that takes it over
    or has done so; `ended_ms` is when it ended, by Redis's clock.
    """

    service: str
    instance: str
    server: int
    client_id: str
    filters: tuple[str, ...]
    holder: str
    state: WorkerState = WorkerState.STARTING
    claimed_by: str | None = None
    ended_ms: int = 0

    @property
    def name(self) -> str:
        """Its field in the hash: with another secret it is another session."""
        return f"{self.client_id} {self.server}"


class Registered(NamedTuple):
    """A session as it was read. `record` and `beat` guard that it has not changed."""

    session: WorkerSession
    record: bytes
    beat: bytes
    age_ms: int

    @property
    def is_alive(self) -> bool:
        """Whether its holder has sent a heartbeat lately."""
        return self.session.state is not WorkerState.GONE and self.age_ms < ALIVE_MS

    @property
    def is_dead(self) -> bool:
        """Whether its holder is gone and the session still swallows its share."""
        return self.session.state is not WorkerState.GONE and not self.is_alive


class WorkerStore:
    """The registered workers."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def of(self, service: str) -> list[Registered]:
        """Return the sessions of a service's workers: alive, dead, and lately ended."""
        records, beats, time = await self._redis.calls(
            [
                ("HGETALL", self._keys.workers(service)),
                ("HGETALL", self._keys.worker_beats(service)),
                ("TIME",),
            ]
        )
        beat_of: dict[bytes, bytes] = dict(zip(beats[::2], beats[1::2], strict=True))
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        found = []
        for name, record in zip(records[::2], records[1::2], strict=True):
            with suppress(msgspec.MsgspecError):  # of a later version
                session = msgspec.json.decode(record, type=WorkerSession)
                beat = beat_of.get(name, b"0")
                found.append(Registered(session, record, beat, max(0, now_ms - int(beat))))
        return found

    async def register(self, session: WorkerSession) -> None:
        """Become the holder of a session, replacing any other."""
        await self._change(session)

    async def beat(self, session: WorkerSession) -> bool:
        """Write a heartbeat; False if another worker holds the session now."""
        return await self._change(session, was=msgspec.json.encode(session))

    async def claim(self, found: Registered, *, holder: str, by: str) -> WorkerSession | None:
        """Claim a dead worker's session; None if it lives, or another has claimed it."""
        session = found.session
        ended_ms = session.ended_ms
        if session.state is WorkerState.GONE:
            ended_ms = ended_ms or int(found.beat)
        claimed = replace(
            session, state=WorkerState.CLAIMED, holder=holder, claimed_by=by, ended_ms=ended_ms
        )
        done = await self._change(claimed, was=found.record, beat=found.beat)
        return claimed if done else None

    async def leave(self, session: WorkerSession, staying: Registered) -> WorkerSession | None:
        """Record that a worker leaves because another stays; None if none stays."""
        leaving = replace(session, state=WorkerState.LEAVING)
        done = await self._change(leaving, was=msgspec.json.encode(session), staying=staying)
        return leaving if done else None

    async def ended(self, session: WorkerSession) -> bool:
        """Record that a session has ended at the MQTT broker; False if another worker holds it."""
        gone = replace(session, state=WorkerState.GONE, ended_ms=0)
        return await self._change(gone, was=msgspec.json.encode(session))

    async def still_ended(self, session: WorkerSession, found: Registered) -> None:
        """Record that an ended session did not come back; delete it after a day."""
        was = msgspec.json.encode(session)
        if int(found.beat) + found.age_ms - session.ended_ms > _KEPT_MS:
            await self._change(session, was=was, forget=True)
        else:
            await self._change(replace(session, state=WorkerState.GONE), was=was)

    async def _change(
        self,
        session: WorkerSession,
        *,
        was: bytes = b"",
        beat: bytes = b"",
        staying: Registered | None = None,
        forget: bool = False,
    ) -> bool:
        record = b"" if forget else msgspec.json.encode(session)
        other: Sequence[str | bytes] = (
            (staying.session.name, staying.record) if staying else ("", "")
        )
        keys = [self._keys.workers(session.service), self._keys.worker_beats(session.service)]
        words = [session.name, was, beat, record, *other]
        return bool(await self._redis.script("worker", keys, words))
