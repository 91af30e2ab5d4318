"""Police: carries out commands, keeps the retained states, and makes sure that escalations go out."""

import asyncio
from functools import partial
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from broker import events, sweeps
from broker.core import groups
from broker.core.escalation import answer_of
from broker.core.history import Note, commanded
from broker.core.incidents import Incident, acknowledged, advanced, assigned, closed, state_of
from broker.errors import Code, Rejected
from broker.events import Change, Erased, Event, IncidentChanged, Informed
from broker.mqtt import Message
from broker.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import (
    Filed,
    Filing,
    Posted,
    Received,
    file_question,
    file_receipt,
    log,
)
from schemas import topics
from schemas.codec import encode
from schemas.ids import question_id
from schemas.messages import (
    Acknowledge,
    Answer,
    Ask,
    Assign,
    Close,
    IncidentState,
    Inform,
    Outcome,
    PoliceCommand,
    Question,
    Receipt,
    SetStatus,
    Status,
    Subject,
)
from schemas.taxonomy import Desk

service = Service("police", read_count=256, readers=1, gather_s=0.03, niceness=2)

_GRACE_MS = 3_000  # so long the sweep leaves a message to whoever committed it


class _Plan(NamedTuple):
    """What a command does: the incident after it, what others are told, a question to somebody."""

    after: Incident
    events: tuple[Event, ...] = ()
    question: tuple[str, Question] | None = None


@service.on(topics.COMMAND)
async def command(order: PoliceCommand, ctx: Context) -> Effects:
    """Carry out a command, once, and answer with its receipt."""
    sender = f"police-{ctx.levels['zone']}"
    while True:
        received, filed = await ctx.store.incidents.get_for(order.id, order.incident)
        if received is not None:
            return _answer(_same(received, sender, ctx), ctx)
        filed = _existing(filed, order.incident)
        if filed.incident.zone != ctx.levels["zone"]:
            raise Rejected(
                Code.WRONG_ZONE,
                "$.incident",
                f"The incident is not in zone {ctx.levels['zone']}.",
            )
        plan = await _plan(order, filed, ctx)
        receipt = Receipt(
            subject=Subject.COMMAND,
            outcome=Outcome.ACCEPTED,
            at=ctx.now,
            id=order.id,
            incident=order.incident,
            notes=ctx.notes,
        )
        transaction = ctx.store.transaction()
        file_receipt(transaction, Filing(order.id, sender, ctx.digest, receipt))
        log(transaction, order.incident, commanded(order, ctx.now))
        posted = []
        if plan.question:
            user, question = plan.question
            file_question(transaction, question, user)
            posted.append(_posted(question, user, ctx))
        if await ctx.store.incidents.change(
            filed.incident,
            replace(plan.after, version=filed.incident.version + 1),
            active_at=ctx.now,
            timers=ctx.policy.timers,
            events=plan.events,
            posted=posted,
            transaction=transaction,
        ):
            return _answer(receipt, ctx, *posted)


async def _plan(order: PoliceCommand, filed: Filed, ctx: Context) -> _Plan:
    incident = filed.incident
    changed = IncidentChanged(
        incident=incident.id, change=Change.COMMANDED, at=ctx.now, desk=incident.desk
    )
    if incident.status is Status.CLOSED and not isinstance(order, Ask):
        raise Rejected(Code.INCIDENT_CLOSED, "$.incident", "The incident is closed.")
    match order:
        case Acknowledge():
            return _Plan(acknowledged(incident, by=order.by), (changed,))
        case Assign():
            return _Plan(assigned(incident, order.unit, by=order.by), (changed,))
        case SetStatus():
            if order.status is Status.CLOSED:
                raise Rejected(
                    Code.BAD_TRANSITION, "$.status", "Use the command 'close', with an outcome."
                )
            return _Plan(advanced(incident, order.status, by=order.by), (changed,))
        case Ask():
            return _Plan(incident, (changed,), await _question(order, filed, ctx))
        case Inform():
            informed = Informed(incident=incident.id, command=order.id, text=order.text, at=ctx.now)
            return _Plan(incident, (changed, informed))
        case Close():
            ended = replace(changed, change=Change.CLOSED)
            return _Plan(closed(incident, order.outcome, ctx.now, by=order.by), (ended,))


async def _question(order: Ask, filed: Filed, ctx: Context) -> tuple[str, Question]:
    report = order.report or filed.incident.first_report
    made = await ctx.store.incidents.report(filed.incident.id, report)
    if made is None:
        raise Rejected(Code.UNKNOWN_REPORT, "$.report", f"The incident has no report {report}.")
    question = Question(
        id=question_id(order.id, filed.incident.id),
        incident=filed.incident.id,
        report=report,
        text=order.text,
        asked_at=ctx.now,
    )
    return made.user, question


def _posted(question: Question, user: str, ctx: Context) -> Posted:
    return Posted(
        id=str(question.id),
        topic=topics.QUESTION.topic(user=user),
        payload=encode(question),
        due_ms=ctx.now_ms + _GRACE_MS,
    )


def _answer(receipt: Receipt, ctx: Context, *posted: Posted) -> Effects:
    message = outgoing(
        topics.COMMAND_RECEIPT, receipt, correlation=ctx.correlation, zone=ctx.levels["zone"]
    )
    if not posted:
        return Effects([message])
    return Effects(
        [*(Message(p.topic, p.payload) for p in posted), message],
        partial(sweeps.strike_off, ctx, posted),
    )


def _same(received: Received, sender: str, ctx: Context) -> Receipt:
    if received.user != sender or received.digest != ctx.digest:
        raise Rejected(Code.ID_REUSED, "$.id", "The id was used before, for another message.")
    return received.receipt


def _existing(filed: Filed | None, incident: UUID) -> Filed:
    if filed is None:
        raise Rejected(Code.UNKNOWN_INCIDENT, "$.incident", f"There is no incident {incident}.")
    return filed


@service.on(topics.ANSWER)
async def answer(given: Answer, ctx: Context) -> Effects:
    """Bring the reporter's answer to the police, as an escalation of its own."""
    while True:
        received = await ctx.store.incidents.received(given.id)
        if received is not None:
            return Effects([_to_user(_same(received, ctx.user, ctx), ctx)])
        asked = await ctx.store.incidents.question(given.question)
        if asked is None or asked[0] != ctx.user:
            raise Rejected(
                Code.UNKNOWN_QUESTION, "$.question", "You were not asked such a question."
            )
        name = asked[1].incident
        filed = _existing(await ctx.store.incidents.get(name), name)
        incident = filed.incident
        after = replace(incident, version=incident.version + 1)
        escalation = answer_of(given, after, asked[1].report, ctx.now)
        posted = Posted(
            id=str(escalation.id),
            topic=topics.ESCALATION.topic(zone=incident.zone, priority=incident.priority),
            payload=encode(escalation),
            due_ms=ctx.now_ms + _GRACE_MS,
        )
        receipt = Receipt(
            subject=Subject.ANSWER,
            outcome=Outcome.ACCEPTED,
            at=ctx.now,
            id=given.id,
            incident=incident.id,
            notes=ctx.notes,
        )
        transaction = ctx.store.transaction()
        file_receipt(transaction, Filing(given.id, ctx.user, ctx.digest, receipt))
        log(
            transaction,
            incident.id,
            Note("answered", ctx.now, "a question of the police", ctx.user),
        )
        changed = IncidentChanged(
            incident=incident.id, change=Change.REPLIED, at=ctx.now, desk=incident.desk
        )
        if await ctx.store.incidents.change(
            incident, after, active_at=ctx.now, timers=ctx.policy.timers, events=[changed],
            posted=[posted], transaction=transaction,
        ):  # fmt: skip
            return Effects(
                [Message(posted.topic, posted.payload), _to_user(receipt, ctx)],
                partial(sweeps.strike_off, ctx, [posted]),
            )


def _to_user(receipt: Receipt, ctx: Context) -> Message:
    return outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)


@service.on(events.INCIDENT_CHANGED, newest_of=lambda change: change.incident)
async def keep_state(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish how the incident stands, retained, for operations that subscribe later."""
    filed, alerted = await asyncio.gather(
        ctx.store.incidents.get(change.incident), ctx.store.alerts.alerted(change.incident)
    )
    if filed is None or filed.incident.desk is not Desk.POLICE:
        return NOTHING
    if filed.stated == filed.incident.version and change.change is not Change.RESTATED:
        return NOTHING  # whoever published it has seen this change too
    state = state_of(
        filed.incident,
        alerted=alerted,
        accepted=groups.helpers(filed.people),
        on_scene=sum(member.on_scene for member in filed.people.values()),
        now=ctx.now,
    )
    message = outgoing(topics.INCIDENT, state, zone=state.zone, incident=str(state.incident))
    return Effects([message], partial(_record_state, ctx, change, state, filed.stated))


async def _record_state(
    ctx: Context, change: IncidentChanged, state: IncidentState, before: int, _: object
) -> None:
    """Record a published state; if another worker published one meanwhile, ours may not stay."""
    incidents = ctx.store.incidents
    if await incidents.state_published(state.incident, state.version, before=before):
        return
    if await incidents.version(state.incident) is None:
        # Erased meanwhile: the clearing may have come before our state.
        await ctx.store.events.put([Erased(incident=state.incident, zone=state.zone)])
    else:
        await ctx.store.events.put([replace(change, change=Change.RESTATED, at=ctx.now)])


@service.on(events.ERASED)
async def clear_state(erased: Erased, _ctx: Context) -> Effects:
    """Clear the retained state of an incident whose retention has ended (MQTT 5, 3.3.1.3)."""
    topic = topics.INCIDENT.topic(zone=erased.zone, incident=str(erased.incident))
    return Effects([Message(topic, b"", retain=True)])


service.on_connect(sweeps.restate)
service.every(2.0)(sweeps.witness)
service.every(0.25)(sweeps.publish_again)
service.every(0.25)(sweeps.make_sure)
service.every(10.0)(sweeps.forget_published)
