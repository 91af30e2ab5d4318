"""What a participant may have missed, drawn up again: alerts, group events and questions.

Also how a group event goes out to each who hears it, which is the same when it is news.
"""

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from broker.core.alerts import alert_of, brief_of
from broker.errors import Code, Rejected
from broker.mqtt import Message
from broker.runtime.service import NOTHING, Context, Effects, outgoing
from broker.store import People, SyncEvents, SyncRow
from schemas import topics
from schemas.messages import GroupEvent, Status, Subject, Sync

_SYNC_AT_MOST = 200  # incidents in one sync
AT_ONCE = 4

# So much a device's clock may be ahead of ours: what it says to have seen before `since` less this,
# it has seen.
_CLOCKS_DIFFER = timedelta(minutes=5)

_EPOCH = datetime.fromtimestamp(0, UTC)  # before it nothing of ours happened


def group_messages(
    event: GroupEvent, users: Iterable[str], people: People, ctx: Context
) -> list[Message]:
    """Return a group event for each of `users`, under the name that they have in the group."""
    expiry_s = ctx.policy.timers.silence_s
    return [
        outgoing(
            topics.GROUP,
            replace(event, you=people[user].name or None),
            expiry_s=expiry_s,
            user=user,
        )
        for user in users
    ]


async def take(request: Sync, ctx: Context) -> Effects:
    """Repeat what a participant may have missed; answer with the receipt."""
    if request.since > ctx.now + _CLOCKS_DIFFER:
        raise Rejected(
            Code.TOO_FAR_AHEAD, "$.since", "The time is more than 5 minutes ahead of ours."
        )
    request = replace(request, since=max(request.since, _EPOCH))
    # Few at once: after an outage every device asks, and what else this worker does must go on.
    async with ctx.exclusively(zlib.crc32(ctx.user.encode()) % AT_ONCE):
        if ctx.is_expired:
            return NOTHING  # the device has stopped waiting, and asks again when it is ready
        glimpses = await ctx.partitions.missed(
            ctx.user,
            request.since,
            _SYNC_AT_MOST,
            told_before=timedelta() if request.alerts else _CLOCKS_DIFFER,
        )
        new = [one for one in glimpses if one.lacks_any(request)]
        read = await ctx.partitions.read(new)
        wants_brief = ctx.user in await ctx.store.forms.short([ctx.user] if new else [])
        asked = await ctx.partitions.questions(ctx.user, request.since)
    messages = [outgoing(topics.QUESTION, question, user=ctx.user) for question in asked]
    for glimpse in new:
        if (missed := read.get(glimpse.incident)) is not None:
            if glimpse.lacks_alert(request):
                messages += _missed_alert(glimpse, missed, ctx, brief=wants_brief)
            messages += _missed_events(glimpse, missed, request, ctx)
    sure = request.since - _CLOCKS_DIFFER
    told = [one for one in glimpses if not one.confirmed and one.has_alert(request, sure)]
    if told:
        await ctx.partitions.confirm(told, ctx.user, ctx.now)
    receipt = ctx.accepted(Subject.SYNC)
    done = outgoing(topics.RECEIPT, receipt, correlation=ctx.correlation, user=ctx.user)
    return Effects([*messages, done])


def _missed_alert(
    glimpse: SyncRow, missed: SyncEvents, ctx: Context, *, brief: bool
) -> list[Message]:
    alert, incident = glimpse.alert, missed.incident
    if alert is None or incident is None or incident.status is Status.CLOSED:
        return []
    expires_at = alert.at + timedelta(seconds=ctx.policy.timers.silence_s)
    drawn_up = alert_of(
        incident, ctx.policy.advice, expires_at=expires_at, wave=alert.wave, reason=alert.reason
    )
    messages = [outgoing(topics.ALERT, drawn_up, user=ctx.user)]
    return (
        [*messages, outgoing(topics.BRIEF, brief_of(drawn_up), user=ctx.user)]
        if brief
        else messages
    )


def _missed_events(
    glimpse: SyncRow, missed: SyncEvents, request: Sync, ctx: Context
) -> list[Message]:
    people = {ctx.user: glimpse.member}
    told = missed.told_to(glimpse.member)
    events = [event for event in told if glimpse.lacks(event, request)]
    return [
        message for event in events for message in group_messages(event, [ctx.user], people, ctx)
    ]
