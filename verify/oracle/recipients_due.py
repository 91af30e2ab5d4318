"""Who had to be alerted to one incident, and who may have been: by plain distances.

A place, a radius and an open incident each are in effect possibly from the one moment on and
certainly from the other (see `coverage.py`). What is certain must be answered by an alert, what is
possible may be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.taxonomy import PolicyFile
from verify.oracle.coverage import (
    Places,
    Stay,
    Wave,
    certain_since,
    possible_since,
    stays_by_cell,
)
from verify.oracle.history import NEVER, SentPresence

LOOKING_M = 20_000.0  # so far away a place is named, to help find the error
VISITS = 3  # so many stays within the radius are named

# Whether a stay, within the radius for sure since one time and due since another, need not be alerted.
Excused = Callable[[Stay, float, float], bool]


class Near:
    """Who was where: cells by place, and the participants' stays in each."""

    def __init__(self, presences: Sequence[SentPresence], policy: PolicyFile) -> None:
        self.stays = stays_by_cell(presences, policy)
        self.places = Places(self.stays)

    def around(self, incident: "AlertingIncident") -> Sequence[tuple[float, int]]:
        """Return distance and cell of each place within the incident's widest radius."""
        if not incident.waves:
            return ()
        return self.places.within(incident.lat, incident.lon, incident.waves[-1].radius_m)


@dataclass(frozen=True, kw_only=True)
class AlertingIncident:
    """An incident, as far as alerts go; without waves nobody is alerted.

    `opened` is when the report that began it was sent and when it was confirmed; `reporters` the
    same of each reporter's first report, by the participant's number.
    """

    name: str
    lat: float
    lon: float
    opened: tuple[float, float]
    waves: Sequence[Wave]
    reporters: Mapping[int, tuple[float, float]]
    certain_until: float
    possible_until: float


def due(
    incident: AlertingIncident,
    near: Near,
    *,
    reporter_grace_s: float,
    is_excused: Excused = lambda _stay, _within, _since: False,
) -> tuple[set[int], set[int]]:
    """Return who must, and who may have been alerted.

    A reporter must have been if that was due so long before they reported.
    """
    must: set[int] = set()
    may: set[int] = set()
    possible_until, certain_until = incident.possible_until, incident.certain_until
    reporters, waves = incident.reporters, incident.waves
    for distance, cell in near.around(incident):
        certain, possible = certain_since(waves, distance), possible_since(waves, distance)
        for stay in near.stays[cell]:  # a replay has millions of these: nothing is made for each
            user, certain_from, stay_certain, possible_from, stay_possible = stay
            surely = max(certain, certain_from)
            maybe = max(possible, possible_from)
            if maybe >= stay_possible or maybe >= possible_until:
                continue
            sure = surely < stay_certain and surely < certain_until
            if user in reporters:
                sent_at, received_at = reporters[user]
                if maybe >= received_at:
                    continue
                sure = sure and surely + reporter_grace_s < sent_at
            may.add(user)
            if sure and not is_excused(stay, certain, surely):
                must.add(user)
    return must, may


def why(user: int, incident: AlertingIncident, near: Near) -> str:
    """Say all that decides whether this participant is alerted, in seconds after it was reported."""
    began = incident.opened[0]
    told = [
        f"opened {began:.3f}, confirmed {_after(incident.opened[1], began)}",
        f"surely open until {_after(incident.certain_until, began)}",
        *(
            f"{wave.radius_m:g} m from {_after(wave.possible_from, began)}"
            f" to {_after(wave.certain_from, began)} on"
            for wave in incident.waves
        ),
    ]
    if user in incident.reporters:
        told.append(f"reported it at {_after(incident.reporters[user][0], began)}")
    visits = [
        (max(certain_since(incident.waves, distance), stay.certain_from), distance, stay)
        for distance, cell in near.around(incident)
        for stay in near.stays[cell]
        if stay.user == user and stay.possible_until > began
    ]
    told += [_visit(*each, began) for each in sorted(visits)[:VISITS]]
    return ", ".join(told if visits else [*told, _nearest(user, incident, near)])


def _visit(due_at: float, distance_m: float, stay: Stay, began: float) -> str:
    return (
        f"at {distance_m:.3f} m from {_after(stay.possible_from, began)}"
        f" ({_after(stay.certain_from, began)} for sure) until {_after(stay.certain_until, began)}"
        f" ({_after(stay.possible_until, began)} at most), surely due at {_after(due_at, began)}"
    )


def _nearest(user: int, incident: AlertingIncident, near: Near) -> str:
    began = incident.opened[0]
    visits = [
        (distance, stay)
        for distance, cell in near.places.within(incident.lat, incident.lon, LOOKING_M)
        for stay in near.stays[cell]
        if stay.user == user and stay.possible_until > began
    ]
    if not visits:
        return "has no place in effect within 20 km since then"
    distance, stay = min(visits)
    return (
        f"nearest at {distance:.3f} m from {_after(stay.possible_from, began)}"
        f" to {_after(stay.possible_until, began)}"
    )


def _after(moment: float, began: float) -> str:
    if abs(moment) == NEVER:
        return "never" if moment > 0 else "the beginning"
    return f"{moment - began:+.3f} s"
