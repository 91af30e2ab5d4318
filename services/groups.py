"""Groups: who answers an alert joins the group around the incident and hears it until it closes.

Of an incident for the police alone there is no group: each reporter speaks with the desk, and hears
what the desk tells them, under an id of their own (`broker/store/conversations.py`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
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
        member, kind = membership.replied(
            filed.people, ctx.user, answer, sequence=sequence, now_ms=ctx.now_ms
        )
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
            receipt = ctx.accepted(subject, message, seen.known_as)
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
    is_committed = await ctx.store.incidents.change(
        incident,
        incident.next(),
        active_at=ctx.now,
        timers=ctx.policy.timers,
        events=[incident.event(Change.REPLIED, ctx.now)],
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


def _for_desk(
    message: GroupMessage, filed: StoredIncident, ctx: Context
) -> tuple[OutboxMessage, ...]:
    """Return what the desk is to read of a message: in a group the members are spoken to."""
    if filed.report is None:
        return ()
    incident = filed.incident.next()
    said: Escalation | Case
    if incident.desk is Desk.POLICE:
        said = said_to_police(message, incident, filed.report, ctx.now)
        topic = topics.ESCALATION.topic(zone=incident.zone, priority=incident.priority)
    else:
        said = said_to_city(message, incident, filed.report, ctx.now)
        topic = topics.CASE.topic(municipality=incident.municipality, category=incident.category)
    return (posted(said.id, topic, encode(said), now_ms=ctx.commit_ms),)


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

    def draw_up(_: Incident, to: Conversation) -> GroupEvent:
        return membership.event(
            _group_of(to),
            informed.command,
            GroupEventKind.SAID,
            _POLICE,
            at=ctx.now,  # as told: a sync asks from a moment on
            text=informed.text,
        )

    def is_told(to: Conversation) -> bool:
        return informed.report in (None, to.report)

    return await _tell(informed.incident, is_told, draw_up, ctx)


@service.on(changes.INCIDENT_CHANGED, changes={Change.CLOSED})
async def close(change: IncidentChanged, ctx: Context) -> Effects:
    """Tell everyone who was alerted, and the reporters, that an incident has ended."""
    if len(ctx.partitions) > 1 and (filed := await ctx.store.incidents.get(change.incident)):
        await ctx.partitions.remove_beyond(filed.incident)
    # Those of a silent one know already.
    return await _tell(change.incident, lambda to: not to.is_silent, partial(_closing, ctx), ctx)


@service.on(changes.CONVERSATION_SILENT)
async def end(silent: ConversationSilent, ctx: Context) -> Effects:
    """Tell a reporter that their conversation with the desk has ended."""

    def draw_up(_: Incident, to: Conversation) -> GroupEvent:
        # The desk may speak again, and it be silent again.
        return _end(to, f"silent {silent.at.isoformat()}", _NABIJ, at=ctx.now, outcome=SILENT)

    return await _tell(silent.incident, lambda to: to.id == silent.conversation, draw_up, ctx)


def _closing(ctx: Context, incident: Incident, to: Conversation) -> GroupEvent:
    is_silent = incident.outcome == SILENT and not incident.has_group  # as when one falls silent
    by_police = incident.acknowledged_by is not None and not is_silent
    author = _POLICE if by_police else _NABIJ
    return _end(to, "closed", author, at=ctx.now, outcome=incident.outcome)


def _end(
    to: Conversation, cause: str, author: Author, *, at: datetime, outcome: str | None
) -> GroupEvent:
    return membership.event(
        _group_of(to), cause, GroupEventKind.CLOSED, author, at=at, text=outcome
    )


def _group_of(to: Conversation) -> Group:
    return Group(to.id, to.people, len(to.events) + 1)


async def _tell(
    incident: UUID,
    is_told: Callable[[Conversation], bool],
    draw_up: Callable[[Incident, Conversation], GroupEvent],
    ctx: Context,
) -> Effects:
    """Add an event to the conversations about an incident, once for all tries, and send it."""

    async def commit(filed: StoredIncident | None) -> Effects | None:
        if filed is None:
            return NOTHING
        those = [one for one in await ctx.store.conversations.of(filed.incident) if is_told(one)]
        told = [(one, draw_up(filed.incident, one)) for one in those]
        if not await _add(told, filed.incident, ctx):
            return None
        sent = (_to_those_who_hear(event, one, ctx) for one, event in told)
        return Effects([*chain.from_iterable(sent)])

    return await decide_and_commit(partial(ctx.store.incidents.get, incident), commit)


async def _add(
    told: Sequence[tuple[Conversation, GroupEvent]], incident: Incident, ctx: Context
) -> bool:
    """Add to each conversation the event that it does not have; False: the incident has changed.

    A word of the desk keeps a reporter's conversation open, or opens it again.
    """
    silent_at = ctx.now + silence(incident, ctx.policy.timers)
    can_open = not incident.has_group and incident.status is not Status.CLOSED
    transaction, is_new = ctx.store.transaction(), False
    for one, event in told:
        if _known(event, one) is not None:
            continue
        is_new = True
        add_reply(transaction, one.id, user="", member=None, event=event)
        if can_open and event.kind is GroupEventKind.SAID:
            desk_spoke(transaction, one.id, silent_at)
    return not is_new or await ctx.store.incidents.touch(incident, incident.next(), transaction)


def _known(event: GroupEvent, to: Conversation) -> GroupEvent | None:
    return next((known for known in to.events if known.id == event.id), None)


def _to_those_who_hear(event: GroupEvent, to: Conversation, ctx: Context) -> list[Message]:
    """Return the event, as it was told first: an end for all, a word for those who still hear it."""
    first = _known(event, to) or event
    if first.kind is GroupEventKind.CLOSED:
        return participant_sync.group_messages(first, sorted(to.people), to.people, ctx)
    return _to_members(first, to.people, ctx)


@service.on(topics.SYNC)
async def sync(request: Sync, ctx: Context) -> Effects:
    """Repeat the alerts, group events and questions that a participant may have missed."""
    return await participant_sync.take(request, ctx)
