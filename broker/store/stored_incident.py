"""A stored incident with its people and reports: the values, and how they are read."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from broker.core.incidents import Incident
from broker.core.membership import Member
from broker.store.kernel.isolation import readable
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.timestamps import moment_of
from broker.store.kernel.transaction import Transaction
from broker.store.receipt_records import KnownReceipt
from schemas.messages import GroupEvent, Report

_INCIDENT = msgspec.json.Decoder(Incident)
decode_member = msgspec.json.Decoder(Member).decode
decode_group_event = msgspec.json.Decoder(GroupEvent).decode

People = Mapping[str, Member]


class Neighbourhood(NamedTuple):
    """What the decision on a report depends on; `marker` changes with the open incidents of its cell.

    At a border there may be more `elsewhere`, in other partitions, and the report may be `routed`
    to the partition of a region: it is committed only there. Without a marker nothing is known of
    the cell.
    """

    received: KnownReceipt | None
    marker: str | None
    candidates: Sequence[Incident]
    elsewhere: Sequence[UUID] = ()
    routed: int | None = None


NOTHING_NEAR = Neighbourhood(None, "", ())  # what most reports find, so that they need no read


class StoredIncident(NamedTuple):
    """An incident as stored, with its people and how many group events there were.

    `stated` is the version that the police's retained state was last published with. `people` and
    `group_events` are those of one conversation about it (`broker/store/conversations.py`), which
    belongs to `report` where each has its own. `silent_at` is when its reporter was told that it
    closed for silence; the incident may still be open.
    """

    incident: Incident
    people: People
    group_events: int
    active_at: datetime
    stated: int
    conversation: UUID
    report: UUID | None = None
    silent_at: datetime | None = None


class StoredReport(msgspec.Struct, frozen=True):
    """A report as stored, with who made it."""

    user: str
    report: Report


class _OfCategory(msgspec.Struct):
    category: str


_OF_CATEGORY = msgspec.json.Decoder(_OfCategory)
decode_report = msgspec.json.Decoder(StoredReport).decode


def reading(redis: RedisConnection, incident: UUID, conversation: UUID) -> Transaction:
    """Return a transaction that reads an incident, with those of a conversation about it."""
    transaction = Transaction(redis)
    transaction.call(
        "HMGET", transaction.keys.incident(incident), "v", "incident", "active", "stated"
    )
    transaction.call("HGETALL", transaction.keys.people(conversation))
    transaction.call("LLEN", transaction.keys.group_log(conversation))
    transaction.call("HGET", transaction.keys.incident(conversation), "silent")
    return transaction


def filed_in(conversation: UUID, results: Sequence[Any]) -> StoredIncident | None:
    """Return what `reading` has read; None if there is no such incident."""
    (version, blob, active, stated), people, events, silent = results
    if version is None or blob is None or active is None:
        return None
    incident = decode_incident(version, blob)
    return StoredIncident(
        incident,
        decode_people(people),
        events,
        moment_of(int(active)),
        int(stated or 0),
        conversation,
        None if incident.has_group else incident.first_report,
        moment_of(silent) if silent else None,
    )


def decode_incident(version: bytes, blob: bytes) -> Incident:
    """Return an incident from the fields of its hash."""
    return msgspec.structs.replace(_INCIDENT.decode(blob), version=int(version))


def category_in(blob: bytes) -> str:
    """Return an incident's category, even if the rest is unreadable."""
    return _OF_CATEGORY.decode(blob).category


def decode_row(row: tuple[bytes, bytes]) -> Incident:
    """Return an incident from its version and the rest."""
    return decode_incident(*row)


def decode_people(row: Sequence[bytes]) -> People:
    """Return the people of a conversation from their hash."""
    return dict(readable(zip(row[::2], row[1::2], strict=True), _person, what="a member"))


def _person(row: tuple[bytes, bytes]) -> tuple[str, Member]:
    return row[0].decode(), decode_member(row[1])
