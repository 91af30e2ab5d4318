"""Deadlines: what happens when nobody accepts, nobody acknowledges, or nothing happens at all."""

import asyncio
from datetime import datetime, timedelta
from functools import partial

import structlog
from msgspec.structs import replace

from broker.core import membership
from broker.core.changes import Change, ConversationSilent, Erased
from broker.core.escalation import (
    accept_by,
    acknowledge_by,
    awaits_police,
    overdue_of,
    silence,
)
from broker.core.incidents import SILENT, Incident, closed, widened
from broker.errors import UnavailableError
from broker.runtime.service import NOTHING, Context, Effects, Service
from broker.store import (
    Deadline,
    DeadlineKind,
    OutboxMessage,
    StoredIncident,
    emit,
    fell_silent,
    fire,
    schedule,
)
from broker.store.kernel.isolation import isolated
from schemas import topics
from schemas.codec import encode
from schemas.messages import Status

service = Service("deadlines", niceness=3)
_log = structlog.get_logger()

_POISON = timedelta(seconds=60)  # one that fails must not hold up all that are due after it
_FAR_MS = 2**52  # later than any time that is recorded


@service.every(0.1)
async def fire_due(ctx: Context) -> Effects:
    """Fire every deadline that has passed; each takes effect once, however many workers try.

    Together: one after another they fell minutes behind in a replay of 99,477 calls.
    """
    if await ctx.store.deadlines.follow(ctx.clock.adopted):
        # Back: positions would look newer than those that come now, which then change nothing.
        await ctx.store.presence.sweep(now_ms=_FAR_MS, presence_s=0)
    due = await ctx.store.deadlines.due(ctx.now_ms)
    async with asyncio.TaskGroup() as tasks:
        for deadline in due:
            name = f"deadline {deadline.kind} {deadline.incident}"
            tasks.create_task(_fire_alone(deadline, ctx), name=name)
    return NOTHING


async def _fire_alone(deadline: Deadline, ctx: Context) -> None:
    async def postpone(deadline: Deadline) -> None:
        await ctx.store.deadlines.postpone(deadline, ctx.now + _POISON)

    try:
        await isolated(deadline, partial(_fire, ctx=ctx), what="deadline", postpone=postpone)
    except UnavailableError as error:  # it stands: the next turn tries again
        _log.warning("a deadline has to wait", kind=deadline.kind, why=str(error))


async def _fire(deadline: Deadline, ctx: Context) -> None:
    filed = await ctx.store.conversations.get(deadline.incident)
    if filed is None:
        await ctx.store.deadlines.drop(deadline)
        return
    match deadline.kind:
        case DeadlineKind.WIDEN:
            await _widen(deadline, filed, ctx)
        case DeadlineKind.OVERDUE:
            await _escalate_again(deadline, filed, ctx)
        case DeadlineKind.SILENCE:
            await _close_if_silent(deadline, filed, ctx)
        case DeadlineKind.CONVERSATION:
            await _end_conversation(deadline, filed, ctx)
        case DeadlineKind.ERASE:
            incident = filed.incident
            erased = Erased(incident=incident.id, zone=incident.zone)
            await ctx.store.incidents.erase(incident, filed.people, erased)


async def _widen(deadline: Deadline, filed: StoredIncident, ctx: Context) -> None:
    """Nobody accepted in time: the radius widens to the next ring."""
    incident = filed.incident
    radius_m = ctx.policy.next_radius_m(incident.wave, incident.radius_m)
    settled = incident.status in (Status.ON_SCENE, Status.CLOSED)
    if settled or membership.helpers(filed.people) or radius_m is None:
        await ctx.store.deadlines.drop(deadline, incident)
        return
    after = widened(incident, radius_m, ctx.now)
    due = accept_by(after, ctx.policy.timers)
    await _change(deadline, filed, after, ctx, change=Change.WIDENED, again=due)


async def _escalate_again(deadline: Deadline, filed: StoredIncident, ctx: Context) -> None:
    """The police did not acknowledge in time: escalated again, marked as such."""
    incident = filed.incident
    if not awaits_police(incident):
        await ctx.store.deadlines.drop(deadline, incident)
        return
    after = replace(incident, attempts=incident.attempts + 1, version=incident.version + 1)
    escalation = overdue_of(after, ctx.now)
    posted = OutboxMessage(
        id=str(escalation.id),
        topic=topics.ESCALATION.topic(zone=escalation.zone, priority=escalation.priority),
        payload=encode(escalation),
        made_ms=ctx.now_ms,
        due_ms=ctx.now_ms,  # nobody else publishes it: the relay may at once
    )
    last = after.attempts > ctx.policy.max_overdue
    due = None if last else acknowledge_by(after, ctx.policy.timers)
    await _change(deadline, filed, after, ctx, change=Change.OVERDUE, again=due, posted=posted)


async def _close_if_silent(deadline: Deadline, filed: StoredIncident, ctx: Context) -> None:
    """Close an incident in which nothing has happened for so long; else look again then."""
    active_at = await ctx.store.deadlines.in_time_of_now(filed.active_at)
    quiet_from = active_at + silence(filed.incident, ctx.policy.timers)
    if quiet_from > ctx.now + timedelta(milliseconds=1):
        await ctx.store.deadlines.postpone(deadline, quiet_from)
        return
    after = closed(filed.incident, SILENT, ctx.now)
    await _change(deadline, filed, after, ctx, change=Change.CLOSED)


async def _end_conversation(deadline: Deadline, filed: StoredIncident, ctx: Context) -> None:
    """Nothing was said between a reporter and the desk for so long.

    Whatever the incident does: else its reporter would learn whether others speak of it.
    """
    incident = filed.incident
    if incident.status is Status.CLOSED:  # its end is told to all
        await ctx.store.deadlines.drop(deadline)
        return
    transaction = ctx.store.transaction()
    fire(transaction, deadline)
    fell_silent(transaction, deadline.incident, ctx.now)
    emit(
        transaction,
        ConversationSilent(incident=incident.id, conversation=deadline.incident, at=ctx.now),
    )
    await ctx.store.incidents.touch(incident, incident.next(), transaction)


async def _change(
    deadline: Deadline,
    filed: StoredIncident,
    after: Incident,
    ctx: Context,
    *,
    change: Change,
    again: datetime | None = None,
    posted: OutboxMessage | None = None,
) -> None:
    """Commit what a deadline does, if neither it nor the incident has changed since it was read.

    If they have, the deadline still stands, and the next turn decides on what is new.
    """
    before = filed.incident
    transaction = ctx.store.transaction()
    fire(transaction, deadline)
    if again is not None:
        schedule(transaction, deadline.incident, {deadline.kind: again})
    await ctx.store.incidents.change(
        before,
        replace(after, version=before.version + 1),
        active_at=filed.active_at,
        timers=ctx.policy.timers,
        events=[before.event(change, ctx.now)],
        posted=[posted] if posted else [],
        transaction=transaction,
    )
