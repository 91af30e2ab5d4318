"""The outcomes that tests of waiting use, and a turn of the loop."""

import asyncio

from broker.mqtt.mqtt_errors import ConnectionLost
from broker.mqtt.reason_codes import PubAckReasonCode

OK, FAILED = PubAckReasonCode.SUCCESS, PubAckReasonCode.UNSPECIFIED_ERROR

NOBODY = PubAckReasonCode.NO_MATCHING_SUBSCRIBERS

LOST = ConnectionLost("lost")


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)
