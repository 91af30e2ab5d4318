"""What the police service sees to beside its messages: the outbox, and an MQTT broker that forgets.

An MQTT broker that dies forgets what it had acknowledged, and whoever starts it says nothing. So
whoever of the police service's workers comes to a server that may be a new one publishes the states
anew, and what was published lately; while one stays connected it bears witness that nothing died.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog

from broker.errors import Code
from broker.events import Change, IncidentChanged
from broker.mqtt import Message, PubAckReasonCode
from broker.service import NOTHING, Context, Effects
from broker.store import DeadLetter, Posted
from schemas.taxonomy import Desk

_log = structlog.get_logger()

_POLICE = "police"
_GIVE_UP_MS = 72 * 3_600_000
_LEASE_MS = 3_000  # so long whoever took a message from the outbox has to publish it
_KEPT_MS = 120_000  # so long what was published can be published again after an outage
_BACK_MS = 3_000  # after an outage, so long desks have to come back and subscribe
_BEHIND = 100  # so many entries may wait on the stream while states are published anew
_AGAIN, _LATE = 50, 300  # so many messages are published again at a time, while so few are late
_LOOK_S, _CLAIMED_S = 0.05, 0.5


async def restate(ctx: Context) -> Effects:
    """Have every retained state, and what was published lately, published anew, if need be.

    The server may be a new one, which knows nothing. It is not if it runs since before it was last
    known to have been given all, or if somebody did so while we were connected to it.
    """
    started_ms = await ctx.mqtt.started_at_ms()
    while True:
        heard = ctx.mqtt.heard_ms()
        if heard is None:
            return NOTHING  # it is gone again, and we shall be called again
        restored_ms = await ctx.store.outages.of(ctx.via).restored_ms()
        if restored_ms >= heard[0] or (started_ms is not None and restored_ms > started_ms):
            _log.info("kept by the MQTT broker", since_ms=started_ms)
            return NOTHING
        if await ctx.store.outages.of(ctx.via).restore():
            break
        await asyncio.sleep(_CLAIMED_S)
    repeated = await ctx.store.outbox.repeat(ctx.now_ms - _KEPT_MS, ctx.now_ms + _BACK_MS)
    restated = await _restate_all(ctx)
    now = ctx.mqtt.heard_ms()
    await ctx.store.outages.of(ctx.via).restored(now[1] if now and now[0] == heard[0] else heard[1])
    _log.info("published anew", states=restated, messages=repeated)
    return NOTHING


async def _restate_all(ctx: Context) -> int:
    """Put every incident that has a state on the stream, to be published; return how many."""
    restated = 0
    async for some in ctx.store.deadlines.incidents():
        while await ctx.store.events.length(_POLICE) > _BEHIND:
            await ctx.store.outages.of(ctx.via).restoring()
            await asyncio.sleep(_LOOK_S)
        await ctx.store.outages.of(ctx.via).restoring()
        stated = await ctx.store.incidents.with_state(some)
        await ctx.store.events.put(
            [
                IncidentChanged(incident=one, change=Change.RESTATED, at=ctx.now, desk=Desk.POLICE)
                for one in stated
            ]
        )
        restated += len(stated)
    return restated


async def witness(ctx: Context) -> Effects:
    """Bear witness that the servers of this moment are still those that were given all anew."""
    for server in ctx.servers:
        outages = ctx.store.outages.of(server.number)
        restored_ms = await outages.restored_ms()
        heard = server.heard_ms()  # after the wait: meanwhile a broken connection has been noticed
        if heard and heard[0] <= restored_ms < heard[1]:
            await outages.witnessed(heard[1])
    return NOTHING


async def publish_again(ctx: Context) -> Effects:
    """Let some of what is to be published again into the outbox, as long as little waits there.

    How much waits on the stream does not count: that may be our own restating, and an escalation
    that was lost must not wait for a hundred thousand states.
    """
    if (
        await ctx.store.outbox.has_again(ctx.now_ms)
        and await ctx.store.outbox.late(ctx.now_ms) < _LATE
    ):
        await ctx.store.outbox.next_again(ctx.now_ms, _AGAIN)
    return NOTHING


async def forget_published(ctx: Context) -> Effects:
    """Forget what was published long enough ago that no MQTT broker's death can undo it."""
    await ctx.store.outbox.forget(ctx.now_ms - _KEPT_MS)
    return NOTHING


async def make_sure(ctx: Context) -> Effects:
    """Publish what was committed and not recorded as published by whoever should have."""
    taken = await ctx.store.outbox.take(ctx.now_ms, lease_ms=_LEASE_MS)
    due = [message for message in taken if message.due_ms >= ctx.now_ms - _GIVE_UP_MS]
    if len(due) < len(taken):
        await _give_up([message for message in taken if message not in due], ctx)
    if not due:
        return NOTHING
    late_ms = ctx.now_ms - min(message.due_ms for message in due)
    _log.info("publishing from the outbox", messages=len(due), late_ms=late_ms)
    return Effects(
        [Message(message.topic, message.payload, retain=message.retain) for message in due],
        partial(strike_off, ctx, due),
    )


async def _give_up(stale: Sequence[Posted], ctx: Context) -> None:
    """Lay aside what nobody has subscribed to for days, for an operator to see."""
    for message in stale:
        _log.error("nobody has taken a message", id=message.id)
        letter = DeadLetter(
            id=UUID(message.id),
            at=ctx.now,
            service=_POLICE,
            topic=message.topic,
            payload=message.payload,
            code=Code.EXPIRED,
            field="$",
            reason="For 72 hours nobody subscribed to its topic, or the MQTT broker refused it.",
            outgoing=True,
        )
        await ctx.store.dead_letters.keep(letter)
    await ctx.store.outbox.give_up([message.id for message in stale])


async def strike_off(
    ctx: Context, posted: Sequence[Posted], outcomes: Sequence[PubAckReasonCode]
) -> None:
    """Record what was published; what nobody took, or the broker refused, is tried again later."""
    taken = [outcome.was_taken for outcome in outcomes]
    await ctx.store.outbox.settle(posted, taken, now_ms=ctx.now_ms)
