"""What devices and desks publish retained: cleared, because it would outlive what it says.

A position that the MQTT broker keeps survives its owner's withdrawal. What comes retained while we
are subscribed is cleared by dispatch; here is found what was published when nobody was, since a
shared subscription brings no retained message (MQTT 5, 4.8.2). A retained report is still a report:
each is published once more, not retained, and so handled as usual.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from broker.mqtt import Message
from broker.runtime.service import NOTHING, Context, Effects
from schemas.topics import TOPICS, Topic

EVERY_S = 300.0

_log = structlog.get_logger()


def read_alone(contract: Sequence[Topic[Any]] = TOPICS) -> tuple[str, ...]:
    """Return filters of what services only read: whole branches where they publish nothing."""
    sent = [one.filter() for one in contract if not one.is_received]
    read = (_branch_or_topic(one.filter(), sent) for one in contract if one.is_received)
    return tuple(dict.fromkeys(read))


def _branch_or_topic(topic: str, sent: Iterable[str]) -> str:
    branch = topic.rpartition("/")[0] + "/"
    return topic if any(one.startswith(branch) for one in sent) else f"{branch}#"


_FILTERS = read_alone()


def cleared(topics: Iterable[str], broker_index: int | None = None) -> list[Message]:
    """Return what makes the MQTT broker forget the retained messages of topics (3.3.1.3)."""
    return [Message(topic, b"", retain=True, broker_index=broker_index) for topic in topics]


async def clear_retained(ctx: Context) -> Effects:
    """Handle and clear what is retained on the topics that services read; by one worker."""
    if ctx.store is not ctx.partitions.first:
        return NOTHING
    messages: list[Message] = []
    for server in ctx.servers:
        if await ctx.store.mqtt_outages.of(server.number).look_for_retained():
            for message in await server.retained(_FILTERS):
                again = replace(message, retain=False, broker_index=server.number)
                messages += [again, *cleared([message.topic], server.number)]
    if not messages:
        return NOTHING
    _log.warning("retained messages are handled and cleared", count=len(messages) // 2)
    return Effects(messages)
