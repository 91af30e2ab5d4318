"""Incidents and the people around them: what a decision reads, and what it commits."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from broker.core import incident_history
from broker.core.changes import Change, Event, IncidentChanged
from broker.core.escalation import accept_by, acknowledge_by, awaits_police, silence
from broker.core.incidents import Incident
from broker.core.membership import Member
from broker.core.placed_report import PlacedReport
from broker.store import alert_states, place_index
from broker.store.deadline_queue import DeadlineKind, schedule, unschedule
from broker.store.history_notes import log
from broker.store.kernel.isolation import readable
from broker.store.kernel.redis_connection import RedisConnection
from broker.store.kernel.streams import emit
from broker.store.kernel.timestamps import milliseconds
from broker.store.kernel.transaction import Transaction
from broker.store.outbox import post
from broker.store.outbox_messages import OutboxMessage
from broker.store.receipt_records import (
    KnownReceipt,
    ReceiptRecord,
    add_receipt,
    received_in,
    routed_in,
)
from broker.store.stored_incident import (
    NOTHING_NEAR,
    Neighbourhood,
    People,
    StoredIncident,
    StoredReport,
    category_in,
    decode_group_event,
    decode_report,
    decode_row,
    filed_in,
    reading,
)
from schemas.messages import GroupEvent
from schemas.taxonomy import Timers

_PLACES = 10_000  # that a worker remembers
_PAGE = 500
_ROUNDING_M = 0.01  # the script's distances differ from the core's by rounding; the core decides

_ENCODE = msgspec.json.Encoder().encode


class ReportCommit(NamedTuple):
    """What is committed with a report.

    `incident` is the one that it opened or joined, after that; `member` is its reporter, if the
    report adds a member; `event` and `posted` tell of it.
    """

    placed: PlacedReport
    receipt: ReceiptRecord
    incident: Incident
    member: Member | None
    event: Event
    posted: OutboxMessage | None


class IncidentStore:
    """The incidents of one partition."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._crowded: dict[str, None] = {}  # places where incidents were found lately

    # -- reading ----------------------------------------------------------------------------------

    async def neighbourhood(self, placed: PlacedReport) -> Neighbourhood:
        """Return what the decision on a report depends on, in one round trip.

        Candidates beyond the merging distance of its category are left out.
        """
        report, merge_m = placed.report, placed.category.merge_m
        near, place = place_index.joinable_by(self._keys, placed), report.location
        receipt, marker, found, elsewhere = await self._redis.script(
            "neighbourhood",
            [self._keys.receipt(report.id), near],
            [self._keys.incident(""), place.lat, place.lon, merge_m + _ROUNDING_M],
        )
        if found or elsewhere:
            self._crowded[near] = None
            if len(self._crowded) > _PLACES:
                del self._crowded[next(iter(self._crowded))]
        else:
            self._crowded.pop(near, None)
        return Neighbourhood(
            received=received_in(receipt, self._keys),
            marker=marker.decode(),
            candidates=[*readable(found, decode_row, what="an incident near a report")],
            elsewhere=[UUID(name.decode()) for name in elsewhere],
            routed=routed_in(receipt),
        )

    def expected(self, placed: PlacedReport) -> Neighbourhood | None:
        """Return what a decision may assume without a read; None where incidents were found lately.

        The commit checks the assumption. If it holds, a report takes one round trip, not two.
        """
        return (
            None if place_index.joinable_by(self._keys, placed) in self._crowded else NOTHING_NEAR
        )

    async def received(self, message: UUID) -> KnownReceipt | None:
        """Return the receipt of a device's message, if it was committed before."""
        received, _ = await self.received_or_routed(message)
        return received

    async def received_or_routed(self, message: UUID) -> tuple[KnownReceipt | None, int | None]:
        """Return the same, and the region to which it was routed, if it was."""
        row = await self._redis.call("HGETALL", self._keys.receipt(message))
        return received_in(row, self._keys), routed_in(row)

    async def get(
        self, identifier: UUID, *, conversation: UUID | None = None
    ) -> StoredIncident | None:
        """Return an incident with its people, or None when there is none.

        If it has several conversations, with the people of one of them.
        """
        conversation = conversation or identifier
        results = await reading(self._redis, identifier, conversation).run()
        assert results is not None  # there are no guards
        return filed_in(conversation, results)

    async def get_for(
        self, message: UUID, identifier: UUID, *, conversation: UUID | None = None
    ) -> tuple[KnownReceipt | None, StoredIncident | None]:
        """Return the receipt of `message`, if it was committed before, and its incident.

        Both in one read: otherwise a message that comes twice at once might meet its own effect and
        be rejected.
        """
        conversation = conversation or identifier
        transaction = reading(self._redis, identifier, conversation)
        transaction.call("HGETALL", self._keys.receipt(message))
        results = await transaction.run()
        assert results is not None  # there are no guards
        *filed, receipt = results
        return received_in(receipt, self._keys), filed_in(conversation, filed)

    async def report(self, incident: UUID, report: UUID) -> StoredReport | None:
        """Return a report of `incident`, or None."""
        blob = await self._redis.call("HGET", self._keys.reports(incident), str(report))
        return decode_report(blob) if blob else None

    async def reports(self, incident: UUID) -> list[StoredReport]:
        """Return every report of `incident`."""
        rows = await self._redis.call("HVALS", self._keys.reports(incident))
        return [decode_report(row) for row in rows]

    async def group_event(self, conversation: UUID, sequence: int) -> GroupEvent:
        """Return a group event of a conversation."""
        place = sequence - 1
        [row] = await self._redis.call("LRANGE", self._keys.group_log(conversation), place, place)
        return decode_group_event(row)

    async def version(self, incident: UUID) -> int | None:
        """Return the version of an incident, or None when there is none."""
        version = await self._redis.call("HGET", self._keys.incident(incident), "v")
        return int(version) if version else None

    async def is_open(self, incident: UUID) -> bool:
        """Whether an incident exists and is open."""
        return (
            await self._redis.call("ZSCORE", self._keys.open_incidents, str(incident)) is not None
        )

    async def open_by_category(self) -> Counter[str]:
        """Return how many open incidents there are of each category."""
        count: Counter[str] = Counter()
        names = await self._redis.call("ZRANGE", self._keys.open_incidents, 0, -1)
        for first in range(0, len(names), _PAGE):
            rows = await self._redis.calls(
                ("HGET", self._keys.incident(name.decode()), "incident")
                for name in names[first : first + _PAGE]
            )
            count.update(readable(filter(None, rows), category_in, what="an open incident"))
        return count

    async def with_state(self, several: Sequence[UUID]) -> list[UUID]:
        """Return those of `several` whose state was ever published."""
        stated = await self._redis.calls(
            ("HEXISTS", self._keys.incident(one), "stated") for one in several
        )
        return [one for one, is_stated in zip(several, stated, strict=True) if is_stated]

    # -- committing -------------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        """Return a transaction in this partition, to be run by one of the following."""
        return Transaction(self._redis)

    async def commit_report(
        self, made: ReportCommit, seen: Neighbourhood, *, timers: Timers, now: datetime
    ) -> int | None:
        """Commit a report that opened or joined an incident, at once and only if `seen` holds.

        NOTHING_NEAR holds if no open incident is within the merging distance of the incident.

        Returns:
            The sequence number of the commit, or None when the neighbourhood has changed.
        """
        transaction, incident = self.transaction(), made.incident
        _require_unchanged(transaction, made, seen)
        # Receipts of other reports must not show that one without a group was counted.
        counter = self._keys.sequence if incident.has_group else self._keys.sequence_apart
        sequence = transaction.call("INCR", counter)
        add_receipt(transaction, made.receipt, sequence=sequence if incident.has_group else None)
        _file(transaction, incident, now)
        _file_in_place(transaction, made, timers)
        _file_report(transaction, made, timers, now)
        emit(transaction, made.event)
        if made.posted:
            post(transaction, made.posted)
        results = await transaction.run()
        return None if results is None else self._keys.number(results[0])

    async def change(
        self,
        before: Incident,
        after: Incident,
        *,
        active_at: datetime,
        timers: Timers,
        events: Iterable[Event] = (),
        posted: Iterable[OutboxMessage] = (),
        transaction: Transaction | None = None,
    ) -> bool:
        """Replace `before` by `after`, whose version is the next; False when it has changed since.

        `active_at` is the time of the last activity. `transaction` may have guards and calls of its
        own.
        """
        transaction = transaction or self.transaction()
        transaction.require_field(self._keys.incident(before.id), "v", before.version)
        _file(transaction, after, active_at)
        if after.closed_at is not None and before.closed_at is None:
            _file_closed(transaction, before, after.closed_at, timers)
            alert_states.end(transaction, before.id)
        elif after.radius_m != before.radius_m:
            place_index.add_reached(transaction, after)
        for event in events:
            if isinstance(event, IncidentChanged) and (
                note := incident_history.changed(before, after, event.at)
            ):
                log(transaction, before.id, note)
            emit(transaction, event)
        for message in posted:
            post(transaction, message)
        return await transaction.run() is not None

    async def touch(self, before: Incident, after: Incident, transaction: Transaction) -> bool:
        """Run `transaction` as the change from `before` to `after`, which differ in version alone.

        Unlike `change`, this is not activity that keeps the incident open.
        """
        transaction.require_field(self._keys.incident(before.id), "v", before.version)
        key = self._keys.incident(before.id)
        transaction.call("HSET", key, "v", after.version)
        return await transaction.run() is not None

    async def state_published(self, incident: UUID, version: int, *, before: int) -> bool:
        """Record that the state of `version` was published; False if another was since `before`."""
        key = self._keys.incident(incident)
        if version == before:
            return bool(await self._redis.call("HGET", key, "stated") == b"%d" % before)
        transaction = Transaction(self._redis)
        transaction.require_present(key)
        transaction.require_field(key, "stated", before or "")
        transaction.call("HSET", key, "stated", version)
        return await transaction.run() is not None

    async def erase(self, incident: Incident, people: People, event: Event) -> None:
        """Delete an incident and everything that belongs to it."""
        transaction = Transaction(self._redis)
        involved = [(user, incident.id) for user in people]
        if not incident.has_group:
            reports = await self.reports(incident.id)
            involved += [(one.user, incident.conversation_of(one.report)) for one in reports]
        for name in {incident.id, *(conversation for _, conversation in involved)}:
            for key in self._keys.all_of(name):
                transaction.call("DEL", key)
        for user, name in involved:
            transaction.call("ZREM", self._keys.involved(user), str(name))
            unschedule(transaction, name, DeadlineKind.CONVERSATION)
        alert_states.forget(transaction, incident.id)
        unschedule(transaction, incident.id, DeadlineKind.ERASE)
        emit(transaction, event)
        await transaction.run()


def add_reply(
    transaction: Transaction,
    conversation: UUID,
    *,
    user: str,
    member: Member | None,
    event: GroupEvent | None,
) -> None:
    """Add to `transaction` the changes of a reply or message: a member, and the group's log."""
    if member is not None:
        transaction.call("HSET", transaction.keys.people(conversation), user, _ENCODE(member))
    if event is not None:
        transaction.call("RPUSH", transaction.keys.group_log(conversation), _ENCODE(event))
        transaction.call(
            "HSET", transaction.keys.incident(conversation), "told", milliseconds(event.at)
        )


def _require_unchanged(transaction: Transaction, made: ReportCommit, seen: Neighbourhood) -> None:
    """Guard `transaction` by what the decision on a report depends on."""
    keys, incident = transaction.keys, made.incident
    near = place_index.joinable_by(keys, made.placed)
    if seen is NOTHING_NEAR:
        place = made.placed.report.location
        transaction.require_clear(near, place.lat, place.lon, incident.merge_m + _ROUNDING_M)
    elif seen.marker is not None:
        transaction.require_field(near, "#", seen.marker)
    for candidate in seen.candidates:
        transaction.require_field(keys.incident(candidate.id), "v", candidate.version)


def _file_in_place(transaction: Transaction, made: ReportCommit, timers: Timers) -> None:
    """Index an incident that was opened, or starts to alert people, and set its deadlines."""
    incident, event = made.incident, made.event
    if incident.reports == 1:
        opened_ms = milliseconds(incident.opened_at)
        transaction.call("ZADD", transaction.keys.open_incidents, opened_ms, str(incident.id))
        place_index.add_joinable(transaction, incident)
        place_index.add_reached(transaction, incident)
        _schedule_all(transaction, incident, timers)
    elif isinstance(event, IncidentChanged) and event.change is Change.RENEWED:
        place_index.add_reached(transaction, incident)
        schedule(transaction, incident.id, {DeadlineKind.WIDEN: accept_by(incident, timers)})


def _file_report(
    transaction: Transaction, made: ReportCommit, timers: Timers, now: datetime
) -> None:
    """Add a report to its incident, with its reporter and the reason."""
    keys, report, incident = transaction.keys, made.placed.report, made.incident
    user, name, conversation = made.receipt.user, str(incident.id), incident.conversation_of(report)
    if conversation != incident.id:
        transaction.call("HSET", keys.incident(conversation), "of", name, "report", str(report.id))
    if not incident.has_group:
        due = {DeadlineKind.CONVERSATION: now + silence(incident, timers)}
        schedule(transaction, conversation, due)
    if made.member is not None:
        transaction.call("HSET", keys.people(conversation), user, _ENCODE(made.member))
    stored = _ENCODE(StoredReport(user, report))
    transaction.call("HSET", keys.reports(name), str(report.id), stored)
    transaction.call("ZADD", keys.involved(user), milliseconds(now), str(conversation))
    transaction.call("EXPIRE", keys.involved(user), timers.retention_s)
    log(transaction, name, incident_history.reported(incident, report, user, now))


def _file(transaction: Transaction, incident: Incident, active_at: datetime) -> None:
    version, blob = incident.version, _ENCODE(incident)
    fields = ("v", version, "incident", blob, "active", milliseconds(active_at))
    transaction.call("HSET", transaction.keys.incident(incident.id), *fields)


def _file_closed(
    transaction: Transaction, incident: Incident, now: datetime, timers: Timers
) -> None:
    transaction.call("ZREM", transaction.keys.open_incidents, str(incident.id))
    place_index.remove(transaction, incident)
    unschedule(
        transaction, incident.id, DeadlineKind.WIDEN, DeadlineKind.OVERDUE, DeadlineKind.SILENCE
    )
    ends_at = now + timedelta(seconds=timers.retention_s)
    schedule(transaction, incident.id, {DeadlineKind.ERASE: ends_at})


def _schedule_all(transaction: Transaction, incident: Incident, timers: Timers) -> None:
    due = {DeadlineKind.SILENCE: incident.opened_at + silence(incident, timers)}
    if incident.alerts_people:
        due[DeadlineKind.WIDEN] = accept_by(incident, timers)
    if awaits_police(incident):
        due[DeadlineKind.OVERDUE] = acknowledge_by(incident, timers)
    schedule(transaction, incident.id, due)
