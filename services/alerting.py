"""Alerting: alerts every eligible participant near an incident, nearest first, each once."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker import events, metrics
from broker.core.alerts import alerts_of
from broker.core.grid import cover
from broker.core.incidents import Incident
from broker.core.recipients import recipients
from broker.events import Change, IncidentChanged, WalkedIn
from broker.mqtt import PubAckReasonCode
from broker.service import NOTHING, Context, Effects, Service, outgoing
from schemas import topics
from schemas.messages import AlertReason, Status

service = Service("alerting")

_REASONS = {Change.OPENED: AlertReason.NEARBY, Change.WIDENED: AlertReason.WIDENED}


@service.on(events.INCIDENT_CHANGED)
async def alert_nearby(change: IncidentChanged, ctx: Context) -> Effects:
    """Alert every eligible participant within the incident's radius, nearest first."""
    reason = _REASONS.get(change.change)
    if reason is None:
        return NOTHING
    filed = await ctx.store.incidents.get(change.incident)
    if filed is None or not filed.incident.alerts_people:
        return NOTHING
    incident = filed.incident
    place = incident.location
    people = await ctx.store.presence.near(cover(place.lat, place.lon, incident.radius_m))
    users = recipients(people, incident, presence_s=ctx.policy.timers.presence_s, now=ctx.now)
    return await _alert(incident, users, ctx, reason=reason, since=change.at)


@service.on(events.WALKED_IN)
async def alert_arrivals(arrival: WalkedIn, ctx: Context) -> Effects:
    """Alert those who came into the radius of an incident that is still open."""
    filed = await ctx.store.incidents.get(arrival.incident)
    if filed is None or filed.incident.status is Status.CLOSED:
        return NOTHING
    return await _alert(
        filed.incident, arrival.users, ctx, reason=AlertReason.WALKED_IN, since=ctx.now
    )


async def _alert(
    incident: Incident, users: Sequence[str], ctx: Context, *, reason: AlertReason,
    since: datetime,
) -> Effects:  # fmt: skip
    category = ctx.policy.category(incident.category)
    assert category is not None  # it was checked when the incident opened
    claimed = await ctx.store.incidents.claim(
        incident, users, reason=reason, now=ctx.now, retention_s=ctx.policy.timers.retention_s
    )
    if not claimed:
        return NOTHING
    draw_up = alerts_of(incident, category, ctx.policy.advice, expires_at=_expiry(ctx))
    messages = [
        outgoing(
            topics.ALERT,
            draw_up(alert.user, alert.wave, alert.reason),
            expiry_s=ctx.policy.timers.silence_s,
            user=alert.user,
        )
        for alert in claimed
    ]

    async def record(outcomes: Sequence[PubAckReasonCode]) -> None:
        metrics.passed(metrics.Stage.ALERTED, time.time() - since.timestamp(), len(claimed))
        pairs = list(zip(claimed, outcomes, strict=True))
        await ctx.store.incidents.record_alerts(
            incident.id,
            sent=[alert for alert, outcome in pairs if not outcome.is_failure],
            refused=[alert for alert, outcome in pairs if outcome.is_failure],
            now=ctx.now,
            event=IncidentChanged(
                incident=incident.id, change=Change.ALERTED, at=ctx.now, desk=incident.desk
            ),
        )

    return Effects(messages, record)


def _expiry(ctx: Context) -> datetime:
    return ctx.now + timedelta(seconds=ctx.policy.timers.silence_s)
