"""One payload for many topics, in one packet where the MQTT broker takes that.

Our own does, and says so in CONNACK (`broker/edge/crowd.py` has the form). Any other gets a PUBLISH
for each topic.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from broker.mqtt.message import Message
from broker.mqtt.outbound import UserProperties
from broker.mqtt.reason_codes import REASON_OF, PubAckReasonCode

_TOPIC = "$crowd"
_OUTCOMES, _ANNOUNCED = "outcomes", ("crowd", "1")
_MOST_BYTES = 128 * 1024  # of topics in one packet, so that it stays below any sane limit

_encode = msgspec.msgpack.Encoder().encode


def is_announced(user_properties: UserProperties) -> bool:
    """Whether the MQTT broker takes crowds, by what its CONNACK says."""
    return _ANNOUNCED in user_properties


def packets_for(message: Message, topics: Sequence[str]) -> Iterator[tuple[Message, int]]:
    """Yield messages to publish in the place of `message` on each topic, and how many each is for."""
    first = size = 0
    for place, topic in enumerate(topics):
        size += len(topic) + 3
        if size > _MOST_BYTES:
            yield _packet(message, topics[first:place]), place - first
            first, size = place, len(topic) + 3
    if first < len(topics):
        yield _packet(message, topics[first:]), len(topics) - first


def _packet(message: Message, topics: Sequence[str]) -> Message:
    return replace(message, topic=_TOPIC, payload=_encode((topics, message.payload)))


def outcomes_of(
    reason: PubAckReasonCode, user_properties: UserProperties, count: int
) -> list[PubAckReasonCode]:
    """Return the outcome for each topic, by the PUBACK of a packet for so many."""
    found = [reason] * count
    for name, text in user_properties:
        if name == _OUTCOMES:
            for row in filter(None, text.split(";")):
                code, _, places = row.partition(":")
                for run in places.split(","):
                    start, _, last = run.partition("-")
                    for place in range(int(start), int(last or start) + 1):
                        found[place] = REASON_OF[int(code)]
    return found
