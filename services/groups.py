"""Groups: who answers an alert joins the group around the incident and hears it until it closes."""

import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from broker import events
from broker.core import groups
from broker.core.alerts import alerts_of
from broker.core.escalation import accept_again_by
from broker.core.groups import Member
from broker.core.history import Note, replied
from broker.errors import Code, Rejected
from broker.events import Change, IncidentChanged, Informed
from broker.mqtt import Message
from broker.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import (
    DeadlineKind,
    Filed,
    Filing,
    Glimpse,
    Missed,
    People,
    Received,
    Transaction,
    confirm,
    file_receipt,
    file_reply,
    log,
    schedule_no_later,
)
from schemas import topics
from schemas.ids import alert_id
from schemas.messages import (
    GroupEvent,
    GroupEventKind,
    GroupMessage,
    Outcome,
    Receipt,
    Reply,
    Status,
    Subject,
    Sync,
)

service = Service("groups", niceness=2)

_SYNC_AT_MOST = 200  # incidents in one sync
_SYNCS_AT_ONCE = 4

# So much a device's clock may be ahead of ours: what it says to have seen before `since` less this,
# it has seen.
_CLOCKS_DIFFER = timedelta(minutes=5)

_EPOCH = datetime.fromtimestamp(0, UTC)  # before it nothing of ours happened


Decide = Callable[[Filed], tuple[Member | None, GroupEvent | None]]


@service.on(topics.REPLY)
async def reply(answer: Reply, ctx: Context) -> Effects:
    """Take a participant's answer to an alert; tell the group."""

    def change(filed: Filed) -> tuple[Member | None, GroupEvent | None]:
        member, kind = groups.replied(filed.people, ctx.user, answer)
        if kind is None:
            return member, None
        people = {**filed.people, ctx.user: member}
        event = groups.event(
            filed.incident.id,
            answer.id,
            kind,
            sequence=filed.group_events + 1,
            name=member.name,
            people=people,
            at=ctx.now,
            eta_s=member.eta_s,
        )
        return member, event

    note = replied(ctx.user, answer, ctx.now)
    return await _take(Subject.REPLY, (answer.id, answer.incident), change, ctx, note=note)


@service.on(topics.MESSAGE)
async def say(message: GroupMessage, ctx: Context) -> Effects:
    """Pass on what a member says to the group."""

    def change(filed: Filed) -> tuple[Member | None, GroupEvent | None]:
        speaker = groups.speaker(filed.people, ctx.user)
        event = groups.event(
            filed.incident.id,
            message.id,
            GroupEventKind.SAID,
            sequence=filed.group_events + 1,
            name=speaker.name,
            people=filed.people,
            at=ctx.now,
            text=message.text,
        )
        return None, event

    note = Note("said", ctx.now, "something to the group", ctx.user)
    return await _take(Subject.MESSAGE, (message.id, message.incident), change, ctx, note=note)


async def _take(
    subject: Subject, ids: tuple[UUID, UUID], change: Decide, ctx: Context, *, note: Note
) -> Effects:
    """Commit a message about an incident, once: `ids` are the message's and the incident's.

    Whatever it says, it is the device's word that the alert has come.
    """
    message, incident = ids
    while True:
        received, filed = await ctx.store.incidents.get_for(message, incident)
        if received is not None:
            return await _repeat(received, filed, ctx)
        if filed is None:
            raise Rejected(Code.UNKNOWN_INCIDENT, "$.incident", f"There is no incident {incident}.")
        if filed.incident.status is Status.CLOSED:
            if ctx.user in filed.people:
                await ctx.store.alerts.confirm(incident, ctx.user, ctx.now)
            raise Rejected(Code.INCIDENT_CLOSED, "$.incident", "The incident is closed.")
        member, event = change(filed)
        receipt = Receipt(
            subject=subject,
            outcome=Outcome.ACCEPTED,
            at=ctx.now,
            id=message,
            incident=incident,
            notes=ctx.notes,
        )
        transaction = ctx.store.transaction()
        sequence = event.sequence if event else None
        file_receipt(transaction, Filing(message, ctx.user, ctx.digest, receipt, sequence))
        file_reply(transaction, filed.incident, user=ctx.user, member=member, event=event)
        confirm(transaction, incident, ctx.user, ctx.now)
        log(transaction, incident, note)
        people = {**filed.people, ctx.user: member} if member else filed.people
        _call_again(transaction, filed, people, ctx)
        after = replace(filed.incident, version=filed.incident.version + 1)
        told = IncidentChanged(
            incident=incident, change=Change.REPLIED, at=ctx.now, desk=filed.incident.desk
        )
        if await ctx.store.incidents.change(
            filed.incident, after, active_at=ctx.now, timers=ctx.policy.timers, events=[told],
            transaction=transaction,
        ):  # fmt: skip
            return _effects(receipt, event, people, ctx)


def _call_again(transaction: Transaction, filed: Filed, people: People, ctx: Context) -> None:
    """Set the deadline for somebody to accept again, if the last one who had accepted is gone."""
    due = accept_again_by(
        filed.incident, accepted=groups.helpers(filed.people), left=groups.helpers(people),
        timers=ctx.policy.timers, now=ctx.now,
    )  # fmt: skip
    if due is not None:
        schedule_no_later(transaction, filed.incident.id, DeadlineKind.WIDEN, due)


async def _repeat(received: Received, filed: Filed | None, ctx: Context) -> Effects:
    """Answer a repeated message as before, and tell the group again: readers drop it by id."""
    if received.user != ctx.user or received.digest != ctx.digest:
        raise Rejected(Code.ID_REUSED, "$.id", "The id was used before, for another message.")
    event = None
    if filed is not None and received.group_sequence is not None:
        since = received.group_sequence - 1
        event = (await ctx.store.incidents.group_events(filed.incident.id, since=since))[0]
    return _effects(received.receipt, event, filed.people if filed else {}, ctx)


def _effects(receipt: Receipt, event: GroupEvent | None, people: People, ctx: Context) -> Effects:
    messages = _to_members(event, people, ctx) if event else []
    mine = outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)
    if event is not None and event.kind is GroupEventKind.LEFT:
        messages += _to(event, [ctx.user], people, ctx)  # who left hears that it worked
    return Effects([mine, *messages])


def _to_members(event: GroupEvent, people: People, ctx: Context) -> list[Message]:
    return _to(event, groups.members(people), people, ctx)


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


@service.on(events.INFORMED)
async def inform(informed: Informed, ctx: Context) -> Effects:
    """Pass on what the police say to the group."""
    while True:
        filed = await ctx.store.incidents.get(informed.incident)
        if filed is None:
            return NOTHING
        event = groups.event(
            informed.incident,
            informed.command,
            GroupEventKind.SAID,
            sequence=filed.group_events + 1,
            name=groups.POLICE,
            people=filed.people,
            at=ctx.now,  # as told: a sync asks from a moment on
            text=informed.text,
        )
        logged = await _log(event, filed, ctx)
        if logged is not None:
            return Effects(_to_members(logged, filed.people, ctx))


@service.on(events.INCIDENT_CHANGED)
async def close(change: IncidentChanged, ctx: Context) -> Effects:
    """Tell everyone who was alerted, and the reporters, that an incident has ended."""
    if change.change is not Change.CLOSED:
        return NOTHING
    while True:
        filed = await ctx.store.incidents.get(change.incident)
        if filed is None:
            return NOTHING
        await ctx.store.everywhere.unfile_beyond(filed.incident)
        event = groups.event(
            change.incident,
            "closed",
            GroupEventKind.CLOSED,
            sequence=filed.group_events + 1,
            name=groups.POLICE if filed.incident.acknowledged_by else "nabij",
            people=filed.people,
            at=ctx.now,
            text=filed.incident.outcome,
        )
        logged = await _log(event, filed, ctx)
        if logged is not None:
            return Effects(_to(logged, sorted(filed.people), filed.people, ctx))


async def _log(event: GroupEvent, filed: Filed, ctx: Context) -> GroupEvent | None:
    """File `event` once, whoever tries again; None when the incident has changed meanwhile."""
    for known in await ctx.store.incidents.group_events(event.incident):
        if known.id == event.id:
            return known
    transaction = ctx.store.transaction()
    file_reply(transaction, filed.incident, user="", member=None, event=event)
    after = replace(filed.incident, version=filed.incident.version + 1)
    changed = await ctx.store.incidents.touch(filed.incident, after, transaction)
    return event if changed else None


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
            return NOTHING  # the device has stopped waiting, and asks anew when it is ready
        glimpses = await ctx.store.everywhere.missed(
            ctx.user, request.since, _SYNC_AT_MOST,
            told_before=timedelta() if request.alerts else _CLOCKS_DIFFER,
        )  # fmt: skip
        new = [one for one in glimpses if _lacks_alert(one, request, ctx) or _lacks(one, request)]
        read = await ctx.store.everywhere.read(one.incident for one in new)
        asked = await ctx.store.everywhere.questions(ctx.user, request.since)
    messages = [outgoing(topics.QUESTION, question, user=ctx.user) for question in asked]
    for glimpse in new:
        if (missed := read.get(glimpse.incident)) is not None:
            if _lacks_alert(glimpse, request, ctx):
                messages += _missed_alert(glimpse, missed, ctx)
            messages += _missed_events(glimpse, missed, request, ctx)
    told = [one.incident for one in glimpses if not one.confirmed and _has(one, request, ctx)]
    if told:
        await ctx.store.everywhere.confirm(told, ctx.user, ctx.now)
    receipt = Receipt(subject=Subject.SYNC, outcome=Outcome.ACCEPTED, at=ctx.now, notes=ctx.notes)
    done = outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)
    return Effects([*messages, done])


def _has(glimpse: Glimpse, request: Sync, ctx: Context) -> bool:
    """Whether the device says that it has the alert."""
    if glimpse.alert is None:
        return False
    named = alert_id(glimpse.incident, glimpse.alert.wave, ctx.user) in request.alerts
    return named or glimpse.alert.at < request.since - _CLOCKS_DIFFER


def _lacks_alert(glimpse: Glimpse, request: Sync, ctx: Context) -> bool:
    """Whether there is an alert that the device does not name, and that still calls for help."""
    if glimpse.alert is None or not glimpse.is_open or glimpse.alert.at < request.since:
        return False
    return alert_id(glimpse.incident, glimpse.alert.wave, ctx.user) not in request.alerts


def _lacks(glimpse: Glimpse, request: Sync) -> bool:
    """Whether something was told since that the device does not name."""
    if glimpse.told_at < request.since:
        return False
    known = request.groups.get(glimpse.incident, frozenset())
    if glimpse.member.in_group:
        return not known.issuperset(range(1, glimpse.events + 1))
    return not glimpse.is_open and glimpse.events not in known  # the last is that it closed


def _missed_alert(glimpse: Glimpse, missed: Missed, ctx: Context) -> list[Message]:
    alert = glimpse.alert
    if alert is None or missed.incident.status is Status.CLOSED:
        return []
    expires_at = alert.at + timedelta(seconds=ctx.policy.timers.silence_s)
    draw_up = alerts_of(missed.incident, ctx.policy.advice, expires_at=expires_at)
    return [outgoing(topics.ALERT, draw_up(ctx.user, alert.wave, alert.reason), user=ctx.user)]


def _missed_events(glimpse: Glimpse, missed: Missed, request: Sync, ctx: Context) -> list[Message]:
    in_group, known = glimpse.member.in_group, request.groups.get(glimpse.incident, ())
    events = [
        event
        for event in missed.events
        if event.at >= request.since
        and event.sequence not in known
        and (in_group or event.kind is GroupEventKind.CLOSED)
    ]
    people = {ctx.user: glimpse.member}
    return [message for event in events for message in _to(event, [ctx.user], people, ctx)]
