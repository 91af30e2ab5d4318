"""The store as services hold it: one connection, and one part for each kind of question."""

from typing import Self

from broker.errors import UnavailableError
from broker.store.alerts import AlertStore
from broker.store.dead_letters import DeadLetters
from broker.store.history import History
from broker.store.incidents import IncidentStore
from broker.store.missed import MissedStore
from broker.store.outages import Outages
from broker.store.outbox import Outbox
from broker.store.presence import PresenceStore
from broker.store.redis import Connection
from broker.store.streams import Events
from broker.store.timers import Deadlines
from broker.store.zones import ZoneStore


class Store:
    """Redis. `async with` connects.

    Raises:
        UnavailableError: from every method, when Redis cannot serve.
    """

    def __init__(self, url: str) -> None:
        self._redis = Connection(url)
        self.incidents = IncidentStore(self._redis)
        self.alerts = AlertStore(self._redis)
        self.missed = MissedStore(self._redis)
        self.history = History(self._redis)
        self.dead_letters = DeadLetters(self._redis)
        self.presence = PresenceStore(self._redis)
        self.events = Events(self._redis)
        self.outbox = Outbox(self._redis)
        self.outages = Outages(self._redis)
        self.deadlines = Deadlines(self._redis)
        self.zones = ZoneStore(self._redis)

    async def __aenter__(self) -> Self:
        await self._redis.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._redis.__aexit__(*exc)

    async def ping(self) -> None:
        """Raise UnavailableError unless Redis answers."""
        await self._redis.call("PING")

    async def check(self) -> list[str]:
        """Return what is wrong with the server's settings for a store that must lose nothing."""
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        warnings = []
        for name, value in wanted.items():
            try:
                answer = await self._redis.call("CONFIG", "GET", name)
            except UnavailableError:
                return ["CONFIG GET is refused: cannot see whether every write is fsynced"]
            present = answer[1].decode() if answer else "(unknown)"
            if present != value:
                warnings.append(f"Redis has {name} {present}; it should be {value}")
        return warnings + await self._cannot_write()

    async def _cannot_write(self) -> list[str]:
        """Return what keeps the server from writing to its disk now."""
        info = (await self._redis.call("INFO", "persistence")).decode()
        return [
            f"Redis could not write ({line}): is its disk full? No receipt is sent meanwhile"
            for line in info.splitlines()
            if line == "aof_last_write_status:err"
        ]
