"""Conversations: an incident as its participants know it, and what was said about it.

An incident with a group has one, under its own id. In an incident for the police alone (or the
city) each report has one of its own, between its reporter and the desk, under an id that follows
from the report: so no reporter learns whether there are others. It is stored like an incident, in
the incident's partition; its id names the region of the report's place, as any incident's id does.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from broker.core.incidents import Incident
from broker.store.deadline_queue import DeadlineKind, schedule
from broker.store.incident_store import IncidentStore
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction
from broker.store.receipt_records import KnownReceipt
from broker.store.stored_incident import People, StoredIncident, decode_group_event, decode_people
from schemas.messages import GroupEvent


class Conversation(NamedTuple):
    """The people of a conversation, and what they were told; `report` is set if it belongs to one.

    If it `is_silent`, its reporter was told that the incident has closed.
    """

    id: UUID
    report: UUID | None
    people: People
    events: Sequence[GroupEvent]
    is_silent: bool = False


class Conversations:
    """The conversations about the incidents of one partition."""

    def __init__(self, redis: RedisConnection, incidents: IncidentStore) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._incidents = incidents

    async def get(self, identifier: UUID) -> StoredIncident | None:
        """Return the incident that participants know as `identifier`, with the people there."""
        filed = await self._incidents.get(identifier)
        if filed is None and (known := await self._resolved(identifier)):
            incident, report = known
            filed = await self._incidents.get(incident, conversation=identifier)
            return filed and filed._replace(report=report)
        return filed

    async def get_for(
        self, message: UUID, identifier: UUID
    ) -> tuple[KnownReceipt | None, StoredIncident | None]:
        """Return the same, and the receipt of `message`, as `IncidentStore.get_for`."""
        received, filed = await self._incidents.get_for(message, identifier)
        if filed is None and (known := await self._resolved(identifier)):
            incident, report = known
            received, filed = await self._incidents.get_for(
                message, incident, conversation=identifier
            )
            return received, filed and filed._replace(report=report)
        return received, filed

    async def _resolved(self, identifier: UUID) -> tuple[UUID, UUID] | None:
        """Return the incident and the report of a conversation; None if it is none."""
        row = await self._redis.call("HMGET", self._keys.incident(identifier), "of", "report")
        return (UUID(row[0].decode()), UUID(row[1].decode())) if row[0] else None

    async def own(self, identifier: UUID, user: str) -> UUID | None:
        """Return the conversation that `user` got in place of a group of all reporters.

        Schema version 3 ended such groups (`broker/store/split_conversations.py`).
        """
        field = f"conversation:{user}"
        own = await self._redis.call("HGET", self._keys.incident(identifier), field)
        return UUID(own.decode()) if own else None

    async def is_here(self, identifier: UUID) -> bool:
        """Whether a conversation is about an incident of this partition."""
        return bool(await self._redis.call("EXISTS", self._keys.incident(identifier)))

    async def of(self, incident: Incident) -> list[Conversation]:
        """Return every conversation about `incident`."""
        known: list[tuple[UUID, UUID | None]] = [(incident.id, None)]
        if not incident.has_group:
            reports = [one.report for one in await self._incidents.reports(incident.id)]
            known = [(incident.conversation_of(report), report.id) for report in reports]
        transaction = Transaction(self._redis)
        for identifier, _ in known:
            transaction.call("HGETALL", self._keys.people(identifier))
            transaction.call("LRANGE", self._keys.group_log(identifier), 0, -1)
            transaction.call("HGET", self._keys.incident(identifier), "silent")
        rows = await transaction.run()
        assert rows is not None  # there are no guards
        return [
            Conversation(
                *one,
                decode_people(people),
                [decode_group_event(row) for row in events],
                is_silent=silent is not None,
            )
            for one, people, events, silent in zip(
                known, rows[::3], rows[1::3], rows[2::3], strict=True
            )
        ]


def reporter_spoke(transaction: Transaction, conversation: UUID, silent_at: datetime) -> None:
    """Set when a conversation falls silent, unless it has: for its reporter that is the end."""
    transaction.call(
        "ZADD",
        transaction.keys.deadlines,
        "XX",
        milliseconds(silent_at),
        f"{DeadlineKind.CONVERSATION} {conversation}",
    )


def desk_spoke(transaction: Transaction, conversation: UUID, silent_at: datetime) -> None:
    """Set when a conversation falls silent, even if it had: the desk speaks with its reporter."""
    transaction.call("HDEL", transaction.keys.incident(conversation), "silent")
    schedule(transaction, conversation, {DeadlineKind.CONVERSATION: silent_at})


def fell_silent(transaction: Transaction, conversation: UUID, at: datetime) -> None:
    """Record that a conversation has been silent too long."""
    transaction.call("HSET", transaction.keys.incident(conversation), "silent", milliseconds(at))
