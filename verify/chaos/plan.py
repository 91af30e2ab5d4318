"""What is struck, how and when: drawn from the seed before anything runs."""

import enum
from dataclasses import dataclass
from random import Random

from services import ALL as SERVICES

PAUSES_PER_KILL = 0.25
PAUSE_S = (0.5, 3.0)
FROM, UNTIL = 0.03, 0.88  # of the reports: something must be going on, before and after


class Victim(enum.StrEnum):
    """What can be struck beside a worker of a service: a server, or a process of devices."""

    MQTT = "mqtt"
    REDIS = "redis"
    DEVICE = "device"


SERVERS = (Victim.MQTT, Victim.REDIS)
VICTIMS: tuple[str, ...] = (*Victim, *SERVICES)


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow, due when this share of the reports has its receipts; no pause: SIGKILL.

    `victim` is a Victim, or a service, of which one worker is struck. `pick` (0 to 1) says which
    worker or process of several; a pause is SIGSTOP for `pause_s`.
    """

    share: float
    victim: str
    pick: float
    pause_s: float | None = None


class HostChange(enum.StrEnum):
    """How the hosts of the services change while reports go on."""

    HOST_DIES = "host-dies"  # SIGKILL for all of it; it comes back under another name
    SCALE_UP = "scale-up"  # a host is started again with more workers
    SWAP = "swap"  # a new host starts, then one stops
    SCALE_DOWN = "scale-down"  # a host is started again with fewer workers
    ROLLING_RESTART = "rolling-restart"  # each in turn
    ALL_DOWN = "all-down"  # all stop at once, and others start


@dataclass(frozen=True, slots=True)
class Rescale:
    """One change, due when this share of the reports has its receipts; `pick` says which host."""

    share: float
    change: HostChange
    pick: float


def rescales_of(rounds: int, seed: int) -> list[Rescale]:
    """Return so many rounds of all changes, in their order: fewer workers come after more."""
    random = Random(f"scale {seed}")
    changes = [*HostChange] * rounds
    return [
        Rescale(FROM + (UNTIL - FROM) * number / len(changes), change, random.random())
        for number, change in enumerate(changes)
    ]


def strikes_of(kills: int, seed: int) -> list[Strike]:
    """Return the blows in their order: so many kills, and pauses beside them.

    Every kind of victim has its turn before any has another.
    """
    random = Random(f"chaos {seed}")
    pauses = round(kills * PAUSES_PER_KILL)
    victims = _in_turn(random, kills) + _in_turn(random, pauses)
    lasts = [None] * kills + [random.uniform(*PAUSE_S) for _ in range(pauses)]
    shares = [
        FROM + (UNTIL - FROM) * (number + random.random()) / len(victims)
        for number in range(len(victims))
    ]
    blows = list(zip(victims, lasts, strict=True))
    random.shuffle(blows)
    return [
        Strike(share, victim, random.random(), pause_s)
        for share, (victim, pause_s) in zip(shares, blows, strict=True)
    ]


def _in_turn(random: Random, count: int) -> list[str]:
    victims: list[str] = []
    while len(victims) < count:
        victims += random.sample(VICTIMS, len(VICTIMS))
    return victims[:count]
