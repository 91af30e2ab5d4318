"""Relay: sends again what no desk and no user has confirmed, and raises the alarm for desks.

The services that commit escalations, cases and questions publish them at once. From then on this
service decides: a message is delivered when its reader confirms it (`up/receipt`, or a `sync` that
names it). What no desk has confirmed within the policy's `unattended_s` is told to operators, and
climbs to the duty desk.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog

from broker.core.resending import TURN_MS
from broker.errors import Code
from broker.mqtt import Message
from broker.runtime import metrics
from broker.runtime.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import Alarm, DeadLetter, OutboxMessage, Reader, Undelivered
from broker.store.kernel.isolation import each
from broker.store.outbox_messages import Due, DutyDesk
from schemas import topics
from schemas.messages import DeliveryReceipt, DeskSync, Receipt, Subject, Unattended
from schemas.taxonomy import Desk

service = Service("relay", niceness=2)
_log = structlog.get_logger()

_GIVE_UP_MS = 72 * 3_600_000
_GIVE_UP_TRIES = 800  # in 72 hours there are more: a clock that jumped makes no message old
_REPEAT_ALARM_MS = 60_000
_ALARM_EXPIRY_S = 300  # an MQTT broker that is killed may bring a cleared alarm back
_EXPIRY_SLACK_S = 5

Batch = Sequence[tuple[DeliveryReceipt, Context]]


# -- the reader's word ---------------------------------------------------------------------------


@service.on_batch(topics.DESK_DELIVERED)
@service.on_batch(topics.CITY_DELIVERED)
@service.on_batch(topics.DELIVERED)
async def take_receipts(batch: Batch) -> Effects:
    """Remove from the outbox what its readers say to have."""
    said: dict[Reader, set[str]] = defaultdict(set)
    for receipt, ctx in batch:
        said[_sender(ctx)].update(map(str, receipt.ids))
    await _take_word(said, batch[-1][1])
    return NOTHING


@service.on(topics.DESK_SYNC)
@service.on(topics.CITY_SYNC)
async def take_sync(request: DeskSync, ctx: Context) -> Effects:
    """Take the word of a desk, have what it lacks sent again, and say so."""
    if ctx.is_expired:
        return NOTHING  # the desk has stopped waiting, and asks again
    await _send_what_it_lacks(request, ctx)
    return Effects([_to_desk(ctx.accepted(Subject.SYNC), _sender(ctx), ctx)])


def _to_desk(receipt: Receipt, desk: Reader, ctx: Context) -> Message:
    if desk.kind == Desk.CITY:
        return outgoing(
            topics.CITY_RECEIPT, receipt, correlation=ctx.correlation, municipality=desk.name
        )
    return outgoing(topics.COMMAND_RECEIPT, receipt, correlation=ctx.correlation, zone=desk.name)


async def _send_what_it_lacks(request: DeskSync, ctx: Context) -> None:
    """Send again what a desk has not; the duty desk is sent what waits for any."""
    desk = _sender(ctx)
    has = frozenset(map(str, request.has))
    await _take_word({desk: has}, ctx)
    desks = [desk]
    if desk == _duty_desk(ctx):
        desks += [one.reader for one in await _late(ctx) if one.reader.kind == desk.kind]
    for one in dict.fromkeys(desks):
        await ctx.partitions.send_again(one, but=has)


async def _take_word(said: Mapping[Reader, Collection[str]], ctx: Context) -> None:
    delivered = await ctx.partitions.delivered(said, now_ms=ctx.now_ms, duty=_duty_desk(ctx))
    desks = [reader for reader in said if reader.is_desk]
    await ctx.store.desks.record_heard(desks, ctx.now_ms)
    now_s = ctx.clock.seconds()
    for message in delivered:
        if message.reader.is_desk:
            metrics.passed(metrics.Stage.DELIVERED, now_s - message.made_ms / 1000)


def _sender(ctx: Context) -> Reader:
    assert ctx.message is not None
    return Reader.of(ctx.message.topic)


def _duty_desk(ctx: Context) -> Reader | None:
    zone = ctx.policy.duty_zone
    return Reader(Desk.POLICE, zone) if zone else None


# -- sending again -------------------------------------------------------------------------------


@service.every(TURN_MS / 1000)
async def relay_due(ctx: Context) -> Effects:
    """Send what was committed and not confirmed, if it is lost or its reader says nothing."""
    await ctx.store.deadlines.follow(ctx.clock.adopted)  # else what is taken moves along twice
    duty = _duty_desk(ctx)
    climb = DutyDesk(duty, _unattended_ms(ctx)) if duty else None
    taken = await ctx.store.outbox.take(ctx.now_ms, duty=climb)
    stale = await _stale([one.message for one in taken], ctx)
    await _give_up(stale.values(), ctx)
    due = [one for one in taken if one.message.id not in stale]
    if not due:
        return NOTHING
    late_ms = ctx.now_ms - min(one.message.due_ms for one in due)
    _log.debug("publishing from the outbox", messages=len(due), late_ms=late_ms)
    return Effects([sent for one in due for sent in _copies(one, duty)])


def _copies(due: Due, duty: Reader | None) -> Iterator[Message]:
    """Return the message for its reader, for the duty desk, or both.

    Each copy expires when the next is sent: a session that is not read holds one, not hundreds.
    """
    message, expiry_s = due.message, due.wait_ms // 1000 + _EXPIRY_SLACK_S
    if due.to_reader:
        yield Message(message.topic, message.payload, expiry_s=expiry_s)
    if due.climbs and duty:
        levels = topics.ESCALATION.parse(message.topic) or {}
        climbed = topics.ESCALATION.topic(zone=duty.name, priority=levels["priority"])
        yield Message(climbed, message.payload, expiry_s=expiry_s)


async def _stale(taken: Sequence[OutboxMessage], ctx: Context) -> dict[str, OutboxMessage]:
    """Return what is old, and was sent as often as what is so old."""
    old = [message for message in taken if message.made_ms < ctx.now_ms - _GIVE_UP_MS]
    tries = await ctx.store.outbox.tries(old)
    return {
        message.id: message
        for message, count in zip(old, tries, strict=True)
        if count >= _GIVE_UP_TRIES
    }


async def _give_up(stale: Iterable[OutboxMessage], ctx: Context) -> None:
    """Lay aside what its reader has not confirmed for days, for an operator to see."""

    async def lay_aside(message: OutboxMessage) -> None:
        _log.error("no reader has confirmed a message", id=message.id)
        letter = DeadLetter(
            id=UUID(message.id),
            at=ctx.now,
            service=service.name,
            topic=message.topic,
            payload=message.payload,
            code=Code.EXPIRED,
            field="$",
            reason="For 72 hours its reader has not confirmed it.",
            outgoing=True,
        )
        await ctx.store.dead_letters.keep(letter)

    async def give_up(message: OutboxMessage) -> None:
        await lay_aside(message)
        await ctx.store.outbox.remove([message])

    await each(stale, give_up, what="a message that nobody confirms")


# -- the alarm -----------------------------------------------------------------------------------


@service.every(1.0)
async def alarm_unattended(ctx: Context) -> Effects:
    """Tell operators of each desk that has not confirmed a message in time, and when it has."""
    if ctx.store is not ctx.partitions.first:
        return NOTHING  # the first speaks for all
    late = {one.reader: one for one in await _late(ctx)}
    known = await ctx.store.desks.alarms()
    raised = [await _raise(one, known.get(desk), ctx) for desk, one in late.items()]
    ended = [desk for desk in known if desk not in late]
    messages = [*(one for one in raised if one), *map(_cleared, ended)]

    async def record(_: object) -> None:
        for desk in ended:  # not before: a worker that dies now has it cleared by another
            await _end(desk, known[desk], ctx)

    return Effects(messages, record) if messages else NOTHING


async def _late(ctx: Context) -> list[Undelivered]:
    undelivered = await ctx.partitions.undelivered()
    return [one for one in undelivered.values() if _is_late(one.oldest_ms, ctx)]


def _is_late(made_ms: int, ctx: Context) -> bool:
    """Whether it was committed too long ago, or by a clock that went back since."""
    return not 0 <= ctx.now_ms - made_ms < _unattended_ms(ctx)


def _unattended_ms(ctx: Context) -> int:
    return ctx.policy.timers.unattended_s * 1000


async def _raise(late: Undelivered, known: Alarm | None, ctx: Context) -> Message | None:
    """Return what operators are told, once a minute by one of the workers."""
    if known is not None and known.told_ms > ctx.now_ms - _REPEAT_ALARM_MS:
        return None
    desk = late.reader
    since_ms = known.since_ms if known else ctx.now_ms
    if not await ctx.store.desks.set_alarm(desk, known, Alarm(since_ms, ctx.now_ms)):
        return None  # another worker tells it
    age_s = (ctx.now_ms - late.oldest_ms) // 1000
    _log.error(
        "no desk takes what is sent to it", desk=str(desk), messages=late.messages, oldest_s=age_s
    )
    alarm = Unattended(
        desk=Desk(desk.kind),
        zone=desk.name,
        count=late.messages,
        oldest_at=datetime.fromtimestamp(late.oldest_ms / 1000, UTC),
        at=ctx.now,
    )
    return outgoing(
        topics.UNATTENDED, alarm, expiry_s=_ALARM_EXPIRY_S, desk=desk.kind, zone=desk.name
    )


def _cleared(desk: Reader) -> Message:
    """Return what clears the alarm that operators were told (MQTT 5, 3.3.1.3)."""
    topic = topics.UNATTENDED.topic(desk=desk.kind, zone=desk.name)
    return Message(topic, b"", retain=True)


async def _end(desk: Reader, known: Alarm, ctx: Context) -> None:
    if await ctx.store.desks.set_alarm(desk, known, None):
        since_s = (ctx.now_ms - known.since_ms) // 1000
        _log.warning("nothing waits for a desk any more", desk=str(desk), unattended_s=since_s)
