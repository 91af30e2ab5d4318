"""One payload for many topics in one PUBLISH, with one answer: the outcomes that differ.

A service publishes on `$crowd` a MessagePack array of topics and payload; the PUBACK has the reason
codes other than success in the user property `outcomes`: `16:0,3-7;151:9` says that the topics at
0, and from 3 to 7, have no subscriber, and that at 9 no room. CONNACK says by the user property
`crowd` that this is understood. No other MQTT broker knows it.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from broker.edge.packets import BadPacketError, Publish
from broker.edge.reasons import Reason
from broker.edge.topic_filters import is_topic_name

TOPIC = "$crowd"
OUTCOMES = "outcomes"
ANNOUNCED = (("crowd", "1"),)
_WRITTEN_AT_ONCE = 32  # the first recipients read while the last are still routed

_decode = msgspec.msgpack.Decoder(tuple[list[str], bytes]).decode


def publish_crowd(
    publish: Publish, route: Callable[[Publish], tuple[Reason, bool]], write: Callable[[], None]
) -> tuple[str, bool]:
    """Route the payload to each topic; return the outcomes that differ, and whether they wait.

    `write` is called now and then to write what that comes to.

    Raises:
        BadPacketError: the payload has no topics, or one that is none.
    """
    try:
        topics, payload = _decode(publish.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadPacketError(Reason.PAYLOAD_FORMAT_INVALID) from None
    if publish.qos != 1 or publish.retain or not all(map(is_topic_name, topics)):
        raise BadPacketError(Reason.PAYLOAD_FORMAT_INVALID)
    waits = False
    reasons: list[Reason] = []
    for topic in topics:
        one = msgspec.structs.replace(publish, topic=topic, payload=payload)
        reason, must_wait = route(one)
        waits = waits or must_wait
        reasons.append(reason)
        if not len(reasons) % _WRITTEN_AT_ONCE:
            write()
    return outcomes(reasons), waits


def outcomes(reasons: Sequence[Reason]) -> str:
    """Return where each reason other than success stands."""
    places: dict[int, list[int]] = {}
    for place, reason in enumerate(reasons):
        if reason:
            places.setdefault(reason.value, []).append(place)
    return ";".join(f"{reason}:{','.join(_runs(some))}" for reason, some in places.items())


def _runs(places: Iterable[int]) -> list[str]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][1] == place - 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]
