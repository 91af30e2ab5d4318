"""How long to wait before the next attempt to connect."""

import random
from collections.abc import Iterator

_FIRST_S = 0.1
_MAX_S = 10.0


def full_jitter(dice: random.Random) -> Iterator[float]:
    """Seconds to wait, forever: uniform below a bound that doubles from 0.1 s to 10 s.

    Full jitter spreads the return of all services to a restarted MQTT broker best
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    bound_s = _FIRST_S
    while True:
        yield dice.uniform(0, bound_s)
        bound_s = min(_MAX_S, bound_s * 2)
