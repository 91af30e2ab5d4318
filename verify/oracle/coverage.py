"""Who was certainly, and who was possibly, within an incident's radius: intervals and distances.

A device knows when it sent and when the receipt came; the commit lies in between. So a place, or a
radius, is *possibly* in effect from the sending on and *certainly* from the receipt on, and ends
with the same doubt. What is certain must be answered by an alert, what is possible may be.
"""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from schemas.taxonomy import Category, PolicyFile
from verify.oracle.geofence import centre_of
from verify.oracle.history import NEVER, Deed, SentPresence

EARTH_M = 6_371_007.180918475  # the authalic radius, docs/protocol.md
TOLERANCE_M = 0.001  # nearer than this to a radius, rounding decides
CLOCK_S = 1.0  # how much earlier or later an expiry may take effect
WAVE_SLACK_S = 30.0  # how much later than due a deadline may take effect
BAND_DEGREES = 0.01


def distance_m(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Return the great-circle distance (haversine)."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    across = math.sin(math.radians(lon_b - lon_a) / 2.0)
    along = math.sin((phi_b - phi_a) / 2.0)
    chord = along * along + math.cos(phi_a) * math.cos(phi_b) * across * across
    return 2.0 * EARTH_M * math.asin(min(1.0, math.sqrt(chord)))


class Stay(NamedTuple):
    """A participant's time in one cell."""

    user: int
    certain_from: float
    certain_until: float
    possible_from: float
    possible_until: float


class Helping(NamedTuple):
    """From when until when a participant who accepted was there: possibly, and certainly."""

    possible_from: float
    certain_from: float
    certain_until: float = NEVER
    possible_until: float = NEVER


class Wave(NamedTuple):
    """A radius and since when it holds; it holds until the incident closes."""

    radius_m: float
    certain_from: float
    possible_from: float


def stays_by_cell(presences: Sequence[SentPresence], policy: PolicyFile) -> dict[int, list[Stay]]:
    """Return who was when in which cell; what is too inexact is as if it had not been said."""
    presence_s = policy.timers.presence_s
    by_user: dict[int, list[SentPresence]] = defaultdict(list)
    for presence in presences:
        if presence.cell is None or presence.accuracy_m <= policy.accuracy.max_presence_m:
            by_user[presence.user].append(presence)
    stays: dict[int, list[Stay]] = defaultdict(list)
    for mine in by_user.values():
        mine.sort(key=lambda presence: presence.sent_at)
        for cell, stay in _stays_of(mine, presence_s):
            stays[cell].append(stay)
    return stays


def _stays_of(mine: Sequence[SentPresence], presence_s: float) -> list[tuple[int, Stay]]:
    replaced_by = NEVER  # the earliest receipt of a later presence
    until = [NEVER] * len(mine)
    for index in range(len(mine) - 1, -1, -1):
        until[index] = replaced_by
        replaced_by = min(replaced_by, mine[index].received_at)
    stays: list[tuple[int, Stay]] = []
    withdrawn_at = -NEVER  # the latest receipt of an earlier withdrawal
    for index, (user, cell, sent_at, received_at, _) in enumerate(mine):
        next_sent_at = mine[index + 1].sent_at if index + 1 < len(mine) else NEVER
        if cell is None:
            withdrawn_at = max(withdrawn_at, received_at)
            continue
        stay = Stay(
            user,
            # A withdrawal counts whatever its time: one that may have come after a place hides it.
            received_at if withdrawn_at <= sent_at else NEVER,
            min(next_sent_at, sent_at + presence_s - CLOCK_S),
            sent_at,
            min(until[index], received_at + presence_s + CLOCK_S),
        )
        before = mine[index - 1] if index else None
        if before and before.cell == cell and _renewed(before, received_at, presence_s):
            earlier = stays.pop()[1]
            stay = stay._replace(
                certain_from=min(earlier.certain_from, stay.certain_from),
                possible_from=earlier.possible_from,
            )
        stays.append((cell, stay))
    return stays


def _renewed(before: SentPresence, received_at: float, presence_s: float) -> bool:
    """Whether the presence before was confirmed, and still in effect when the next one was."""
    return before.received_at < NEVER and received_at < before.sent_at + presence_s - CLOCK_S


def waves_of(
    *,
    radius_m: float,
    opened: tuple[float, float],
    helping: Sequence[Helping],
    seen: Mapping[int, float],
    possible_until: float,
    policy: PolicyFile,
) -> list[Wave]:
    """Return the incident's waves that happened, or may have.

    `opened` is when its first report was sent and when its receipt came; `seen` is when the first
    alert of a wave arrived, by which time the wave had certainly begun.
    """
    waves = [Wave(radius_m, opened[1], opened[0])]
    for number in range(2, policy.widening.max_waves + 1):
        before = waves[-1]
        possible = _possibly_due(before, helping, policy.timers.accept_s)
        if possible_until <= possible:
            break
        certain = _certainly_due(before, helping, policy.timers.accept_s)
        wider = min(before.radius_m * policy.widening.factor, policy.widening.max_radius_m)
        certain = max(min(certain, _seen(seen, number)), possible)
        waves.append(Wave(max(before.radius_m, wider), certain, possible))
    return waves


def _possibly_due(before: Wave, helping: Sequence[Helping], accept_s: float) -> float:
    """Return when the next wave may begin first: as soon as perhaps nobody helps at a deadline.

    Deadlines are `accept_s` after the wave before, and after each departure.
    """
    first = before.possible_from + accept_s - CLOCK_S
    again = (each.certain_until + accept_s - CLOCK_S for each in helping)
    for due in sorted({first, *(each for each in again if first < each < NEVER)}):
        # It may take effect late, when a participant who helped has left.
        for moment in (due, *sorted(each.certain_until for each in helping)):
            if due <= moment <= due + WAVE_SLACK_S and not _surely_helped(helping, moment):
                return moment
    return NEVER


def _surely_helped(helping: Sequence[Helping], moment: float) -> bool:
    return any(each.certain_from <= moment < each.certain_until for each in helping)


def _certainly_due(before: Wave, helping: Sequence[Helping], accept_s: float) -> float:
    """Return by when the next wave has certainly begun: a deadline at which surely nobody helps."""
    since = before.certain_from
    spans = [(before.possible_from + accept_s - CLOCK_S, since + accept_s + WAVE_SLACK_S)]
    spans += [
        (each.possible_until, each.possible_until + accept_s + WAVE_SLACK_S)
        for each in helping
        if since <= each.certain_until and each.possible_until < NEVER
    ]
    quiet = (
        until
        for begin, until in spans
        if not any(each.possible_from <= until and each.possible_until > begin for each in helping)
    )
    return min(quiet, default=NEVER)


def helping_of(
    acceptances: Iterable[Deed], departures: Iterable[Deed]
) -> Iterator[tuple[UUID, Helping]]:
    """Yield for each acceptance its incident, and how long it lasted."""
    left: dict[tuple[UUID, int], list[Deed]] = defaultdict(list)
    for deed in departures:
        left[deed.incident, deed.user].append(deed)
    for deed in acceptances:
        mine = left.get((deed.incident, deed.user), ())
        later = (each for each in mine if each.sent_at >= deed.sent_at)
        until = min(later, key=lambda each: each.sent_at, default=None)
        ends = (until.sent_at, until.received_at) if until else (NEVER, NEVER)
        yield deed.incident, Helping(deed.sent_at, deed.received_at, *ends)


def first_radius_m(category: Category, accuracy_m: float, policy: PolicyFile) -> float:
    """Return the radius around a report that is so exact: as far as it may have happened."""
    if category.radius_m == 0:
        return 0.0
    farther = category.radius_m + min(accuracy_m, policy.accuracy.max_report_m)
    return min(farther, float(policy.widening.max_radius_m))


def _seen(seen: Mapping[int, float], number: int) -> float:
    return min((at for wave, at in seen.items() if wave >= number), default=NEVER)


def silence(activity: Iterable[tuple[float, float]], silence_s: float) -> tuple[float, float]:
    """Return until when an incident was certainly open, and until when possibly.

    `activity` is when each report, reply and command was sent and when its receipt came.
    """
    certain = possible = NEVER
    begun = ended = -NEVER
    for sent_at, received_at in sorted(activity):
        if begun > -NEVER and received_at > begun + silence_s - CLOCK_S:
            certain = min(certain, begun + silence_s - CLOCK_S)
        if begun > -NEVER and sent_at > ended + silence_s + WAVE_SLACK_S:
            break
        begun = max(begun, sent_at)
        ended = max(ended, received_at)
    certain = min(certain, begun + silence_s - CLOCK_S)
    possible = min(possible, ended + silence_s + WAVE_SLACK_S)
    return certain, possible


class Places:
    """Cells by where their centres are: bands of latitude, in each sorted by longitude."""

    def __init__(self, cells: Iterable[int]) -> None:
        bands: dict[int, list[tuple[float, float, float, float, int]]] = defaultdict(list)
        for cell in cells:
            lat, lon = centre_of(cell)
            phi, lam = math.radians(lat), math.radians(lon)
            bands[math.floor(lat / BAND_DEGREES)].append((lon, phi, lam, math.cos(phi), cell))
        self._bands = {band: sorted(each) for band, each in bands.items()}
        self._lons = {band: [row[0] for row in each] for band, each in self._bands.items()}

    def within(self, lat: float, lon: float, radius_m: float) -> list[tuple[float, int]]:
        """Return distance and cell of every cell whose centre is within `radius_m`.

        Not across the antimeridian, nor around a pole.
        """
        angle = (radius_m + TOLERANCE_M) / EARTH_M
        half_lat = math.degrees(angle) * 1.000001
        half_lon = math.degrees(math.asin(math.sin(angle) / math.cos(math.radians(lat)))) * 1.000001
        phi, lam, cos_phi = math.radians(lat), math.radians(lon), math.cos(math.radians(lat))
        sin, found = math.sin, []
        most = math.sin(angle / 2.0) ** 2
        first = math.floor((lat - half_lat) / BAND_DEGREES)
        last = math.floor((lat + half_lat) / BAND_DEGREES)
        for band in range(first, last + 1):
            if (lons := self._lons.get(band)) is None:
                continue
            west, east = bisect_left(lons, lon - half_lon), bisect_right(lons, lon + half_lon)
            for _, phi_b, lam_b, cos_b, cell in self._bands[band][west:east]:
                along, across = sin((phi_b - phi) / 2.0), sin((lam_b - lam) / 2.0)
                chord = along * along + cos_phi * cos_b * across * across
                if chord <= most:
                    found.append((2.0 * EARTH_M * math.asin(math.sqrt(chord)), cell))
        return found


def certain_since(waves: Sequence[Wave], distance: float) -> float:
    """Return since when a place so far away is certainly within the radius."""
    return min(
        (wave.certain_from for wave in waves if distance <= wave.radius_m - TOLERANCE_M),
        default=NEVER,
    )


def possible_since(waves: Sequence[Wave], distance: float) -> float:
    """Return since when a place so far away is possibly within the radius."""
    return min(
        (wave.possible_from for wave in waves if distance <= wave.radius_m + TOLERANCE_M),
        default=NEVER,
    )
