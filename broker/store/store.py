"""The store as services use it: for each partition, one object per kind of question."""

import enum
from typing import Self
from uuid import UUID

from broker.core.changes import Routes
from broker.store.alert_states import AlertStore
from broker.store.conversations import Conversations
from broker.store.dead_letters import DeadLetters
from broker.store.deadline_queue import Deadlines
from broker.store.desk_alarms import DeskAlarms
from broker.store.history_notes import HistoryStore
from broker.store.incident_store import IncidentStore
from broker.store.kernel.keys import Keys
from broker.store.kernel.nodes import Nodes
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.redis_server import Server
from broker.store.kernel.streams import Events
from broker.store.kernel.transaction import Transaction
from broker.store.migrations import Schema
from broker.store.mqtt_outages import MqttOutages
from broker.store.outbox import Outbox
from broker.store.partition_locks import PartitionLocks
from broker.store.positions import PositionStore
from broker.store.questions import Questions
from broker.store.short_forms import ShortFormStore
from broker.store.sync_rows import SyncStore
from broker.store.worker_sessions import WorkerStore
from broker.store.zone_covers import ZoneStore

_SCAN_COUNT = 1_000


class Opening(enum.Enum):
    """Whether an empty Redis becomes a store, or is only read."""

    USE = "use"
    READ = "read"


class Store:
    """One partition. `async with` connects, where it is the only one (see `open_partitions`).

    `routes` say which services read which events: services need them to write any.

    Raises:
        UnavailableError: from every method, when Redis cannot serve.
    """

    def __init__(
        self,
        url: str,
        keys: Keys | None = None,
        nodes: Nodes | None = None,
        *,
        routes: Routes | None = None,
    ) -> None:
        self._redis = redis = RedisConnection(url, keys, nodes, routes)
        self.incidents = IncidentStore(redis)
        self.alerts = AlertStore(redis)
        self.conversations = Conversations(redis, self.incidents)
        self.questions = Questions(redis)
        self.locks = PartitionLocks(redis)
        self.missed = SyncStore(redis)
        self.history = HistoryStore(redis)
        self.dead_letters = DeadLetters(redis)
        self.desks = DeskAlarms(redis)
        self.presence = PositionStore(redis)
        self.events = Events(redis)
        self.outbox = Outbox(redis)
        self.mqtt_outages = MqttOutages(redis)
        self.deadlines = Deadlines(redis)
        self.forms = ShortFormStore(redis)
        self.zones = ZoneStore(redis)
        self.workers = WorkerStore(redis)
        self.server = Server(redis)
        self.schema = Schema(redis)
        self.keys = redis.keys

    def share(self, first: "Store") -> None:
        """Use the first partition's objects for what exists only there."""
        self.zones, self.dead_letters, self.forms = first.zones, first.dead_letters, first.forms
        self.desks = first.desks

    async def __aenter__(self) -> Self:
        await self._redis.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._redis.__aexit__(*exc)

    def transaction(self) -> Transaction:
        """Return a transaction in this partition."""
        return Transaction(self._redis)

    async def ping(self) -> None:
        """Raise UnavailableError unless Redis answers."""
        await self._redis.call("PING")

    async def is_used(self) -> bool:
        """Whether a report was ever committed here."""
        counters = (self.keys.sequence, self.keys.sequence_apart)
        return bool(await self._redis.call("EXISTS", *counters))

    async def partition_count(self) -> int | None:
        """Return the number of partitions of the stored data; None if there is no store yet."""
        count = await self._redis.call("GET", self.keys.partitions)
        if count is None and await self.is_used():
            return 1  # stored before there were partitions
        return count and int(count)

    async def schema_version(self) -> int | None:
        """Return the schema version of the stored data; None if there is no store yet.

        Raises:
            ConfigError: a newer release has stored it.
        """
        return await self.schema.version(is_used=await self.partition_count() is not None)

    async def claim(self) -> int:
        """Return the same; if there is no store yet, record the present number of partitions."""
        count = await self.partition_count() or self.keys.count
        await self._redis.call("SET", self.keys.partitions, count, "NX")
        return int(await self._redis.call("GET", self.keys.partitions))

    async def incidents_beginning(self, digits: str) -> list[UUID]:
        """Return this partition's incidents whose ids begin with the prefix; scans every key."""
        found, cursor = [], b"0"
        wanted = self.keys.incident(f"{digits}*")
        while True:
            cursor, keys = await self._redis.call(
                "SCAN", cursor, "MATCH", wanted, "COUNT", _SCAN_COUNT
            )
            found += [UUID(key.decode().rpartition(":")[2]) for key in keys]
            if int(cursor) == 0:
                return found
