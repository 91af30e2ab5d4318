"""Groups: who answers an alert joins the group around the incident and hears it until it closes.

Of an incident for the police alone there is no group: each reporter speaks with the desk, and hears
what the desk tells them, under an id of their own (`broker/store/conversations.py`).
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from broker.core import changes, membership
from broker.core.alerts import alerts_of, brief_of
from broker.core.changes import Change, IncidentChanged, Informed
from broker.core.escalation import accept_again_by, said_to_city, said_to_police
from broker.core.incident_history import Note, replied
from broker.core.incidents import Incident
from broker.core.membership import Member
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime.decide import decide_and_commit, refuse_other
from broker.runtime.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import (
    Conversation,
    DeadlineKind,
    KnownReceipt,
    OutboxMessage,
    People,
    ReceiptRecord,
    StoredIncident,
    SyncEvents,
    SyncRow,
    Transaction,
    add_receipt,
    add_reply,
    confirm,
    log,
    posted,
    schedule_no_later,
)
from schemas import topics
from schemas.codec import encode
from schemas.messages import (
    Case,
    Escalation,
    GroupEvent,
    GroupEventKind,
    GroupMessage,
    GroupRole,
    Outcome,
    Receipt,
    Reply,
    Status,
    Subject,
    Sync,
)
from schemas.taxonomy import Desk

service = Service("groups", niceness=2)

_SYNC_AT_MOST = 200  # incidents in one sync
_SYNCS_AT_ONCE = 4

# So much a device's clock may be ahead of ours: what it says to have seen before `since` less this,
# it has seen.
_CLOCKS_DIFFER = timedelta(minutes=5)

_EPOCH = datetime.fromtimestamp(0, UTC)  # before it nothing of ours happened


class _Change(NamedTuple):
    """What a message changes: a member, what the group is told, what the desk is."""

    member: Member | None = None
    event: GroupEvent | None = None
    posted: tuple[OutboxMessage, ...] = ()


Decide = Callable[[StoredIncident], _Change]


@service.on(topics.REPLY)
async def reply(answer: Reply, ctx: Context) -> Effects:
    """Take a participant's answer to an alert; tell the group."""

    def change(filed: StoredIncident) -> _Change:
        sequence = filed.group_events + 1
        member, kind = membership.replied(filed.people, ctx.user, answer, sequence=sequence)
        if kind is None:
            return _Change(member)
        people = {**filed.people, ctx.user: member}
        event = membership.event(
            filed.conversation,
            answer.id,
            kind,
            sequence=sequence,
            name=member.name,
            role=member.role,
            people=people,
            at=ctx.now,
            eta_s=member.eta_s,
        )
        return _Change(member, event)

    note = replied(ctx.user, answer, ctx.now)
    return await _take(Subject.REPLY, (answer.id, answer.incident), change, ctx, note=note)


@service.on(topics.MESSAGE)
async def say(message: GroupMessage, ctx: Context) -> Effects:
    """Pass on what a member says: to the group, or where there is none to the desk."""

    def change(filed: StoredIncident) -> _Change:
        speaker = membership.speaker(filed.people, ctx.user)
        event = membership.event(
            filed.conversation,
            message.id,
            GroupEventKind.SAID,
            sequence=filed.group_events + 1,
            name=speaker.name,
            role=speaker.role,
            people=filed.people,
            at=ctx.now,
            text=message.text,
        )
        return _Change(event=event, posted=_for_desk(message, filed, ctx))

    note = Note("said", ctx.now, "something to the group, or the desk", ctx.user)
    return await _take(Subject.MESSAGE, (message.id, message.incident), change, ctx, note=note)


async def _take(
    subject: Subject, ids: tuple[UUID, UUID], change: Decide, ctx: Context, *, note: Note
) -> Effects:
    """Commit a message about an incident, once: `ids` are the message's and the incident's.

    Whatever it says, it is the device's word that the alert has come.
    """
    message, known_as = ids
    # Of one incident one after another: at once all but one of them would fail, again and again.
    async with ctx.exclusively(_SYNCS_AT_ONCE + known_as.int % (len(ctx.locks) - _SYNCS_AT_ONCE)):

        async def commit(seen: _Seen) -> Effects | None:
            if seen.received is not None:
                return await _repeat(seen)
            receipt = Receipt(
                subject=subject,
                outcome=Outcome.ACCEPTED,
                at=ctx.now,
                id=message,
                incident=seen.known_as,
                notes=ctx.notes,
            )
            filed = await _open_and_theirs(seen)
            return await _commit(receipt, filed, change(filed), seen, note=note)

        return await decide_and_commit(partial(_look, message, known_as, ctx), commit)


class _Seen(NamedTuple):
    """What is known of a message and its incident, by the id and in the partition that have it."""

    received: KnownReceipt | None
    filed: StoredIncident | None
    known_as: UUID
    ctx: Context


async def _look(message: UUID, known_as: UUID, ctx: Context) -> _Seen:
    received, filed = await ctx.store.conversations.get_for(message, known_as)
    if filed is None and (there := await ctx.partitions.holding(ctx.store, known_as)):
        return await _look(message, known_as, replace(ctx, store=there))
    if received is None and (own := await _own(filed, ctx)):
        return await _look(message, own, ctx)
    return _Seen(received, filed, known_as, ctx)


async def _open_and_theirs(seen: _Seen) -> StoredIncident:
    """Return the incident that a message is about.

    Raises:
        Rejected: there is none, it is closed, or a stranger must not learn that there is one.
    """
    filed, ctx = seen.filed, seen.ctx
    if filed is None or not _takes_part(filed, ctx):
        raise Rejected(
            Code.UNKNOWN_INCIDENT, "$.incident", f"There is no incident {seen.known_as}."
        )
    if filed.incident.status is Status.CLOSED:
        if ctx.user in filed.people:
            await ctx.store.alerts.confirm(filed.incident.id, ctx.user, ctx.now)
        raise Rejected(Code.INCIDENT_CLOSED, "$.incident", "The incident is closed.")
    return filed


async def _commit(
    receipt: Receipt, filed: StoredIncident, changed: _Change, seen: _Seen, *, note: Note
) -> Effects | None:
    """Commit a message that was accepted; None when its incident has changed since."""
    ctx, incident, member = seen.ctx, filed.incident, changed.member
    assert receipt.id is not None
    transaction = ctx.store.transaction()
    sequence = changed.event.sequence if changed.event else None
    add_receipt(transaction, ReceiptRecord(receipt.id, ctx.user, ctx.digest, receipt, sequence))
    add_reply(transaction, seen.known_as, user=ctx.user, member=member, event=changed.event)
    people = {**filed.people, ctx.user: member} if member else filed.people
    if incident.has_group:
        confirm(transaction, incident.id, ctx.user, ctx.now)
        _call_again(transaction, filed, people, ctx)
    log(transaction, incident.id, note)
    told = IncidentChanged(
        incident=incident.id, change=Change.REPLIED, at=ctx.now, desk=incident.desk
    )
    is_committed = await ctx.store.incidents.change(
        incident,
        _next(incident),
        active_at=ctx.now,
        timers=ctx.policy.timers,
        events=[told],
        posted=changed.posted,
        transaction=transaction,
    )
    return _effects(receipt, changed, people, ctx) if is_committed else None


def _takes_part(filed: StoredIncident, ctx: Context) -> bool:
    return filed.incident.has_group or ctx.user in filed.people


async def _own(filed: StoredIncident | None, ctx: Context) -> UUID | None:
    """Return the conversation of a reporter who knows it by the id of a group of before."""
    if filed is None or _takes_part(filed, ctx):
        return None
    return await ctx.store.conversations.own(filed.conversation, ctx.user)


def _next(incident: Incident) -> Incident:
    return replace(incident, version=incident.version + 1)


def _for_desk(
    message: GroupMessage, filed: StoredIncident, ctx: Context
) -> tuple[OutboxMessage, ...]:
    """Return what the desk is to read of a message: in a group the members are spoken to."""
    if filed.report is None:
        return ()
    incident = _next(filed.incident)
    said: Escalation | Case
    if incident.desk is Desk.POLICE:
        said = said_to_police(message, incident, filed.report, ctx.now)
        topic = topics.ESCALATION.topic(zone=incident.zone, priority=incident.priority)
    else:
        said = said_to_city(message, incident, filed.report, ctx.now)
        topic = topics.CASE.topic(municipality=incident.municipality, category=incident.category)
    now_ms = int(ctx.clock.seconds() * 1000)  # of the commit
    return (posted(said.id, topic, encode(said), now_ms=now_ms),)


def _call_again(
    transaction: Transaction, filed: StoredIncident, people: People, ctx: Context
) -> None:
    """Set the deadline to accept again, if the last one who had accepted is gone."""
    due = accept_again_by(
        filed.incident,
        accepted=membership.helpers(filed.people),
        left=membership.helpers(people),
        timers=ctx.policy.timers,
        now=ctx.now,
    )
    if due is not None:
        schedule_no_later(transaction, filed.incident.id, DeadlineKind.WIDEN, due)


async def _repeat(seen: _Seen) -> Effects:
    """Answer a repeated message as before, and tell the group again: readers drop it by id."""
    received, filed, ctx = seen.received, seen.filed, seen.ctx
    assert received is not None
    refuse_other(received, ctx, sender=ctx.user)
    event = None
    repeats = filed is not None and _takes_part(filed, ctx)  # else it is another's by now
    if filed is not None and repeats and received.group_sequence is not None:
        event = await ctx.store.incidents.group_event(filed.conversation, received.group_sequence)
    return _effects(received.receipt, _Change(event=event), filed.people if filed else {}, ctx)


def _effects(receipt: Receipt, changed: _Change, people: People, ctx: Context) -> Effects:
    event = changed.event
    messages = _to_members(event, people, ctx) if event else []
    mine = outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)
    if event is not None and event.kind is GroupEventKind.LEFT:
        messages += _to(event, [ctx.user], people, ctx)  # who left hears that it worked
    to_desk = [Message(one.topic, one.payload) for one in changed.posted]
    return Effects([*to_desk, mine, *messages])


def _to_members(event: GroupEvent, people: People, ctx: Context) -> list[Message]:
    return _to(event, membership.hearers(people, event.sequence), people, ctx)


def _to(event: GroupEvent, users: Iterable[str], people: People, ctx: Context) -> list[Message]:
    expiry_s = ctx.policy.timers.silence_s
    return [
        outgoing(
            topics.GROUP,
            replace(event, you=people[user].name or None),
            expiry_s=expiry_s,
            user=user,
        )
        for user in users
    ]


@service.on(changes.INFORMED)
async def inform(informed: Informed, ctx: Context) -> Effects:
    """Pass on what the police say: to the group, or to each reporter, or the one of a report."""

    def draw_up(to: Conversation) -> GroupEvent:
        return membership.event(
            to.id,
            informed.command,
            GroupEventKind.SAID,
            sequence=len(to.events) + 1,
            name=membership.POLICE,
            role=GroupRole.POLICE,
            people=to.people,
            at=ctx.now,  # as told: a sync asks from a moment on
            text=informed.text,
        )

    async def tell(filed: StoredIncident | None) -> Effects | None:
        if filed is None:
            return NOTHING
        everyone = await ctx.store.conversations.of(filed.incident)
        those = [one for one in everyone if informed.report in (None, one.report)]
        told = await _tell(those, draw_up, filed.incident, ctx)
        if told is None:
            return None
        to_each = (_to_members(event, to.people, ctx) for to, event in told)
        return Effects([*chain.from_iterable(to_each)])

    return await decide_and_commit(partial(ctx.store.incidents.get, informed.incident), tell)


@service.on(changes.INCIDENT_CHANGED, changes={Change.CLOSED})
async def close(change: IncidentChanged, ctx: Context) -> Effects:
    """Tell everyone who was alerted, and the reporters, that an incident has ended."""
    if change.change is not Change.CLOSED:
        return NOTHING

    async def tell(filed: StoredIncident | None) -> Effects | None:
        if filed is None:
            return NOTHING
        await ctx.partitions.remove_beyond(filed.incident)
        those = await ctx.store.conversations.of(filed.incident)
        told = await _tell(those, partial(_closing, filed.incident, ctx), filed.incident, ctx)
        if told is None:
            return None
        to_each = (_to(event, sorted(to.people), to.people, ctx) for to, event in told)
        return Effects([*chain.from_iterable(to_each)])

    return await decide_and_commit(partial(ctx.store.incidents.get, change.incident), tell)


def _closing(incident: Incident, ctx: Context, to: Conversation) -> GroupEvent:
    by_police = incident.acknowledged_by is not None
    return membership.event(
        to.id,
        "closed",
        GroupEventKind.CLOSED,
        sequence=len(to.events) + 1,
        name=membership.POLICE if by_police else membership.NABIJ,
        role=GroupRole.POLICE if by_police else GroupRole.NABIJ,
        people=to.people,
        at=ctx.now,
        text=incident.outcome,
    )


async def _tell(
    those: Sequence[Conversation],
    draw_up: Callable[[Conversation], GroupEvent],
    incident: Incident,
    ctx: Context,
) -> list[tuple[Conversation, GroupEvent]] | None:
    """Add an event to each of `those`, once for all tries; None: all have changed since."""
    transaction, told, is_new = ctx.store.transaction(), [], False
    for one in those:
        event = draw_up(one)
        known = next((known for known in one.events if known.id == event.id), None)
        if known is None:
            is_new = True
            add_reply(transaction, one.id, user="", member=None, event=event)
        told.append((one, known or event))
    if is_new and not await ctx.store.incidents.touch(incident, _next(incident), transaction):
        return None
    return told


@service.on(topics.SYNC)
async def sync(request: Sync, ctx: Context) -> Effects:
    """Repeat the alerts, group events and questions that a participant may have missed."""
    if request.since > ctx.now + _CLOCKS_DIFFER:
        raise Rejected(
            Code.TOO_FAR_AHEAD, "$.since", "The time is more than 5 minutes ahead of ours."
        )
    request = replace(request, since=max(request.since, _EPOCH))
    # Few at once: after an outage every device asks, and what else this worker does must go on.
    async with ctx.exclusively(zlib.crc32(ctx.user.encode()) % _SYNCS_AT_ONCE):
        if ctx.is_expired:
            return NOTHING  # the device has stopped waiting, and asks again when it is ready
        glimpses = await ctx.partitions.missed(
            ctx.user,
            request.since,
            _SYNC_AT_MOST,
            told_before=timedelta() if request.alerts else _CLOCKS_DIFFER,
        )
        new = [one for one in glimpses if one.lacks_any(request, ctx.user)]
        read = await ctx.partitions.read(new)
        wants_brief = ctx.user in await ctx.store.forms.short([ctx.user] if new else [])
        asked = await ctx.partitions.questions(ctx.user, request.since)
    messages = [outgoing(topics.QUESTION, question, user=ctx.user) for question in asked]
    for glimpse in new:
        if (missed := read.get(glimpse.incident)) is not None:
            if glimpse.lacks_alert(request, ctx.user):
                messages += _missed_alert(glimpse, missed, ctx, brief=wants_brief)
            messages += _missed_events(glimpse, missed, request, ctx)
    sure = request.since - _CLOCKS_DIFFER
    told = [one for one in glimpses if not one.confirmed and one.has_alert(request, ctx.user, sure)]
    if told:
        await ctx.partitions.confirm(told, ctx.user, ctx.now)
    receipt = Receipt(subject=Subject.SYNC, outcome=Outcome.ACCEPTED, at=ctx.now, notes=ctx.notes)
    done = outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)
    return Effects([*messages, done])


def _missed_alert(
    glimpse: SyncRow, missed: SyncEvents, ctx: Context, *, brief: bool
) -> list[Message]:
    alert, incident = glimpse.alert, missed.incident
    if alert is None or incident is None or incident.status is Status.CLOSED:
        return []
    expires_at = alert.at + timedelta(seconds=ctx.policy.timers.silence_s)
    draw_up = alerts_of(incident, ctx.policy.advice, expires_at=expires_at)
    drawn_up = draw_up(ctx.user, alert.wave, alert.reason)
    messages = [outgoing(topics.ALERT, drawn_up, user=ctx.user)]
    return (
        [*messages, outgoing(topics.BRIEF, brief_of(drawn_up), user=ctx.user)]
        if brief
        else messages
    )


def _missed_events(
    glimpse: SyncRow, missed: SyncEvents, request: Sync, ctx: Context
) -> list[Message]:
    people = {ctx.user: glimpse.member}
    told = missed.told_to(glimpse.member)
    events = [event for event in told if glimpse.lacks(event, request)]
    return [message for event in events for message in _to(event, [ctx.user], people, ctx)]
