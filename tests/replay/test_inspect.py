"""`nabij replay --inspect`: what it proposes for files as cities publish them."""

# long: one kind of file after another, each as cities publish it

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest

from schemas.taxonomy import PolicyFile, default_policy_text
from verify.datasets.mappings import parse_mapping
from verify.datasets.proposal import Proposal, propose
from verify.datasets.report_stream import StreamError, read_stream
from verify.oracle.coverage import distance_m

CATEGORIES = sorted(msgspec.toml.decode(default_policy_text(), type=PolicyFile).categories)
ROWS = 120


class City(NamedTuple):
    """How a city publishes: header and row (of a time, two numbers within 1 and a category)."""

    header: str
    row: Callable[[datetime, float, float, str], str]
    encoding: str
    middle: tuple[float, float]
    zone: str
    categories: dict[str, str]


CITIES = {
    "Belgian": City(
        "datum;uur;x_lambert72;y_lambert72;type;straat",
        lambda at, a, b, what: (
            f"{at:%d/%m/%Y};{at:%H:%M};{104632 + 3000 * a:.2f};{193991 + 3000 * b:.2f};{what};"
            "Sint-Baafsplein Één"
        ).replace(".", ","),
        "cp1252",
        (51.0543, 3.7217),
        "Europe/Brussels",
        {
            "Inbraak in woning": "burglary",
            "Fietsdiefstal": "bicycle-theft",
            "Café - geweld": "fight",
        },
    ),
    "Dutch": City(
        "pleegdatum;tijdstip;rd_x;rd_y;delict",
        lambda at, a, b, what: (
            f"{at:%d-%m-%Y};{at.hour}{at.minute:02};{155000 + int(3000 * a)};"
            f"{463000 + int(3000 * b)};{what}"
        ),
        "utf-16",
        (52.15517, 5.38721),
        "Europe/Amsterdam",
        {"Zakkenrollerij": "theft", "Mishandeling": "fight", "Vernieling": "vandalism"},
    ),
    "French": City(
        "id,date_signalement,latitude,longitude,categorie",
        lambda at, a, b, what: (
            f"{at:%Y%m%d},{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00,{48.85 + a / 20:.6f},"
            f'{2.35 + b / 20:.6f},"{what}"'
        ),
        "utf-8-sig",
        (48.85, 2.35),
        "Europe/Paris",
        {
            "Dépôt sauvage": "illegal-dumping",
            "Tapage, nuit": "noise",
            "Vol à main armée": "robbery",
        },
    ),
    "American": City(
        "Case Number\tDate\tPrimary Type\tLatitude\tLongitude\tUpdated On",
        lambda at, a, b, what: (
            f"HX{at:%H%M%d}\t{at.month}/{at.day}/{at.year} {at:%I:%M %p}\t{what}\t"
            f"{41.88 + a / 20:.6f}\t{-87.63 + b / 20:.6f}\t{at:%m/%d/%Y %I:%M:%S %p}"
        ),
        "utf-8",
        (41.88, -87.63),
        "America/Chicago",
        {"THEFT": "theft", "BATTERY": "fight", "BURGLARY": "burglary"},
    ),
    "Socrata": City(
        "incident_id,incident_datetime,incident_type,the_geom",
        lambda at, a, b, what: (
            f"{at:%d%H%M},{at:%Y-%m-%dT%H:%M:%S}.000,{what},"
            f"POINT ({-122.42 + b / 20:.6f} {37.77 + a / 20:.6f})"
        ),
        "utf-8",
        (37.77, -122.42),
        "America/Los_Angeles",
        {
            "Medical Incident": "medical",
            "Structure Fire": "fire",
            "Traffic Collision": "traffic-accident",
        },
    ),
    "Californian": City(
        "DR_NO,Date Rptd,DATE OCC,TIME OCC,Crm Cd Desc,LAT,LON",
        lambda at, a, b, what: (
            f"{at:%d%H%M},{at + timedelta(days=3):%m/%d/%Y} 12:00:00 AM,{at:%m/%d/%Y} 12:00:00 AM,"
            f"{int(f'{at:%H%M}')},{what},{34.05 + a / 20:.4f},{-118.25 + b / 20:.4f}"
        ),
        "utf-8",
        (34.05, -118.25),
        "America/Los_Angeles",
        {"VANDALISM": "vandalism", "ROBBERY": "robbery", "VEHICLE - STOLEN": "theft"},
    ),
    "Opendatasoft": City(
        "jour|heure|geo_point_2d|nature",
        lambda at, a, b, what: (
            f"{at:%Y-%m-%d}|{at.hour}|{50.85 + a / 20:.6f}, {4.35 + b / 20:.6f}|{what}"
        ),
        "utf-8",
        (50.85, 4.35),
        "Europe/Brussels",
        {"Incendie": "fire", "Cambriolage": "burglary", "Graffiti": "graffiti"},
    ),
    "in milliseconds": City(
        "ts,geo,kind",
        lambda at, a, b, what: (
            f'{int(at.timestamp() * 1000)},"{{""type"":""Point"",""coordinates"":'
            f'[{4.9 + b / 20:.6f},{52.37 + a / 20:.6f}]}}",{what}'
        ),
        "utf-8",
        (52.37, 4.9),
        "Europe/Amsterdam",
        {"geluid": "noise", "afval": "illegal-dumping", "graffiti": "graffiti"},
    ),
    "swapped": City(
        "when,lat,lon,what",
        lambda at, a, b, what: (
            f"{at:%Y-%m-%d %H:%M},{3.72 + b / 20:.5f},{51.05 + a / 20:.5f},{what}"
        ),
        "utf-8",
        (51.05, 3.72),
        "Europe/Brussels",
        {"brand": "fire", "inbraak": "burglary", "ruzie": "fight"},
    ),
}


def nobody(_: str) -> Callable[[int, int], None]:
    return lambda _, __: None


def written(city: City, path: Path, extra: Sequence[str] = ()) -> list[datetime]:
    """Write ROWS rows an hour and a bit apart, in the city's own time; return when they were."""

    random = Random(1)
    times = [
        datetime(2023, 5, 10, 0, 7, tzinfo=ZoneInfo(city.zone)) + timedelta(minutes=67) * number
        for number in range(ROWS)
    ]
    words = [*city.categories, "Iets heel anders"]
    rows = [
        city.row(at, random.uniform(-1, 1), random.uniform(-1, 1), words[number % len(words)])
        for number, at in enumerate(times)
    ]
    path.write_bytes("\r\n".join([city.header, *rows, *extra, ""]).encode(city.encoding))
    return times


@pytest.mark.parametrize("name", CITIES)
def test_the_mapping_proposed_for_a_city_is_right(name: str, tmp_path: Path) -> None:
    city, path = CITIES[name], tmp_path / "rows.csv"
    times = written(city, path)
    proposal = propose(path, CATEGORIES, nobody)
    stream = read_stream(path, parse_mapping("proposed", proposal.toml))
    assert stream.skipped == ()
    assert stream.unmapped == {"Iets heel anders": ROWS // 4}
    assert {report.text: report.category for report in stream.reports} == city.categories
    assert stream.median is not None
    assert distance_m(*stream.median, *city.middle) < 2_000.0
    kept = [at for number, at in enumerate(times) if number % 4 != 3]
    to_the_hour = "jour" in city.header
    assert [report.at for report in stream.reports] == [
        (at.replace(minute=0) if to_the_hour else at).astimezone(UTC) for at in kept
    ]
    assert proposal.stream is not None
    assert (proposal.stream.usable, proposal.stream.rows) == (stream.usable, ROWS)


@pytest.mark.parametrize(
    ("file", "rows", "at_least"),
    [
        ("emergency_calls_montgomery_2015_2016", 99_477, 95_000),
        ("bicycle_thefts_groningen_2013_2017", 15_947, 15_947),
    ],
)
def test_a_mapping_is_proposed_for_every_real_stream(
    shared_data: Callable[[str], Path], file: str, rows: int, at_least: int
) -> None:
    proposal = propose(shared_data(f"incidents/{file}.csv.gz"), CATEGORIES, nobody)
    assert proposal.stream is not None
    assert proposal.stream.rows == rows
    assert proposal.stream.usable >= at_least
    assert proposal.stream.skipped == ()


def test_day_and_month_that_cannot_be_told_apart_are_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("date,lat,lon,type\n" + "03/04/2024 10:00,51.05,3.72,brand\n" * 20)
    remarks = " ".join(propose(path, CATEGORIES, nobody).remarks)
    assert "%d/%m/%Y %H:%M could as well be %m/%d/%Y %H:%M" in remarks


def test_days_written_as_midnight_are_spread_over_the_day(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [f"2024-05-{day:02}T00:00:00.000,51.05,3.72,brand" for day in range(1, 21)]
    path.write_text("\n".join(["date,lat,lon,type", *rows]))
    proposal = propose(path, CATEGORIES, nobody)
    assert "every time in date is midnight" in proposal.remarks[0]
    stream = read_stream(path, parse_mapping("proposed", proposal.toml))
    assert stream.reports[0].at == datetime(2024, 5, 1, 10, 0, tzinfo=UTC)


def test_a_file_without_a_time_or_a_place_gets_a_mapping_to_fill_in(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("name,type\nJan,brand\nPiet,inbraak\n" * 5)
    proposal = propose(path, CATEGORIES, nobody)
    assert not proposal.is_whole
    assert [each for each in proposal.remarks if "no column was found" in each] == [
        "no column was found for the time: fill it in",
        "no column was found for the place: fill it in",
    ]
    assert 'time = ""' in proposal.toml


def proposed(path: Path, header: str, rows: Sequence[str]) -> Proposal:
    path.write_text("\n".join([header, *rows]) + "\n")
    return propose(path, CATEGORIES, nobody)


@pytest.mark.parametrize("bad", ["xx", "24:99", "12u", "n.v.t."])
@pytest.mark.parametrize(("rows", "bad_rows"), [(6, {3}), (6, {0, 1}), (3_000, {*range(150)})])
def test_a_bad_time_of_day_costs_its_row_and_not_the_column(
    tmp_path: Path, bad: str, rows: int, bad_rows: set[int]
) -> None:
    times = [bad if n in bad_rows else f"{n % 24:02}:{n % 60:02}" for n in range(rows)]
    proposal = proposed(
        tmp_path / "rows.csv",
        "datum;tijd;breedte;lengte;soort",
        [f"2024-05-{n % 28 + 1:02};{at};51.05;3.72;brand" for n, at in enumerate(times)],
    )
    assert 'time = "{datum} {tijd}"' in proposal.toml
    assert proposal.stream is not None
    assert proposal.stream.usable == rows - len(bad_rows)
    assert [each.rows for each in proposal.stream.skipped] == [len(bad_rows)]
    assert proposal.remarks == ()


@pytest.mark.parametrize(
    ("header", "row", "bad", "time"),
    [
        ("datum;uur;min", "2024-05-{n:02};{n};{m}", "2024-05-03;3;xx", "{datum} {uur}:{min}"),
        ("datum;uur", "2024-05-{n:02};{n}", "2024-05-03;99", "{datum} {uur}"),
        ("datum;tijdstip", "2024-05-{n:02};{n}{m}", "2024-05-03;xx", "{datum} {tijdstip:04}"),
        ("datum;tijd", "2024-05-{n:02}T00:00:00;{n}:{m}", "gisteren;3:20", "{datum} {tijd}"),
        ("datum;tijd", "2024-05-{n:02};{n}:{m}", "gisteren;3:20", "{datum} {tijd}"),
        (
            "datum;eindtijd;begintijd",
            "2024-05-{n:02};{n}:59;{n}:{m}",
            "2024-05-03;03:59;xx",
            "{datum} {begintijd}",
        ),
    ],
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_bad_cell_among_days_hours_or_minutes_does_not_change_the_template(  # noqa: PLR0917 - a table
    tmp_path: Path, header: str, row: str, bad: str, time: str, at: int
) -> None:
    rows = [row.format(n=n, m=20 + n) for n in range(1, 9)]
    rows.insert(at, bad)
    proposal = proposed(
        tmp_path / "rows.csv",
        f"{header};breedte;lengte;soort",
        [f"{each};51.05;3.72;brand" for each in rows],
    )
    assert f'time = "{time}"' in proposal.toml
    assert proposal.stream is not None
    assert (proposal.stream.usable, proposal.stream.rows) == (8, 9)


def test_days_in_two_formats_keep_their_time_of_day(tmp_path: Path) -> None:
    rows = [f"2024-05-{n:02};{n}:20;51.05;3.72;brand" for n in range(1, 9)]
    rows += [f"{n}/05/2024;{n}:20;51.05;3.72;brand" for n in range(13, 17)]
    proposal = proposed(tmp_path / "rows.csv", "datum;tijd;breedte;lengte;soort", rows)
    assert 'time = "{datum} {tijd}"' in proposal.toml
    assert proposal.stream is not None
    assert proposal.stream.usable == len(rows)


@pytest.mark.parametrize(
    ("header", "cells", "told"),
    [
        (
            "datum,tijd",
            ["2024-05-01,13:00", *["2024-05-02,later"] * 5],
            "tijd is left out, though 1 of the 6 values looked at are times of day",
        ),
        (
            "moment,klok",
            [f"2024-05-01T10:0{n},13:0{n}" for n in range(6)],
            "klok is left out, though 6 of the 6 values looked at are times of day",
        ),
        (
            "time,name",
            ["2024-05-01T10:00,a", "2024-05-01T10:01,b", *["later,c"] * 4],
            "time is left out, though 2 of the 6 values looked at are times",
        ),
    ],
)
def test_a_column_of_some_times_that_is_left_out_is_named(
    tmp_path: Path, header: str, cells: Sequence[str], told: str
) -> None:
    rows = [f"{each},51.05,3.72,brand" for each in cells]
    proposal = proposed(tmp_path / "rows.csv", f"{header},lat,lon,type", rows)
    assert told in proposal.remarks


def test_numbers_that_are_called_a_time_and_are_none_are_not_the_hours(tmp_path: Path) -> None:
    rows = [f"2024-05-{n:02},{n * 37},51.05,3.7{n % 10},brand" for n in range(1, 21)]
    proposal = proposed(tmp_path / "rows.csv", "date,time_spent,lat,lon,type", rows)
    assert 'time = "date"' in proposal.toml


@pytest.mark.parametrize("at", [0, 4, 36])
def test_a_word_in_a_column_of_times_costs_its_row_and_not_the_column(
    tmp_path: Path, at: int
) -> None:
    times = [f"2024-05-01T10:{n:02}:00" for n in range(37)]
    times.insert(at, "bad")
    rows = [f"{each},51.05,3.72,fire" for each in times]
    proposal = proposed(tmp_path / "rows.csv", "time,lat,lon,category", rows)
    assert 'time = "time"' in proposal.toml
    assert proposal.stream is not None
    assert (proposal.stream.usable, proposal.stream.rows) == (37, 38)


def test_categories_are_guessed_though_no_time_is_found(tmp_path: Path) -> None:
    rows = ["later,51.05,3.72,fire", "later,51.05,3.72,zeehond", "later,51.05,3.72,theft"] * 4
    proposal = proposed(tmp_path / "rows.csv", "time,lat,lon,category", rows)
    assert not proposal.is_whole
    assert "None of their categories" not in proposal.toml
    assert "#   4 rows: 'zeehond'" in proposal.toml
    filled = parse_mapping("filled", proposal.toml.replace('time = ""', 'time = "time"'))
    assert filled.categories == {"fire", "theft"}


def test_a_file_without_a_category_is_not_said_to_have_unknown_ones(tmp_path: Path) -> None:
    proposal = proposed(tmp_path / "rows.csv", "time,lat,lon", ["2024-05-01T10:00,51.05,3.72"] * 4)
    assert "None of their categories" not in proposal.toml
    assert "no column was found for the category: fill it in" in proposal.remarks


def test_a_proposal_that_is_not_filled_in_is_refused_by_file_and_key(tmp_path: Path) -> None:
    proposal = proposed(tmp_path / "rows.csv", "a;b", ["1;2", "3;4"])
    with pytest.raises(StreamError) as error:
        parse_mapping("mine.toml", proposal.toml)
    assert str(error.value).splitlines() == [
        f"mapping mine.toml: {key} is empty: name a column of the file"
        for key in ("columns.time", "columns.lon", "columns.lat", "columns.category")
    ] + ["mapping mine.toml: rules[0].when has an empty key: name a column of the file"]


def test_inspect_prints_the_mapping_alone_and_says_what_it_is_worth(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    written(CITIES["Belgian"], path, extra=["10/05/2023;12:00;;;Fietsdiefstal;", "x;;1;1;;"])
    ran = _nabij("replay", path, "--inspect")
    assert ran.returncode == 0, ran.stderr
    assert parse_mapping("printed", ran.stdout).layout.encoding == "cp1252"
    assert "90 of 122 rows could be replayed with this mapping" in ran.stderr
    assert "30 rows: no rule for the category 'Iets heel anders'" in ran.stderr
    assert "1 row: there is no x; first in line 122: the column is empty" in ran.stderr
    found = json.loads(_nabij("replay", path, "--inspect", "--json").stdout)
    assert (found["mapping"], found["usable"], found["rows"]) == (ran.stdout, 90, 122)
    assert {each["reason"]: each["rows"] for each in found["skipped"]}["there is no x"] == 1


def test_inspect_of_what_is_no_csv_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 40)
    ran = _nabij("replay", path, "--inspect")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "is no CSV but a ZIP archive or an Excel workbook" in ran.stderr


def _nabij(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "nabij.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
