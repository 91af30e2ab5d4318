"""Groups: who answers an alert joins the group around the incident and hears it until it closes.

Of an incident for the police alone there is no group: each reporter speaks with the desk, and hears
what the desk tells them, under an id of their own (`broker/store/conversations.py`).
"""

# long: what a group hears and says, and how each conversation ends, is one life cycle
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from broker.core import changes, membership
from broker.core.changes import Change, ConversationSilent, IncidentChanged, Informed
from broker.core.escalation import accept_again_by, said_to_city, said_to_police, silence
from broker.core.incident_history import Note, replied
from broker.core.incidents import SILENT, Incident
from broker.core.membership import Author, Group, Member
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime import participant_sync
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
    Transaction,
    add_receipt,
    add_reply,
    confirm,
    desk_spoke,
    log,
    posted,
    reporter_spoke,
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

_POLICE = Author(membership.POLICE, GroupRole.POLICE)
_NABIJ = Author(membership.NABIJ, GroupRole.NABIJ)
_CLOSED = "The incident is closed. If there is something new, report it; if it is urgent, call 112."


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
        group = Group(filed.conversation, {**filed.people, ctx.user: member}, sequence)
        event = membership.event(
            group, answer.id, kind, member.author, at=ctx.now, eta_s=member.eta_s
        )
        return _Change(member, event)

    note = replied(ctx.user, answer, ctx.now)
    return await _take(Subject.REPLY, (answer.id, answer.incident), change, ctx, note=note)


@service.on(topics.MESSAGE)
async def say(message: GroupMessage, ctx: Context) -> Effects:
    """Pass on what a member says: to the group, or where there is none to the desk."""

    def change(filed: StoredIncident) -> _Change:
        speaker = membership.speaker(filed.people, ctx.user)
        group = Group(filed.conversation, filed.people, filed.group_events + 1)
        event = membership.event(
            group, message.id, GroupEventKind.SAID, speaker.author, at=ctx.now, text=message.text
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
    async with ctx.exclusively(
        participant_sync.AT_ONCE + known_as.int % (len(ctx.locks) - participant_sync.AT_ONCE)
    ):

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
    if filed is None or not _takes_part(filed, ctx) or _is_forgotten(filed, ctx):
        raise Rejected(
            Code.UNKNOWN_INCIDENT, "$.incident", f"There is no incident {seen.known_as}."
        )
    if filed.incident.status is Status.CLOSED or filed.silent_at is not None:
        if filed.incident.has_group and ctx.user in filed.people:
            await ctx.store.alerts.confirm(filed.incident.id, ctx.user, ctx.now)
        raise Rejected(Code.INCIDENT_CLOSED, "$.incident", _CLOSED)
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
    else:
        silent_at = ctx.now + silence(incident, ctx.policy.timers)
        reporter_spoke(transaction, filed.conversation, silent_at)
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


def _is_forgotten(filed: StoredIncident, ctx: Context) -> bool:
    """Whether a silent conversation is as old as an incident of its own would be when it is erased."""
    retention = timedelta(seconds=ctx.policy.timers.retention_s)
    return filed.silent_at is not None and filed.silent_at + retention < ctx.now


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
        messages += participant_sync.group_messages(
            event, [ctx.user], people, ctx
        )  # who left hears that it worked
    to_desk = [Message(one.topic, one.payload) for one in changed.posted]
    return Effects([*to_desk, mine, *messages])


def _to_members(event: GroupEvent, people: People, ctx: Context) -> list[Message]:
    return participant_sync.group_messages(
        event, membership.hearers(people, event.sequence), people, ctx
    )


@service.on(changes.INFORMED)
async def inform(informed: Informed, ctx: Context) -> Effects:
    """Pass on what the police say: to the group, or to each reporter, or the one of a report."""

    def draw_up(to: Conversation) -> GroupEvent:
        return membership.event(
            _group_of(to),
            informed.command,
            GroupEventKind.SAID,
            _POLICE,
            at=ctx.now,  # as told: a sync asks from a moment on
            text=informed.text,
        )

    async def tell(filed: StoredIncident | None) -> Effects | None:
        if filed is None:
            return NOTHING
        everyone = await ctx.store.conversations.of(filed.incident)
        those = [one for one in everyone if informed.report in (None, one.report)]
        told = await _tell(those, draw_up, filed.incident, ctx, is_word=True)
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
        everyone = await ctx.store.conversations.of(filed.incident)
        those = [one for one in everyone if not one.is_silent]  # they know already
        return await _tell_end(those, partial(_closing, filed.incident, ctx), filed.incident, ctx)

    return await decide_and_commit(partial(ctx.store.incidents.get, change.incident), tell)


@service.on(changes.CONVERSATION_SILENT)
async def end(silent: ConversationSilent, ctx: Context) -> Effects:
    """Tell a reporter that their conversation with the desk has ended."""

    async def tell(filed: StoredIncident | None) -> Effects | None:
        if filed is None:
            return NOTHING
        everyone = await ctx.store.conversations.of(filed.incident)
        those = [one for one in everyone if one.id == silent.conversation]
        return await _tell_end(those, partial(_falling_silent, silent, ctx), filed.incident, ctx)

    return await decide_and_commit(partial(ctx.store.incidents.get, silent.incident), tell)


def _falling_silent(silent: ConversationSilent, ctx: Context, to: Conversation) -> GroupEvent:
    return membership.event(
        _group_of(to),
        f"silent {silent.at.isoformat()}",  # the desk may speak again, and it be silent again
        GroupEventKind.CLOSED,
        _NABIJ,
        at=ctx.now,
        text=SILENT,
    )


def _closing(incident: Incident, ctx: Context, to: Conversation) -> GroupEvent:
    is_silent = incident.outcome == SILENT and not incident.has_group  # as `_falling_silent`
    by_police = incident.acknowledged_by is not None and not is_silent
    return membership.event(
        _group_of(to),
        "closed",
        GroupEventKind.CLOSED,
        _POLICE if by_police else _NABIJ,
        at=ctx.now,
        text=incident.outcome,
    )


def _group_of(to: Conversation) -> Group:
    return Group(to.id, to.people, len(to.events) + 1)


async def _tell_end(
    those: Sequence[Conversation],
    draw_up: Callable[[Conversation], GroupEvent],
    incident: Incident,
    ctx: Context,
) -> Effects | None:
    told = await _tell(those, draw_up, incident, ctx)
    if told is None:
        return None
    to_each = (
        participant_sync.group_messages(event, sorted(to.people), to.people, ctx)
        for to, event in told
    )
    return Effects([*chain.from_iterable(to_each)])


async def _tell(
    those: Sequence[Conversation],
    draw_up: Callable[[Conversation], GroupEvent],
    incident: Incident,
    ctx: Context,
    *,
    is_word: bool = False,
) -> list[tuple[Conversation, GroupEvent]] | None:
    """Add an event to each of `those`, once for all tries; None: all have changed since.

    A word of the desk keeps a reporter's conversation open, or opens it again.
    """
    silent_at = ctx.now + silence(incident, ctx.policy.timers)
    opens = is_word and not incident.has_group and incident.status is not Status.CLOSED
    transaction, told, is_new = ctx.store.transaction(), [], False
    for one in those:
        event = draw_up(one)
        known = next((known for known in one.events if known.id == event.id), None)
        if known is None:
            is_new = True
            add_reply(transaction, one.id, user="", member=None, event=event)
            if opens:
                desk_spoke(transaction, one.id, silent_at)
        told.append((one, known or event))
    if is_new and not await ctx.store.incidents.touch(incident, _next(incident), transaction):
        return None
    return told


@service.on(topics.SYNC)
async def sync(request: Sync, ctx: Context) -> Effects:
    """Repeat the alerts, group events and questions that a participant may have missed."""
    return await participant_sync.take(request, ctx)
