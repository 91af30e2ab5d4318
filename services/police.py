"""Police: carries out commands, brings answers, and keeps the retained states."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from msgspec.structs import replace

from broker.core import changes, membership
from broker.core.changes import Change, Erased, Event, IncidentChanged, Informed
from broker.core.escalation import answer_of, silence
from broker.core.incident_history import Note, commanded
from broker.core.incidents import Incident, acknowledged, advanced, assigned, closed, state_of
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime import retained_states
from broker.runtime.decide import decide_and_commit, refuse_other
from broker.runtime.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import (
    KnownReceipt,
    OutboxMessage,
    ReceiptRecord,
    StoredIncident,
    StoredReport,
    Transaction,
    add_receipt,
    desk_spoke,
    log,
    posted,
    reporter_spoke,
)
from broker.store.questions import add_question
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
    PoliceCommand,
    Question,
    Receipt,
    Reporters,
    SetStatus,
    Status,
    Subject,
)
from schemas.taxonomy import Desk

service = Service("police", read_count=256, readers=1, gather_s=0.03, niceness=2)

_NAMED = 18  # reports in the reason of a rejection, which has room for so many


class _Plan(NamedTuple):
    """What a command does: the incident after it, what others are told, questions to reporters."""

    after: Incident
    events: tuple[Event, ...] = ()
    questions: tuple[tuple[str, Question], ...] = ()


@service.on(topics.COMMAND)
async def command(order: PoliceCommand, ctx: Context) -> Effects:
    """Carry out a command, once, and answer with its receipt."""
    # Of one incident one after another: at once all but one of them would fail, again and again.
    async with ctx.exclusively(order.incident.int):
        return await _carry_out(order, ctx)


async def _carry_out(order: PoliceCommand, ctx: Context) -> Effects:
    sender, store = f"police-{ctx.principal.zone}", ctx.store

    async def commit(seen: tuple[KnownReceipt | None, StoredIncident | None]) -> Effects | None:
        received, filed = seen
        if received is not None:
            refuse_other(received, ctx, sender=sender)
            return _answer(received.receipt, ctx)
        filed = _in_zone(_existing(filed, order.incident), ctx)
        plan = await _plan(order, filed, ctx)
        receipt = ctx.accepted(Subject.COMMAND, order.id, order.incident)
        transaction = store.transaction()
        add_receipt(transaction, ReceiptRecord(order.id, sender, ctx.digest, receipt))
        log(transaction, order.incident, commanded(order, ctx.now))
        questions = []
        for user, question in plan.questions:
            add_question(transaction, question, user)
            questions.append(_posted(question, user, ctx))
            _keep_open(transaction, question, filed.incident, ctx)
        is_committed = await store.incidents.change(
            filed.incident,
            replace(plan.after, version=filed.incident.version + 1),
            active_at=ctx.now,
            timers=ctx.policy.timers,
            events=plan.events,
            posted=questions,
            transaction=transaction,
        )
        return _answer(receipt, ctx, *questions) if is_committed else None

    return await decide_and_commit(
        partial(store.incidents.get_for, order.id, order.incident), commit
    )


def _keep_open(
    transaction: Transaction, question: Question, incident: Incident, ctx: Context
) -> None:
    """Let the conversation in which a reporter is asked last from now on."""
    if not incident.has_group and incident.status is not Status.CLOSED:
        silent_at = ctx.now + silence(incident, ctx.policy.timers)
        desk_spoke(transaction, question.incident, silent_at)


def _in_zone(filed: StoredIncident, ctx: Context) -> StoredIncident:
    zone = ctx.principal.zone
    if zone not in (filed.incident.zone, ctx.policy.duty_zone):
        raise Rejected(Code.WRONG_ZONE, "$.incident", f"The incident is not in zone {zone}.")
    return filed


async def _plan(order: PoliceCommand, filed: StoredIncident, ctx: Context) -> _Plan:
    incident = filed.incident
    changed = incident.event(Change.COMMANDED, ctx.now)
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
            return _Plan(incident, (changed,), await _questions(order, incident, ctx))
        case Inform():
            await _refuse_unless_one_of(order, incident, ctx)
            informed = Informed(
                incident=incident.id,
                command=order.id,
                text=order.text,
                at=ctx.now,
                report=order.report,
            )
            return _Plan(incident, (changed, informed))
        case Close():
            after = closed(incident, order.outcome, ctx.now, by=order.by)
            return _Plan(after, (incident.event(Change.CLOSED, ctx.now),))


async def _questions(
    order: Ask, incident: Incident, ctx: Context
) -> tuple[tuple[str, Question], ...]:
    """Return the question to each reporter who is asked, with who that is."""
    return tuple(
        [_question(order, made, incident, ctx) for made in await _asked(order, incident, ctx)]
    )


def _question(
    order: Ask, made: StoredReport, incident: Incident, ctx: Context
) -> tuple[str, Question]:
    known_as = incident.conversation_of(made.report)
    return made.user, Question(
        id=question_id(order.id, made.report.id, known_as),
        incident=known_as,
        report=made.report.id,
        text=order.text,
        asked_at=ctx.now,
    )


async def _asked(order: Ask, incident: Incident, ctx: Context) -> Sequence[StoredReport]:
    """Return the reports whose reporters are asked: another person must not answer for one."""
    if order.report is not None:
        if order.reporters is Reporters.ALL:
            raise Rejected(
                Code.OUT_OF_RANGE, "$.reporters", "Name one report, or ask all reporters: not both."
            )
        return [await _existing_report(order.report, incident, ctx)]
    reports = await ctx.store.incidents.reports(incident.id)
    if len(reports) > 1 and order.reporters is Reporters.ONE:
        raise Rejected(Code.SEVERAL_REPORTS, "$.report", _choice_of(reports))
    return reports


def _choice_of(reports: Sequence[StoredReport]) -> str:
    newest = sorted((one.report for one in reports), key=lambda one: one.seen_at, reverse=True)
    named = ", ".join(str(one.id) for one in newest[:_NAMED])
    more = f", and {len(reports) - _NAMED} more" if len(reports) > _NAMED else ""
    return (
        f"The incident has {len(reports)} reports: name whose reporter is asked, or ask all with "
        f"reporters 'all'. The reports, newest first: {named}{more}."
    )


async def _existing_report(report: UUID, incident: Incident, ctx: Context) -> StoredReport:
    made = await ctx.store.incidents.report(incident.id, report)
    if made is None:
        raise Rejected(Code.UNKNOWN_REPORT, "$.report", f"The incident has no report {report}.")
    return made


async def _refuse_unless_one_of(order: Inform, incident: Incident, ctx: Context) -> None:
    """Refuse to tell the reporter of a report that is not there, or one of a group apart."""
    if order.report is None:
        return
    await _existing_report(order.report, incident, ctx)
    if incident.has_group:
        raise Rejected(
            Code.HAS_GROUP,
            "$.report",
            "The incident has one group, which hears it as a whole: leave out the report.",
        )


def _posted(question: Question, user: str, ctx: Context) -> OutboxMessage:
    topic = topics.QUESTION.topic(user=user)
    return posted(question.id, topic, encode(question), now_ms=ctx.commit_ms)


def _answer(receipt: Receipt, ctx: Context, *questions: OutboxMessage) -> Effects:
    message = outgoing(
        topics.COMMAND_RECEIPT, receipt, correlation=ctx.correlation, zone=ctx.principal.zone
    )
    return Effects([*(Message(p.topic, p.payload) for p in questions), message])


def _existing(filed: StoredIncident | None, incident: UUID) -> StoredIncident:
    if filed is None:
        raise Rejected(Code.UNKNOWN_INCIDENT, "$.incident", f"There is no incident {incident}.")
    return filed


@service.on(topics.ANSWER)
async def answer(given: Answer, ctx: Context) -> Effects:
    """Bring the reporter's answer to the police, as an escalation of its own."""
    asked = await ctx.partitions.asked(ctx.store, given.question)
    if asked is None or asked[1] != ctx.user:
        # It may have been answered so long ago that it is forgotten, and the answer be a repeat.
        received = await ctx.store.incidents.received(given.id)
        if received is not None:
            return _repeated(received, ctx)
        raise Rejected(Code.UNKNOWN_QUESTION, "$.question", "You were not asked such a question.")
    store, _, question = asked
    async with ctx.exclusively(question.incident.int):
        return await _bring(given, question, replace(ctx, store=store))


async def _bring(given: Answer, question: Question, ctx: Context) -> Effects:
    async def commit(received: KnownReceipt | None) -> Effects | None:
        if received is not None:
            return _repeated(received, ctx)
        filed = await ctx.store.conversations.get(question.incident)
        return await _bring_to(_existing(filed, question.incident).incident, given, question, ctx)

    return await decide_and_commit(partial(ctx.store.incidents.received, given.id), commit)


async def _bring_to(
    incident: Incident, given: Answer, question: Question, ctx: Context
) -> Effects | None:
    """Commit an answer to a question about `incident`; None when it has changed since."""
    after = incident.next()
    escalation = answer_of(given, after, question.report, ctx.now)
    topic = topics.ESCALATION.topic(zone=incident.zone, priority=incident.priority)
    message = posted(escalation.id, topic, encode(escalation), now_ms=ctx.commit_ms)
    receipt = ctx.accepted(Subject.ANSWER, given.id, question.incident)
    transaction = ctx.store.transaction()
    add_receipt(transaction, ReceiptRecord(given.id, ctx.user, ctx.digest, receipt))
    note = Note("answered", ctx.now, "a question of the police", ctx.user)
    log(transaction, incident.id, note)
    if not incident.has_group:
        silent_at = ctx.now + silence(incident, ctx.policy.timers)
        reporter_spoke(transaction, question.incident, silent_at)
    is_committed = await ctx.store.incidents.change(
        incident,
        after,
        active_at=ctx.now,
        timers=ctx.policy.timers,
        events=[incident.event(Change.REPLIED, ctx.now)],
        posted=[message],
        transaction=transaction,
    )
    if not is_committed:
        return None
    return Effects([Message(message.topic, message.payload), _to_user(receipt, ctx)])


def _repeated(received: KnownReceipt, ctx: Context) -> Effects:
    refuse_other(received, ctx, sender=ctx.user)
    return Effects([_to_user(received.receipt, ctx)])


def _to_user(receipt: Receipt, ctx: Context) -> Message:
    return outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)


@service.on(
    changes.INCIDENT_CHANGED,
    desks={Desk.POLICE},
    newest_of=lambda change: change.incident,
)
async def keep_state(change: IncidentChanged, ctx: Context) -> Effects:
    """Publish how the incident stands, retained, for operations that subscribe later."""
    filed, alerted = await asyncio.gather(
        ctx.store.incidents.get(change.incident), ctx.store.alerts.alerted(change.incident)
    )
    if filed is None or filed.incident.desk is not Desk.POLICE:
        return NOTHING
    if filed.stated == filed.incident.version and change.change is not Change.RESTATED:
        return NOTHING  # the worker that published it has seen this change too
    people = filed.people if filed.incident.has_group else {}
    state = state_of(
        filed.incident,
        alerted=alerted,
        accepted=membership.helpers(people),
        on_scene=sum(member.on_scene for member in people.values()),
        now=ctx.now,
    )
    message = outgoing(topics.INCIDENT, state, zone=state.zone, incident=str(state.incident))
    return Effects([message], partial(_record_state, ctx, change, state, filed.stated))


async def _record_state(
    ctx: Context, change: IncidentChanged, state: IncidentState, before: int, _: object
) -> None:
    """Record a published state; if another worker has published one since, ours may not stay."""
    incidents = ctx.store.incidents
    if await incidents.state_published(state.incident, state.version, before=before):
        return
    if await incidents.version(state.incident) is None:
        # Erased in between: the clearing may have come before our state.
        await ctx.store.events.put([Erased(incident=state.incident, zone=state.zone)])
    else:
        await ctx.store.events.put([replace(change, change=Change.RESTATED, at=ctx.now)])


@service.on(changes.ERASED)
async def clear_state(erased: Erased, _ctx: Context) -> Effects:
    """Clear the retained state of an incident whose retention has ended (MQTT 5, 3.3.1.3)."""
    topic = topics.INCIDENT.topic(zone=erased.zone, incident=str(erased.incident))
    return Effects([Message(topic, b"", retain=True)])


service.on_connect(retained_states.republish_all)
service.every(2.0)(retained_states.record_still_restored)
