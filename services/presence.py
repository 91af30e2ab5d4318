"""Presence: keeps where people are, in batches, and notices who comes near an open incident."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from broker.core.changes import WalkedIn
from broker.core.grid import centre_of, distance_m, place_of
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime import metrics
from broker.runtime.retained import EVERY_S, clear_retained
from broker.runtime.service import NOTHING, Context, Effects, Service, outgoing
from broker.store import Hit, Update
from schemas import topics
from schemas.messages import TAKES_ALERTS, Outcome, Presence, Receipt, Subject

service = Service("presence", niceness=3)

_AHEAD = timedelta(minutes=5)


def in_time(presence: Presence, ctx: Context) -> None:
    """Refuse a place of the future, and one that would have expired already.

    A withdrawal always counts: a phone whose clock is wrong must still be able to hide.
    """
    if _withdraws(presence):
        return
    if presence.at > ctx.now + _AHEAD:
        raise Rejected(Code.TOO_FAR_AHEAD, "$.at", "The time is more than 5 minutes ahead of ours.")
    lifetime_s = ctx.policy.timers.presence_s
    if presence.at < ctx.now - timedelta(seconds=lifetime_s):
        raise Rejected(
            Code.TOO_OLD, "$.at", f"The position is older than {lifetime_s} s: it has expired."
        )


@service.on_batch(topics.PRESENCE, check=in_time)
async def update(batch: Sequence[tuple[Presence, Context]]) -> Effects:
    """Apply a batch; tell `alerting` who came into an open incident."""
    ctx = batch[-1][1]
    placed = [_update(presence, one) for presence, one in batch if not _is_inexact(presence, one)]
    updates = worth_applying(placed, ctx.now_ms)
    # Before the places: who is near is alerted from then on, and a small device hears briefs alone.
    if forms := {one.user: presence.form for presence, one in batch if presence.form is not None}:
        await ctx.store.forms.ask(forms, ctx.now_ms)
    hits = await ctx.partitions.update(
        updates, now_ms=ctx.now_ms, presence_s=ctx.policy.timers.presence_s
    )
    walked_in: dict[UUID, set[str]] = defaultdict(set)
    for hit in hits:
        if _is_inside(hit):
            walked_in[hit.incident].add(hit.user)
    await ctx.partitions.put(
        WalkedIn(incident=incident, users=tuple(sorted(users)))
        for incident, users in walked_in.items()
    )
    metrics.PRESENCE.inc(len(batch))
    receipts = [_receipt(presence, one) for presence, one in batch if _wants_receipt(one)]
    return Effects(receipts) if receipts else NOTHING


def worth_applying(updates: Sequence[Update], now_ms: int) -> list[Update]:
    """Leave out each place that a newer one replaces at once: it would be in effect for no time.

    `updates` are in the order in which they came, which decides between a withdrawal and a place:
    so what comes before and after a withdrawal is kept apart.
    """
    kept: dict[str, list[Update]] = defaultdict(list)
    for new in updates:
        mine = kept[new.user]
        if not mine or mine[-1].place is None or new.place is None:
            mine.append(new)
        # A clock that runs ahead must not make the next, better update look old.
        elif new.at_ms >= min(mine[-1].at_ms, now_ms):
            mine[-1] = new
    return [update for mine in kept.values() for update in mine]


def _update(presence: Presence, ctx: Context) -> Update:
    place = None
    if not _withdraws(presence) and presence.location is not None:
        place = place_of(presence.location.lat, presence.location.lon)
    at_ms = int(presence.at.timestamp() * 1000)
    if _withdraws(presence) and at_ms < ctx.now_ms - ctx.policy.timers.presence_s * 1000:
        # A device without a clock says the same time each time: this is no repeat of the last one.
        at_ms = ctx.now_ms
    return Update(ctx.user, place, presence.availability, at_ms, broker_index=ctx.broker_index)


def _withdraws(presence: Presence) -> bool:
    return presence.availability not in TAKES_ALERTS


def _is_inexact(presence: Presence, ctx: Context) -> bool:
    """Whether it says too little to alert anyone by: then it counts as not sent."""
    if _withdraws(presence) or presence.location is None:
        return False
    return presence.location.accuracy_m > ctx.policy.max_presence_accuracy_m


def _is_inside(hit: Hit) -> bool:
    if hit.radius_m <= 0:
        return False
    return distance_m(hit.lat, hit.lon, *centre_of(hit.place)) <= hit.radius_m


def _wants_receipt(ctx: Context) -> bool:
    """Whether the sender asked, by a response topic that is their own and no other.

    Or is to hear what was odd in it: it may be why they get no alerts, or get them.
    """
    if ctx.notes:
        return True
    wanted = ctx.message and ctx.message.response_topic
    return bool(wanted) and wanted == topics.RECEIPT.topic(user=ctx.user)


def _receipt(presence: Presence, ctx: Context) -> Message:
    notes = ctx.notes
    if _is_inexact(presence, ctx):
        least_m = ctx.policy.max_presence_accuracy_m
        told = (
            f"location.accuracy_m: above {least_m} m: you are alerted only where you were before, "
            "until that position expires."
        )
        notes = (*notes, told)
    receipt = Receipt(subject=Subject.PRESENCE, outcome=Outcome.ACCEPTED, at=ctx.now, notes=notes)
    return outgoing(
        topics.RECEIPT,
        receipt,
        correlation=ctx.correlation,
        broker_index=ctx.broker_index,
        user=ctx.user,
    )


@service.every(60.0)
async def forget(ctx: Context) -> Effects:
    """Erase places whose time is over, also of those whose neighbours keep a cell alive."""
    await ctx.store.forms.forget(ctx.now_ms)
    await ctx.store.presence.sweep(now_ms=ctx.now_ms, presence_s=ctx.policy.timers.presence_s)
    return NOTHING


service.every(EVERY_S)(clear_retained)
