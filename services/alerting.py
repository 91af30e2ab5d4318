"""Alerting: alerts every eligible participant near an incident, nearest first, each once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, overload
from uuid import UUID

import structlog
from prometheus_client import Counter

from broker.core import changes
from broker.core.alerts import alert_of, brief_of
from broker.core.changes import Change, IncidentChanged, WalkedIn
from broker.core.incidents import Incident
from broker.core.recipients import recipients
from broker.mqtt import Message, PubAckReasonCode
from broker.mqtt.status import Told
from broker.runtime import metrics
from broker.runtime.service import NOTHING, Context, Effects, Service
from broker.store import Claimed
from broker.store.kernel.isolation import each
from broker.store.mqtt_outages import MqttOutages
from broker.store.place_index import reached_cells
from schemas import topics
from schemas.codec import encode
from schemas.messages import AlertReason, Status
from schemas.taxonomy import Desk

service = Service("alerting", niceness=1)
_log = structlog.get_logger()

_AGAIN = Counter("nabij_alerts_again", "Alerts sent again: unsent, or perhaps lost", ["why"])
_EXPIRED = Counter("nabij_alerts_expired", "Alerts that no device confirmed in time")

_POISON_MS = 60_000  # so long an incident that cannot be handled is left alone
_AT_ONCE = 500  # what claiming more takes, a report on its way has to wait for at Redis

_UPTIME_OFF_MS = (
    15_000  # an uptime is as old as a `sys_interval` when it is read, and in whole seconds
)

Vias = Mapping[str, int]  # the MQTT broker, of several, that each speaks on
_ANY: Vias = {}

_topic_of = topics.ALERT.by("user")


class _Kind(NamedTuple):
    """What the alerts of one wave, reason and time have in common: all but the topic."""

    payload: bytes
    brief: bytes
    expiry_s: int


_REASONS = {
    Change.OPENED: AlertReason.NEARBY,
    Change.RENEWED: AlertReason.NEARBY,
    Change.WIDENED: AlertReason.WIDENED,
}


@service.on(changes.INCIDENT_CHANGED, changes=_REASONS, desks={Desk.POLICE})
async def alert_nearby(change: IncidentChanged, ctx: Context) -> Effects:
    """Alert every eligible participant within the incident's radius, nearest first."""
    reason = _REASONS.get(change.change)
    if reason is None:
        return NOTHING
    filed = await ctx.store.incidents.get(change.incident)
    if filed is None:
        return NOTHING
    incident, partitions = filed.incident, ctx.partitions
    await partitions.add_beyond(incident)  # before people are read: who comes later finds it
    if not incident.alerts_people:
        return NOTHING
    people = await partitions.near(reached_cells(incident))
    users = recipients(people, incident, presence_s=ctx.policy.timers.presence_s, now=ctx.now)
    vias = {one.user: one.broker_index for one in people} if len(ctx.servers) > 1 else {}
    return await _alert(_Wave(incident, reason, change.at, vias), users, ctx, unsent=True)


@service.on(changes.WALKED_IN)
async def alert_arrivals(arrival: WalkedIn, ctx: Context) -> Effects:
    """Alert those who came into the radius of an incident that is still open."""
    filed = await ctx.store.incidents.get(arrival.incident)
    if filed is None or filed.incident.status is Status.CLOSED:
        return NOTHING
    wave = _Wave(filed.incident, AlertReason.WALKED_IN, ctx.now)
    return await _alert(wave, arrival.users, ctx)


class _Wave(NamedTuple):
    """Why people are alerted to an incident, since when, and by which MQTT broker each."""

    incident: Incident
    reason: AlertReason
    since: datetime
    vias: Vias = _ANY


async def _alert(
    wave: _Wave,
    users: Sequence[str],
    ctx: Context,
    *,
    unsent: bool = False,
    began: bool = False,
) -> Effects:
    """Alert `users`, some at a time: while these are sent, the next are claimed.

    With `unsent` also those whom a worker claimed before and died before it alerted them. The last of
    several portions (`began`: there was one before) tells that the incident's counts have changed.
    """
    some, others = users[:_AT_ONCE], users[_AT_ONCE:]
    incident, reason, since, vias = wave
    rest = partial(_alert, wave, others, ctx, began=True) if others else None
    retention_s = ctx.policy.timers.retention_s
    claimed, short = await asyncio.gather(
        ctx.store.alerts.claim(
            incident, some, reason=reason, now=ctx.now, retention_s=retention_s, unsent=unsent
        ),
        ctx.store.forms.short(some),
    )
    if rest and not claimed:
        return Effects(rest=rest)
    if not claimed and not began:
        return NOTHING
    told = incident.event(Change.ALERTED, ctx.now)

    alerts = _Alerts(incident, claimed, ctx, vias, short=short)

    async def record(outcomes: Sequence[PubAckReasonCode]) -> None:
        metrics.passed(metrics.Stage.ALERTED, ctx.clock.seconds() - since.timestamp(), len(claimed))
        both = alerts.of_both(outcomes)
        await _record(incident.id, claimed, both, ctx, told=None if rest else told)

    return Effects(alerts, record, rest)


class _Alerts(Sequence[Message]):
    """The messages of claimed alerts, each drawn up when it is sent: the first need not wait.

    Behind them the short ones, of those who want them too.
    """

    def __init__(
        self,
        incident: Incident,
        claimed: Sequence[Claimed],
        ctx: Context,
        vias: Vias = _ANY,
        *,
        short: frozenset[str],
    ) -> None:
        self._incident, self._claimed = incident, claimed
        self._briefs = [alert for alert in claimed if alert.user in short] if short else []
        self._vias = vias
        self._now, self._advice = ctx.now, ctx.policy.advice
        self._lasts = timedelta(seconds=ctx.policy.timers.silence_s)
        self._kinds: dict[tuple[int, AlertReason, datetime], _Kind] = {}

    def __len__(self) -> int:
        return len(self._claimed) + len(self._briefs)

    def __iter__(self) -> Iterator[Message]:
        return chain(map(self._message, self._claimed), map(self._brief, self._briefs))

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return [self._at(position) for position in range(*index.indices(len(self)))]
        return self._at(index if index >= 0 else index + len(self))

    def _at(self, position: int) -> Message:
        if position < len(self._claimed):
            return self._message(self._claimed[position])
        return self._brief(self._briefs[position - len(self._claimed)])

    def of_both(self, outcomes: Sequence[PubAckReasonCode]) -> Sequence[PubAckReasonCode]:
        """Return what became of each alert, in both of its forms."""
        if not self._briefs:
            return outcomes
        briefs = zip(
            (one.user for one in self._briefs), outcomes[len(self._claimed) :], strict=True
        )
        brief_of_user = dict(briefs)
        return [
            _of_both(outcome, brief_of_user.get(one.user, outcome))
            for one, outcome in zip(self._claimed, outcomes, strict=False)
        ]

    def _message(self, alert: Claimed) -> Message:
        kind = self._kind(alert)
        return self._to(alert.user, _topic_of(alert.user), kind.payload, kind)

    def _brief(self, alert: Claimed) -> Message:
        kind = self._kind(alert)
        return self._to(alert.user, topics.BRIEF.topic(user=alert.user), kind.brief, kind)

    def _to(self, user: str, topic: str, payload: bytes, kind: _Kind) -> Message:
        return Message(
            topic,
            payload,
            qos=topics.ALERT.qos,
            expiry_s=kind.expiry_s,
            broker_index=self._vias.get(user),
        )

    def _kind(self, alert: Claimed) -> _Kind:
        kind = self._kinds.get(alert[1:4])
        if kind is None:
            kind = self._kinds[alert[1:4]] = self._drawn_up(alert)
        return kind

    def _drawn_up(self, claimed: Claimed) -> _Kind:
        # Whenever it is sent, an alert expires at the same moment: that of its record.
        expires_at = claimed.at + self._lasts
        alert = alert_of(
            self._incident,
            self._advice,
            expires_at=expires_at,
            wave=claimed.wave,
            reason=claimed.reason,
        )
        expiry_s = max(1, int((expires_at - self._now).total_seconds()))
        return _Kind(encode(alert), encode(brief_of(alert)), expiry_s)


def _of_both(full: PubAckReasonCode, brief: PubAckReasonCode) -> PubAckReasonCode:
    """Return what is recorded: a small device subscribes to one form, and that one must be taken."""
    if PubAckReasonCode.NO_MATCHING_SUBSCRIBERS in (full, brief):
        return brief if full is PubAckReasonCode.NO_MATCHING_SUBSCRIBERS else full
    return brief if full.was_taken else full


async def _record(
    incident: UUID,
    claimed: Sequence[Claimed],
    outcomes: Sequence[PubAckReasonCode],
    ctx: Context,
    *,
    told: IncidentChanged | None = None,
) -> None:
    """Record each alert with the reason code of its PUBACK."""
    sent: list[Claimed] = []
    refused: list[Claimed] = []
    into = {one: (sent if one.was_taken else refused, one.name) for one in set(outcomes)}
    for (user, wave, reason, at, tries, _), outcome in zip(claimed, outcomes, strict=True):
        some, code = into[outcome]
        some.append(Claimed(user, wave, reason, at, tries, code))
    await ctx.store.alerts.record_alerts(
        incident,
        sent=sent,
        refused=refused,
        now=ctx.clock.now(),
        event=told,
    )


# -- what has not arrived ------------------------------------------------------------------------


@service.every(0.5)
async def see_to_unconfirmed(ctx: Context) -> Effects:
    """Send again what was refused, or claimed by a worker that died; expire what is too late."""
    await ctx.store.deadlines.follow(ctx.clock.adopted)  # else what is set now moves along too
    due = await ctx.store.alerts.due(ctx.now_ms)
    return await _again(due, ctx, why="unsent")


@service.every(5.0)
async def resend_lost(ctx: Context) -> Effects:
    """Send again what an MQTT broker may have lost lately.

    One that has dropped messages says only how many. One that was killed forgets what it had not
    saved; devices ask when they are back, but services may be busy then.
    """
    losses: list[_RecordLoss] = []
    for server in ctx.servers:
        told, mqtt_outages = await server.told(), ctx.store.mqtt_outages.of(server.number)
        found = (await _dropped(told, mqtt_outages), await _restarted(told, mqtt_outages))
        losses += [loss for loss in found if loss is not None]
    if not losses:
        return NOTHING
    effects = await _again(await ctx.store.alerts.unconfirmed(), ctx, why="lost", doubted=True)

    async def record(outcomes: Sequence[PubAckReasonCode]) -> None:
        if effects.record is not None:
            await effects.record(outcomes)
        for record_loss in losses:
            await record_loss()

    return Effects(effects.messages, record)


_RecordLoss = Callable[[], Awaitable[None]]


async def _dropped(told: Told, mqtt_outages: MqttOutages) -> _RecordLoss | None:
    count, resent_for = told.dropped, await mqtt_outages.dropped()
    if count is None or count == resent_for:
        return None
    if not count:  # it has restarted
        await mqtt_outages.record_resent(0)
        return None
    _log.warning("the MQTT broker has dropped messages", now=count, before=resent_for)
    return partial(mqtt_outages.record_resent, count)


async def _restarted(told: Told, mqtt_outages: MqttOutages) -> _RecordLoss | None:
    started_ms, known_ms = told.started_at_ms, await mqtt_outages.started_ms()
    if started_ms is None or started_ms <= known_ms + _UPTIME_OFF_MS:
        return None
    if not known_ms:
        await mqtt_outages.record_started(started_ms)
        return None
    _log.warning("the MQTT broker has restarted", since_ms=started_ms)
    return partial(mqtt_outages.record_started, started_ms)


class _Again(NamedTuple):
    """What is sent again of one incident."""

    incident: UUID
    claimed: list[Claimed]
    alerts: _Alerts
    messages: list[Message]

    def __str__(self) -> str:
        return str(self.incident)


async def _again(
    identifiers: Sequence[UUID], ctx: Context, *, why: str, doubted: bool = False
) -> Effects:
    """Go through the unconfirmed alerts of these incidents; send what is to be sent again."""

    async def look(identifier: UUID) -> _Again | None:
        claimed, expired = await ctx.store.alerts.sweep_unconfirmed(
            identifier,
            now=ctx.now,
            lasts_s=ctx.policy.timers.silence_s,
            doubted=doubted,
        )
        _EXPIRED.inc(expired)
        filed = await ctx.store.incidents.get(identifier) if claimed else None
        if filed is None:
            return None
        _log.info("alerts sent again", incident=str(identifier), count=len(claimed), why=why)
        short = await ctx.store.forms.short([one.user for one in claimed])
        alerts = _Alerts(filed.incident, claimed, ctx, short=short)
        return _Again(identifier, claimed, alerts, [*alerts])

    postpone = partial(ctx.store.alerts.postpone, until_ms=ctx.now_ms + _POISON_MS)
    rounds = await each(identifiers, look, what="unconfirmed alerts", postpone=postpone)
    if not rounds:
        return NOTHING
    messages = [message for one in rounds for message in one.messages]
    _AGAIN.labels(why).inc(len(messages))

    return Effects(messages, partial(_record_all, rounds, ctx))


async def _record_all(
    rounds: Sequence[_Again], ctx: Context, outcomes: Sequence[PubAckReasonCode]
) -> None:
    told = iter(outcomes)
    some = {one.incident: one.alerts.of_both([*islice(told, len(one.alerts))]) for one in rounds}

    async def record_one(one: _Again) -> None:
        await _record(one.incident, one.claimed, some[one.incident], ctx)

    await each(rounds, record_one, what="record of alerts sent again")
