"""The retained states, and an MQTT broker that forgets them.

An MQTT broker that dies forgets what it had acknowledged, and its successor says nothing. So a
worker of the police service that comes to a server that may be a new one publishes the states
again; while one stays connected it records that the server is the same. Messages need none of it:
they are sent until their reader confirms them (`services/relay.py`).
"""

import asyncio

import structlog

from broker.core.changes import Change, IncidentChanged
from broker.runtime.service import NOTHING, Context, Effects
from schemas.taxonomy import Desk

_log = structlog.get_logger()

_POLICE = "police"
_BEHIND = 100  # so many entries may wait on the stream while states are published again
_LOOK_S, _CLAIMED_S = 0.05, 0.5


async def republish_all(ctx: Context) -> Effects:
    """Have every retained state published again, if need be.

    The server may be a new one, which knows nothing. It is not if it runs since before it was last
    known to have been given all, or if a worker did so while we were connected to it.
    """
    started_ms = (await ctx.mqtt.told()).started_at_ms
    while True:
        heard = ctx.mqtt.heard_ms()
        if heard is None:
            return NOTHING  # it is gone again, and we shall be called again
        restored_ms = await ctx.store.mqtt_outages.of(ctx.broker_index).restored_ms()
        if restored_ms >= heard[0] or (started_ms is not None and restored_ms > started_ms):
            _log.info("kept by the MQTT broker", since_ms=started_ms)
            return NOTHING
        if await ctx.store.mqtt_outages.of(ctx.broker_index).restore():
            break
        await asyncio.sleep(_CLAIMED_S)
    restated = await enqueue_all_states(ctx)
    now = ctx.mqtt.heard_ms()
    await ctx.store.mqtt_outages.of(ctx.broker_index).restored(
        now[1] if now and now[0] == heard[0] else heard[1]
    )
    _log.info("retained states published again", states=restated)
    return NOTHING


async def enqueue_all_states(ctx: Context) -> int:
    """Put every incident that has a state on the stream, to be published; return how many."""
    restated = 0
    async for some in ctx.store.deadlines.incidents():
        while await ctx.store.events.length(_POLICE) > _BEHIND:
            await ctx.store.mqtt_outages.of(ctx.broker_index).restoring()
            await asyncio.sleep(_LOOK_S)
        await ctx.store.mqtt_outages.of(ctx.broker_index).restoring()
        stated = await ctx.store.incidents.with_state(some)
        await ctx.store.events.put(
            [
                IncidentChanged(incident=one, change=Change.RESTATED, at=ctx.now, desk=Desk.POLICE)
                for one in stated
            ]
        )
        restated += len(stated)
    return restated


async def record_still_restored(ctx: Context) -> Effects:
    """Record that the servers of this moment are still those that have all retained states."""
    for server in ctx.servers:
        mqtt_outages = ctx.store.mqtt_outages.of(server.number)
        restored_ms = await mqtt_outages.restored_ms()
        heard = server.heard_ms()  # after the wait, in which a broken connection is noticed
        if heard and heard[0] <= restored_ms < heard[1]:
            await mqtt_outages.still_restored(heard[1])
    return NOTHING
