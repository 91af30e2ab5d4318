"""A process of the simulated city, which may be killed: then nothing of it goes out or comes in."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from verify.simulation.virtual_time import VirtualLoop


@dataclass(slots=True)
class Process:
    """What the connections of one process share: time, dice, and whether it is dead.

    `on_take` is called when the process takes something up, from MQTT or a stream.
    """

    loop: VirtualLoop
    rng: random.Random
    delay: Callable[[], float]
    on_take: Callable[[], None]
    dead: bool = False
