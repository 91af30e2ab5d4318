"""Where a person is at any moment: recorded tracks, and walks of our own where there is no file.

A file has the columns `track,t_s,x_m,y_m` (others are ignored), metres from an arbitrary centre;
it may be gzipped. Placed on an origin, lat = lat0 + y/111320, lon = lon0 + x/(111320·cos lat0).
"""

import bisect
import csv
import gzip
import math
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TextIO

from schemas.messages import Position

METRES_PER_DEGREE = 111_320.0
WALKING_M_S = 1.4


class TrackError(ValueError):
    """A track file that cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A polyline in time: seconds (strictly growing) and metres east and north of `origin`."""

    name: str
    origin: Position
    times_s: Sequence[float]
    x_m: Sequence[float]
    y_m: Sequence[float]

    @property
    def duration_s(self) -> float:
        """From its first point to its last."""
        return self.times_s[-1] - self.times_s[0]

    def on(self, origin: Position) -> "Track":
        """Return the same track around another origin."""
        return replace(self, origin=origin)

    def position_at(self, t_s: float) -> Position:
        """Return the place `t_s` seconds after the start.

        At its end the track is walked back, and so on: nobody ever jumps.
        """
        return moved(self.origin, *self.offset_at(t_s))

    def offset_at(self, t_s: float) -> tuple[float, float]:
        """Return the place `t_s` seconds after the start as metres east and north of the origin."""
        duration_s = self.duration_s
        if duration_s <= 0.0:
            return self.x_m[0], self.y_m[0]
        phase_s = t_s % (2.0 * duration_s)
        if phase_s > duration_s:
            phase_s = 2.0 * duration_s - phase_s
        at_s = self.times_s[0] + phase_s
        after = min(max(bisect.bisect_right(self.times_s, at_s), 1), len(self.times_s) - 1)
        before = after - 1
        share = (at_s - self.times_s[before]) / (self.times_s[after] - self.times_s[before])
        share = min(max(share, 0.0), 1.0)  # rounding
        return (
            self.x_m[before] + share * (self.x_m[after] - self.x_m[before]),
            self.y_m[before] + share * (self.y_m[after] - self.y_m[before]),
        )


def moved(origin: Position, x_m: float, y_m: float) -> Position:
    """Return the place so many metres east and north of `origin`, on the flat of a city."""
    east_m = METRES_PER_DEGREE * math.cos(math.radians(origin.lat))
    return Position(lat=origin.lat + y_m / METRES_PER_DEGREE, lon=origin.lon + x_m / east_m)


def offset_between(origin: Position, place: Position) -> tuple[float, float]:
    """Return how many metres east and north of `origin` the `place` is: what `moved` undoes."""
    east_m = METRES_PER_DEGREE * math.cos(math.radians(origin.lat))
    return (place.lon - origin.lon) * east_m, (place.lat - origin.lat) * METRES_PER_DEGREE


def read_tracks(path: Path, origin: Position) -> list[Track]:
    """Read all tracks of a file, placed on `origin`, in the file's order.

    Raises:
        TrackError: a column is missing, a number is none, or a track's time does not grow.
        OSError: the file cannot be read.
    """
    try:
        with _open(path) as file:
            points = _points_of(file)
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise TrackError(f"{path}: {error}") from None
    except TrackError as error:
        raise TrackError(f"{path}: {error}") from None
    if not points:
        raise TrackError(f"{path}: no track in it")
    return [Track(name, origin, *columns) for name, columns in points.items()]


def synthetic_tracks(
    count: int, seed: int, origin: Position, *, spread_m: float = 1_000.0
) -> list[Track]:
    """Return `count` walks that begin within `spread_m` of `origin`, the same for the same seed."""
    return [
        _walk(f"walk-{number}", Random(f"walk {seed} {number}"), origin, spread_m)
        for number in range(count)
    ]


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


Columns = tuple["array[float]", "array[float]", "array[float]"]


def _points_of(file: TextIO) -> dict[str, Columns]:
    rows = csv.DictReader(file)
    if absent := {"track", "t_s", "x_m", "y_m"} - set(rows.fieldnames or ()):
        raise TrackError(f"line 1: no column {', '.join(sorted(absent))}")
    points: dict[str, Columns] = {}
    for row in rows:
        columns = points.setdefault(row["track"], (array("d"), array("d"), array("d")))
        try:
            numbers = [float(row[name]) for name in ("t_s", "x_m", "y_m")]
        except (TypeError, ValueError):
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise TrackError(f"line {rows.line_num}: t_s, x_m and y_m must be numbers")
        if columns[0] and numbers[0] <= columns[0][-1]:
            raise TrackError(f"line {rows.line_num}: the time of track {row['track']} goes back")
        for column, number in zip(columns, numbers, strict=True):
            column.append(number)
    return points


def _walk(name: str, random: Random, origin: Position, spread_m: float) -> Track:
    """Walk ten minutes or so in legs of 10 to 60 s, turning a little more than never."""
    times_s, x_m, y_m = array("d", [0.0]), array("d"), array("d")
    away_m = spread_m * math.sqrt(random.random())  # the root spreads evenly over the disc
    bearing = random.uniform(0.0, math.tau)
    x_m.append(away_m * math.sin(bearing))
    y_m.append(away_m * math.cos(bearing))
    for leg_s, heading in _legs(random):
        times_s.append(times_s[-1] + leg_s)
        x_m.append(x_m[-1] + WALKING_M_S * leg_s * math.sin(heading))
        y_m.append(y_m[-1] + WALKING_M_S * leg_s * math.cos(heading))
    return Track(name, origin, times_s, x_m, y_m)


def _legs(random: Random) -> Iterator[tuple[float, float]]:
    heading, walked_s = random.uniform(0.0, math.tau), 0.0
    while walked_s < 600.0:
        leg_s = random.uniform(10.0, 60.0)
        yield leg_s, heading
        walked_s += leg_s
        heading += random.gauss(0.0, math.pi / 4)
