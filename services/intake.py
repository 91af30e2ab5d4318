"""Intake: places each report, merges it with what is known, commits it, and tells the police.

The shortest way: as soon as the commit is fsynced, receipt and escalation go out from here; the
`relay` service sends again what its desk has not confirmed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from broker.core.changes import Change
from broker.core.escalation import case_of, escalation_of
from broker.core.incidents import Incident, is_old, merge_target, merged, opened_by
from broker.core.membership import Member, reporter
from broker.core.placed_report import PlacedReport, placed
from broker.core.zones import UNASSIGNED
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime import metrics
from broker.runtime.decide import decide_and_commit, refuse_other
from broker.runtime.service import Context, Effects, Service, outgoing
from broker.store import (
    KnownReceipt,
    Neighbourhood,
    OutboxMessage,
    ReceiptRecord,
    ReportCommit,
    posted,
)
from broker.store.receipt_records import RECEIPT_LIFETIME_S
from schemas import topics
from schemas.cleaning import MAX_NOTES
from schemas.codec import encode
from schemas.ids import made_at_ms, region_in
from schemas.messages import Merge, Outcome, Receipt, Report, Subject
from schemas.taxonomy import Audience, Category, Desk, Urgency

service = Service("intake")
_log = structlog.get_logger()

_AHEAD = timedelta(minutes=5)
_OLD = timedelta(days=7)
_EPOCH = datetime.fromtimestamp(0, UTC)  # a clock that says less was never set


class _Decision(NamedTuple):
    incident: Incident | None  # None: the report was committed before
    receipt: Receipt
    before: Incident | None  # the incident that the report joins, as it was
    posted: OutboxMessage | None  # for the desk: an escalation, or a case
    ctx: Context  # of the partition that has it


@service.on(topics.REPORT)
async def take(report: Report, ctx: Context) -> Effects:
    """Commit a report, once, and answer with its receipt and escalation."""
    metrics.passed(metrics.Stage.RECEIVED, ctx.waited_s)
    _refuse_expired(report, ctx)
    report, ctx = _in_time(report, ctx)
    try:
        category = _category_of(report, ctx)
    except Rejected:
        # Time or policy may have moved on since it was committed: it gets its receipt all the same.
        received = await ctx.partitions.received(ctx.store, report.id)
        if received is None:
            raise
        return _effects(_repeated(report, received, ctx))
    zones = ctx.zones
    one = placed(report, category, police=zones.police, municipality=zones.municipality)
    # Reports of one place are decided one after another anyway; queueing here saves the store the
    # attempts that would fail. Other workers are held off by the store's guards.
    async with ctx.exclusively(one.cell):
        decision = await _commit(one, ctx)
    metrics.passed(metrics.Stage.COMMITTED, ctx.waited_s)
    return _effects(decision)


def _refuse_expired(report: Report, ctx: Context) -> None:
    """Refuse what is older than any receipt: whether it was committed before is not known.

    Devices give up after 72 hours (docs/protocol.md).
    """
    if made_at_ms(report.id) < ctx.now_ms - RECEIPT_LIFETIME_S * 1000:
        raise Rejected(
            Code.EXPIRED,
            "$.id",
            "The id was made more than 7 days ago: whether it was received before is not known any "
            "more. If it still matters, report it again.",
        )


def _in_time(report: Report, ctx: Context) -> tuple[Report, Context]:
    """Return the report with a `seen_at` that can be: a wrong one costs no report."""
    if report.seen_at > ctx.now + _AHEAD:
        note = "seen_at: more than 5 minutes ahead of our clock: it counts as now."
        report = replace(report, seen_at=ctx.now)
    elif report.seen_at < ctx.now - _OLD:
        note = "seen_at: more than 7 days ago: is the clock right? It was taken as it is."
        report = replace(report, seen_at=max(report.seen_at, _EPOCH))
    else:
        return report, ctx
    return report, replace(ctx, notes=(note, *ctx.notes)[:MAX_NOTES])


def _category_of(report: Report, ctx: Context) -> Category:
    category = ctx.policy.category(report.category)
    if category is None:
        raise Rejected(
            Code.UNKNOWN_CATEGORY,
            "$.category",
            f"There is no category '{report.category}'; there are {', '.join(ctx.policy.codes)}.",
        )
    return category


async def _commit(one: PlacedReport, ctx: Context) -> _Decision:
    around = ctx.partitions.around(one.report.location, one.category.merge_m)
    if around:
        # Reports on both sides of a border cannot be held off by one commit's guards.
        async with ctx.partitions.locked(around, one.report.category):
            return await _commit_at_border(one, ctx)
    expected = ctx.store.incidents.expected(one)

    async def read() -> Neighbourhood:
        nonlocal expected
        seen, expected = expected, None
        return seen or await ctx.store.incidents.neighbourhood(one)

    async def commit(seen: Neighbourhood) -> _Decision | None:
        if seen.received is not None:
            return _repeated(one.report, seen.received, ctx)
        return await _commit_as(one, seen, ctx)

    return await decide_and_commit(read, commit)


async def _commit_at_border(one: PlacedReport, ctx: Context) -> _Decision:
    """Commit a report that may join an incident of another partition: there, in one commit as ever.

    To which partition it goes is filed before, in that of its place, and never changes: so it is
    committed once, however often it is repeated and whatever closes in between.
    """
    partitions = ctx.partitions

    async def commit(seen: Neighbourhood) -> _Decision | None:
        if seen.received is not None:
            return _repeated(one.report, seen.received, ctx)
        there = await partitions.incidents(seen.elsewhere)
        if seen.routed is not None:
            return await _commit_elsewhere(one, there, ctx, region=seen.routed)
        target = merge_target(one, [*seen.candidates, *there])
        if target is not None and partitions.of(target.id) is not ctx.store:
            await ctx.store.locks.route(one.report.id, region_in(target.id))
            return None  # and see whether it was ours that was filed
        return await _commit_as(one, seen, ctx)

    decision = await decide_and_commit(partial(ctx.store.incidents.neighbourhood, one), commit)
    if decision.incident is not None and decision.incident.reports == 1:
        await partitions.add_beyond(decision.incident)
    return decision


async def _commit_elsewhere(
    one: PlacedReport, there: Sequence[Incident], ctx: Context, *, region: int
) -> _Decision | None:
    """Commit a report in the partition of `region`, to which it was routed."""
    partitions, store = ctx.partitions, ctx.partitions.partition_of(region)
    elsewhere = replace(ctx, store=store)
    received = await store.incidents.received(one.report.id)
    if received is not None:
        return _repeated(one.report, received, elsewhere)
    fitting = [incident for incident in there if partitions.of(incident.id) is store]
    unsure = Neighbourhood(None, None, fitting)
    return await _commit_as(one, unsure, elsewhere, region=region)


async def _commit_as(
    one: PlacedReport, seen: Neighbourhood, ctx: Context, *, region: int | None = None
) -> _Decision | None:
    """Decide on what was seen and commit that; None when it has changed since."""
    report, decision = one.report, _decide(one, seen, ctx, region=region)
    incident = decision.incident
    assert incident is not None
    made = ReportCommit(
        one,
        ReceiptRecord(report.id, ctx.user, ctx.digest, decision.receipt),
        incident,
        member=await _member(incident, ctx),
        event=incident.event(_change(incident, decision.before), ctx.now, report.id),
        posted=decision.posted,
    )
    sequence = await ctx.store.incidents.commit_report(
        made, seen, timers=ctx.policy.timers, now=ctx.now
    )
    if sequence is None:
        return None
    if incident.reports == 1:
        _tell_unassigned(incident)
    if not incident.has_group:
        return decision
    return decision._replace(receipt=replace(decision.receipt, sequence=sequence))


def _repeated(report: Report, received: KnownReceipt, ctx: Context) -> _Decision:
    """Answer a report that was committed before: the same receipt, if it is the same report."""
    told = f"The id {report.id} was used before, for another report."
    refuse_other(received, ctx, sender=ctx.user, told=told)
    return _Decision(None, received.receipt, None, None, ctx)


def _decide(
    one: PlacedReport, seen: Neighbourhood, ctx: Context, *, region: int | None
) -> _Decision:
    report, category = one.report, one.category
    target = merge_target(one, seen.candidates)
    if target is not None:
        incident = replace(merged(target, report, ctx.now), version=target.version + 1)
    else:
        incident = opened_by(
            one,
            ctx.now,
            region=region,
            alert_if_seen_within_s=ctx.policy.alert_if_seen_within_s(category),
            radius_m=ctx.policy.first_radius_m(category, report.location.accuracy_m),
        )
    merge = Merge.OPENED if target is None else Merge.MERGED
    receipt = Receipt(
        subject=Subject.REPORT,
        outcome=Outcome.ACCEPTED,
        at=ctx.now,
        id=report.id,
        incident=incident.conversation_of(report),
        merge=merge if incident.has_group else None,  # else no sign of anybody else's report
        advice=ctx.policy.advice.in_language(report.language)
        if category.urgency is Urgency.URGENT
        else None,
        notes=_notes(one, ctx),
    )
    return _Decision(incident, receipt, target, _posted(report, incident, ctx), ctx)


def _change(incident: Incident, before: Incident | None) -> Change:
    if before is None:
        return Change.OPENED
    return Change.MERGED if incident.alerts_people == before.alerts_people else Change.RENEWED


def _notes(one: PlacedReport, ctx: Context) -> tuple[str, ...]:
    """Return what the reporter is told of the report: its details, and whether it alerts nobody."""
    within_s = ctx.policy.alert_if_seen_within_s(one.category)
    alerts = one.category.radius_m > 0 and one.audience is Audience.POLICE_AND_NEARBY
    if not alerts or not is_old(one.report, within_s, ctx.now):
        return ctx.notes
    told = (
        f"seen_at: more than {within_s} s ago: the police are told, and nobody nearby is alerted."
    )
    return (told, *ctx.notes)[:MAX_NOTES]


def _tell_unassigned(incident: Incident) -> None:
    zone = incident.zone if incident.desk is Desk.POLICE else incident.municipality
    if zone == UNASSIGNED:
        metrics.UNASSIGNED.labels(incident.desk).inc()
        _log.warning("report outside every zone", desk=incident.desk, incident=str(incident.id))


async def _member(incident: Incident, ctx: Context) -> Member | None:
    if incident.reports == 1 or not incident.has_group:
        return reporter({}, ctx.user)
    filed = await ctx.store.incidents.get(incident.id)
    if filed is None:
        return reporter({}, ctx.user)
    known = filed.people.get(ctx.user)
    if known is not None and known.in_group:
        return None
    return reporter(filed.people, ctx.user, hears_from=filed.group_events + 1)


def _posted(report: Report, incident: Incident, ctx: Context) -> OutboxMessage:
    """Return what the desk that answers for the report is to read: an escalation, or a case."""
    if incident.desk is Desk.POLICE:
        escalation = escalation_of(report, incident, ctx.now)
        topic = topics.ESCALATION.topic(zone=incident.zone, priority=incident.priority)
        identifier, payload = escalation.id, encode(escalation)
    else:
        case = case_of(report, incident, ctx.now)
        topic = topics.CASE.topic(municipality=incident.municipality, category=incident.category)
        identifier, payload = case.id, encode(case)
    return posted(identifier, topic, payload, now_ms=ctx.commit_ms)


def _effects(decision: _Decision) -> Effects:
    ctx = decision.ctx
    receipt = outgoing(topics.RECEIPT, decision.receipt, correlation=ctx.correlation, user=ctx.user)
    message = decision.posted
    if message is None or decision.incident is None or decision.incident.desk is Desk.CITY:
        return Effects([receipt])

    async def record(_: object) -> None:
        metrics.passed(metrics.Stage.ESCALATED, ctx.waited_s)

    return Effects([Message(message.topic, message.payload), receipt], record)
