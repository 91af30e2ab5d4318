"""Tracks: nobody is faster than their own track, off it, or anywhere twice without walking."""

import csv
import gzip
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import Position
from verify.world.tracks import (
    WALKING_M_S,
    Track,
    TrackError,
    moved,
    offset_between,
    read_tracks,
    synthetic_tracks,
)

GHENT = Position(lat=51.0543, lon=3.7217)
SHARED = "positions/walks_and_drives_relative.csv.gz"

metres = st.floats(-5_000, 5_000)


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    steps = draw(st.lists(st.floats(0.5, 60.0), min_size=0, max_size=12))
    times = [draw(st.floats(0.0, 1_000.0))]
    for step in steps:
        times.append(times[-1] + step)
    x_m, y_m = ([draw(metres) for _ in times] for _ in range(2))
    return Track("drawn", GHENT, times, x_m, y_m)


moments = st.floats(0.0, 100_000.0)


def segments(track: Track) -> list[tuple[float, tuple[float, float], tuple[float, float]]]:
    points = list(zip(track.x_m, track.y_m, strict=True))
    spans = [
        after - before for before, after in zip(track.times_s, track.times_s[1:], strict=False)
    ]
    return list(zip(spans, points, points[1:], strict=False))


def greatest_speed_m_s(track: Track) -> float:
    return max((math.dist(start, end) / span for span, start, end in segments(track)), default=0.0)


def distance_to_polyline_m(track: Track, point: tuple[float, float]) -> float:
    def to_segment(start: tuple[float, float], end: tuple[float, float]) -> float:
        along = (end[0] - start[0], end[1] - start[1])
        length_2 = along[0] ** 2 + along[1] ** 2
        share = 0.0
        if length_2 > 0.0:
            towards = (point[0] - start[0]) * along[0] + (point[1] - start[1]) * along[1]
            share = min(1.0, max(0.0, towards / length_2))
        return math.dist(point, (start[0] + share * along[0], start[1] + share * along[1]))

    if len(track.times_s) == 1:
        return math.dist(point, (track.x_m[0], track.y_m[0]))
    return min(to_segment(start, end) for _, start, end in segments(track))


@given(tracks(), moments, st.floats(0.0, 300.0))
def test_nobody_is_faster_than_the_track_at_its_fastest(
    track: Track, t_s: float, later_s: float
) -> None:
    walked_m = math.dist(track.offset_at(t_s), track.offset_at(t_s + later_s))
    assert walked_m <= greatest_speed_m_s(track) * later_s + 1e-3


@given(tracks(), moments)
def test_everybody_stays_on_the_polyline(track: Track, t_s: float) -> None:
    assert distance_to_polyline_m(track, track.offset_at(t_s)) < 1e-3


@given(tracks(), st.data())
def test_a_track_goes_through_its_own_points_and_back(track: Track, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(track.times_s) - 1))
    point = (track.x_m[number], track.y_m[number])
    after_s = track.times_s[number] - track.times_s[0]
    assert track.offset_at(after_s) == pytest.approx(point, abs=1e-3)
    assert track.offset_at(2 * track.duration_s - after_s) == pytest.approx(point, abs=1e-3)


@given(metres, metres)
def test_an_offset_is_undone(x_m: float, y_m: float) -> None:
    there = moved(GHENT, x_m, y_m)
    assert offset_between(GHENT, there) == pytest.approx((x_m, y_m), abs=1e-5)


@given(st.integers(0, 1_000))
def test_a_synthetic_walk_is_walked_at_walking_pace(seed: int) -> None:
    (track,) = synthetic_tracks(1, seed, GHENT, spread_m=500.0)
    assert greatest_speed_m_s(track) == pytest.approx(WALKING_M_S)
    assert math.dist((0.0, 0.0), track.offset_at(0.0)) <= 500.0
    assert track.duration_s >= 600.0


def test_synthetic_walks_repeat_with_their_seed() -> None:
    first, again, other = (
        [track.offset_at(77.0) for track in synthetic_tracks(5, seed, GHENT)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(set(first)) == 5


def test_a_file_is_placed_on_the_origin_as_its_readme_says(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows(
            [
                ("track", "t_s", "x_m", "y_m", "label"),
                ("a", 0, 0, 0, "Walking"),
                ("b", 5, 1, 2, "Driving"),
                ("a", 10, 100, -50, "Walking"),
            ]
        )
    a, b = read_tracks(path, GHENT)
    assert (a.name, b.name) == ("a", "b")
    halfway = a.position_at(5.0)
    assert halfway.lat == pytest.approx(GHENT.lat - 25 / 111_320)
    assert halfway.lon == pytest.approx(
        GHENT.lon + 50 / (111_320 * math.cos(math.radians(GHENT.lat)))
    )
    assert b.offset_at(12_345.0) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("track,t_s,x_m\na,0,0\n", "line 1: no column y_m"),
        ("track,t_s,x_m,y_m\na,0,0,0\na,5,nan,0\n", "line 3: t_s, x_m and y_m must be numbers"),
        ("track,t_s,x_m,y_m\na,0,0\n", "line 2: t_s, x_m and y_m must be numbers"),
        ("track,t_s,x_m,y_m\na,5,0,0\na,5,1,1\n", "line 3: the time of track a goes back"),
        ("track,t_s,x_m,y_m\n", "no track in it"),
        ("", "line 1: no column"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text(text)
    with pytest.raises(TrackError, match=says):
        read_tracks(path, GHENT)


def test_a_file_that_is_not_gzip_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv.gz"
    path.write_text("track,t_s,x_m,y_m\n")
    with pytest.raises(TrackError, match="gzip"):
        read_tracks(path, GHENT)


def test_the_real_tracks_are_read_whole(shared_data: Callable[[str], Path]) -> None:
    real = read_tracks(shared_data(SHARED), GHENT)
    assert len(real) == 805
    assert sum(len(track.times_s) for track in real) == 57_960
