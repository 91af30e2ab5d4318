import gzip
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from schemas.taxonomy import PolicyFile, default_policy_text
from verify.datasets.mappings import SHIPPED
from verify.datasets.report_stream import Stream, StreamError, load_mapping, read_stream
from verify.oracle.coverage import distance_m

KORENMARKT = (51.0543, 3.7217)
MAPPING = """
timezone = "Europe/Brussels"
text = "{what} gemeld."
[columns]
time = "when"
lat = "lat"
lon = "lon"
category = ["what", "who"]
[[rules]]
when = { what = ["ruzie*", "vechtpartij"] }
category = "fight"
[[rules]]
when = { what = "brand", who = "dienst" }
category = "fire"
text = "Brand, zegt {who}."
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Stream]:
    def read(*rows: str, mapping: str = MAPPING) -> Stream:
        (tmp_path / "own.toml").write_text(mapping)
        path = tmp_path / "rows.csv"
        path.write_text("\n".join(["when,lat,lon,what,who", *rows, ""]))
        return read_stream(path, load_mapping(tmp_path / "own.toml"))

    return read


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("montgomery", "emergency_calls_montgomery_2015_2016", 99_477),
        ("groningen", "bicycle_thefts_groningen_2013_2017", 15_947),
        ("zurich", "city_reports_zurich", 62_245),
    ],
)
def test_every_row_of_a_real_stream_becomes_a_report_around_the_origin(
    shared_data: Callable[[str], Path], name: str, file: str, rows: int
) -> None:
    mapping = load_mapping(name)
    stream = read_stream(shared_data(f"incidents/{file}.csv.gz"), mapping).around(KORENMARKT)
    assert (stream.rows, len(stream.reports)) == (rows, rows)
    assert (stream.unmapped, stream.skipped) == ({}, ())
    median = [
        statistics.median(report.lat for report in stream.reports),
        statistics.median(report.lon for report in stream.reports),
    ]
    assert median == pytest.approx(KORENMARKT, abs=1e-6)
    times = [report.at for report in stream.reports]
    assert times == sorted(times)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_mappings_use_categories_of_the_shipped_policy(name: str) -> None:
    policy = msgspec.toml.decode(default_policy_text(), type=PolicyFile)
    assert load_mapping(name).categories <= policy.categories.keys()


def test_translation_keeps_distances(read: Callable[..., Stream]) -> None:
    stream = read("2024-05-01T10:00,40.0,-75.0,ruzie,x", "2024-05-01T11:00,40.0,-75.02,ruzie,x")
    before = [(report.lat, report.lon) for report in stream.reports]
    after = [(report.lat, report.lon) for report in stream.around(KORENMARKT).reports]
    apart_m = distance_m(*before[0], *before[1])
    assert distance_m(*after[0], *after[1]) == pytest.approx(apart_m, abs=0.5)


def test_rules_look_at_columns_in_turn_and_what_none_knows_is_counted(
    read: Callable[..., Stream],
) -> None:
    stream = read(
        "2024-05-01T12:00,51,3,Brand,Dienst",
        "2024-05-01T11:00,51,3,ruzie in café,x",
        "2024-05-01T13:00,51,3,brand,x",
    )
    assert [report.category for report in stream.reports] == ["fight", "fire"]
    assert [report.text for report in stream.reports] == [
        "ruzie in café gemeld.",
        "Brand, zegt Dienst.",
    ]
    assert (stream.rows, stream.unmapped) == (3, {"brand / x": 1})


def test_a_default_takes_what_no_rule_knows(read: Callable[..., Stream]) -> None:
    stream = read("2024-05-01T12:00,51,3,iets,x", mapping='default = "noise"\n' + MAPPING)
    assert [report.category for report in stream.reports] == ["noise"]


def test_bad_rows_are_kept_with_line_and_reason(read: Callable[..., Stream]) -> None:
    stream = read(
        "2024-05-01T12:00,51,3,ruzie,x",
        "gisteren,51,3,ruzie,x",
        "2024-05-01T12:00,north,3,ruzie,x",
        "2024-05-01T12:00,nan,3,ruzie,x",
        "2024-05-01T12:00,51,181,ruzie,x",
        "2024-05-01T12:00,0,0,ruzie,x",
        "2024-05-01T12:00",
    )
    assert (stream.rows, len(stream.reports)) == (7, 1)
    assert sorted((row.line, row.rows) for row in stream.skipped) == [
        (3, 1),
        (4, 1),
        (5, 2),
        (6, 1),
        (7, 1),
    ]
    told = "\n".join(map(str, stream.skipped))
    assert "1 row: the time cannot be read as iso; first in line 3: 'gisteren'" in told
    assert "1 row: the latitude is no number; first in line 4: 'north'" in told
    assert "the longitude is not between -180 and 180; first in line 6: 181" in told


def test_the_hours_of_daylight_saving_are_placed_and_counted(read: Callable[..., Stream]) -> None:
    stream = read(
        "2024-03-31T02:30,51,3,ruzie,gap",
        "2024-10-27T02:30,51,3,ruzie,fold",
        "2024-07-01T12:00+02:00,51,3,ruzie,offset",
    )
    assert [report.at for report in stream.reports] == [
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
        datetime(2024, 7, 1, 10, 0, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
    ]
    assert (stream.in_gaps, stream.in_folds) == (1, 1)


def test_days_without_hours_are_spread_over_the_day_as_long_as_it_is(
    read: Callable[..., Stream],
) -> None:
    stream = read(*["2024-03-31,51,3,ruzie,x"] * 23)
    times = [report.at for report in stream.reports]
    assert times[0] == datetime(2024, 3, 30, 23, 30, tzinfo=UTC)
    assert times[-1] == datetime(2024, 3, 31, 21, 30, tzinfo=UTC)


def test_control_characters_do_not_reach_the_text(read: Callable[..., Stream]) -> None:
    stream = read("2024-05-01T12:00,51,3,ruzie\x07\u202e hier,x")
    assert stream.reports[0].text == "ruzie hier gemeld."


def test_a_mapping_tells_all_its_errors_at_once(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('timezone = "Mars/Olympus"\nzone = 1\n[columns]\ntime = "t"\n[[rules]]\n')
    with pytest.raises(StreamError) as error:
        load_mapping(path)
    for part in ("zone", "Mars/Olympus", "lat", "lon", "columns.category", "rules[0]"):
        assert part in str(error.value)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(b"ts_local,lat,lon\n"))
    with pytest.raises(StreamError, match="needs the columns category; the file has ts_local"):
        read_stream(path, load_mapping("zurich"))
