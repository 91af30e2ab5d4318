"""How a connection is made: with a time limit at the start, without one later."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator

import structlog
from mqtt5 import ConnAckReasonCode

from broker.mqtt.mqtt_errors import ConnectRefused, MqttError, SessionTakenOver, Unreachable
from broker.mqtt.transport import SessionTransport

ATTEMPT_TIMEOUT_S = 10.0
# Refusals that may be temporary. Any other needs the operator, and ends the first connect at once.
_PASSING_REFUSALS = (
    ConnAckReasonCode.SERVER_UNAVAILABLE,
    ConnAckReasonCode.SERVER_BUSY,
    ConnAckReasonCode.CONNECTION_RATE_EXCEEDED,
)

_log = structlog.get_logger(__name__)

Attempt = Callable[[float], Awaitable[SessionTransport]]


async def connect_first(
    attempt: Attempt, delays: Iterator[float], within_s: float, where: str
) -> SessionTransport:
    """Attempt until one succeeds.

    Raises:
        Unreachable: no attempt succeeded in time.
        ConnectRefused: the MQTT broker refused, for a reason that does not pass.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + within_s
    for delay_s in delays:
        try:
            return await attempt(deadline - now())
        except ConnectRefused as error:
            if error.reason not in _PASSING_REFUSALS:
                raise error.at(where) from None
            problem: Exception = error
        except (OSError, MqttError) as error:
            problem = error
        if isinstance(problem, SessionTakenOver):
            raise problem
        hopeless = isinstance(problem, ssl.SSLCertVerificationError)
        if hopeless or now() + delay_s >= deadline:
            raise Unreachable(f"no MQTT broker at {where}: {problem}") from problem
        await asyncio.sleep(delay_s)
    raise AssertionError("the backoff never ends")


async def reconnect(attempt: Attempt, delays: Iterator[float], shown_as: str) -> SessionTransport:
    """Attempt until one succeeds, however long it takes."""
    for delay_s in delays:
        await asyncio.sleep(delay_s)
        try:
            return await attempt(ATTEMPT_TIMEOUT_S)
        except SessionTakenOver:
            raise
        except ConnectRefused as error:
            _log.error("mqtt connect refused", client_id=shown_as, why=str(error))
        except (OSError, MqttError) as error:
            _log.warning("mqtt connect failed", client_id=shown_as, why=str(error))
    raise AssertionError("the backoff never ends")
