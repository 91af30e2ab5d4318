"""What a mapping can say: each way in which cities write times, places, numbers and files."""

import gzip
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nabij.geodata.places import projection
from verify.datasets.mappings import parse_mapping
from verify.datasets.report_stream import Stream, StreamError, StreamReport, read_stream
from verify.oracle.coverage import distance_m

Read = Callable[..., Stream]
PLAIN = 'time = "t"\nlat = "lat"\nlon = "lon"\ncategory = "what"'
BELGIAN = """
timezone = "Europe/Brussels"
time_format = ["%d/%m/%Y %H:%M", "%d/%m/%Y"]
crs = "EPSG:31370"
decimal = ","
default = "fight"
text = "{type}"
[columns]
time = "{datum} {uur}"
x = "x_lambert72"
y = "y_lambert72"
category = "type"
"""


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file of these lines by a mapping of these keys and columns."""

    def read(
        *lines: str, keys: str = "", columns: str = PLAIN, tables: str = "", encoding: str = "utf-8"
    ) -> Stream:
        path = tmp_path / "rows.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        mapping = parse_mapping(
            "own",
            f'timezone = "Europe/Brussels"\ndefault = "fight"\ntext = "{{what}}"\n{keys}\n'
            f"[columns]\n{columns}\n{tables}",
        )
        return read_stream(path, mapping)

    return read


def only(stream: Stream) -> StreamReport:
    assert (len(stream.reports), stream.skipped) == (1, ())
    return stream.reports[0]


@pytest.mark.parametrize(
    ("format_", "value", "expected"),
    [
        ("iso", "2024-07-01T12:30:00Z", "2024-07-01T12:30"),
        ("iso", "2024-07-01 12:30:00+00", "2024-07-01T12:30"),
        ("iso", "2024-07-01 12:30:00.5-0400", "2024-07-01T16:30:00.5"),
        ("iso", "2024-07-01 12:30", "2024-07-01T10:30"),
        ("%d/%m/%Y %H:%M%z", "01/07/2024 12:30+02", "2024-07-01T10:30"),
        ("%m/%d/%Y %I:%M %p", "7/1/2024 1:05 PM", "2024-07-01T11:05"),
        ("%c", "Mon Jul  1 12:30:00 2024", "2024-07-01T10:30"),
        ("%x %X", "07/01/24 12:30:00", "2024-07-01T10:30"),
        ("unix", "1719837000", "2024-07-01T12:30"),
        ("unix_ms", "1719837000500", "2024-07-01T12:30:00.5"),
        ("%Y-%m-%d", "2024-07-01", "2024-07-01T10:00"),  # the middle of the day, in summer
    ],
)
def test_a_time_is_read_as_it_is_written(
    read: Read, format_: str, value: str, expected: str
) -> None:
    stream = read("t;lat;lon;what", f"{value};51;3;x", keys=f'time_format = "{format_}"')
    assert only(stream).at == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_of_several_formats_the_first_that_reads_a_time_does(read: Read) -> None:
    stream = read(
        "t,lat,lon,what",
        "01/02/2024 12:00,51,3,x",
        "2024-02-01 13:00,51,3,x",
        keys='time_format = ["%d/%m/%Y %H:%M", "iso"]',
    )
    assert [report.at.hour for report in stream.reports] == [11, 12]


@pytest.mark.parametrize(
    ("time", "format_", "row"),
    [
        ('"{d} {h:02}:{m:02}"', "iso", "2024-01-05,9,5,0905"),
        ('["d", "hhmm"]', "%Y-%m-%d %H%M", "2024-01-05,,,0905"),
        ('"{d} {hhmm:04}"', "%Y-%m-%d %H%M", "2024-01-05,,,905"),
        ('"{d}T{h:02}:{m:02}:00Z"', "iso", "2024-01-05,8,5,"),
    ],
)
def test_a_time_may_stand_in_several_columns(read: Read, time: str, format_: str, row: str) -> None:
    stream = read(
        "d,h,m,hhmm,lat,lon,what",
        f"{row},51,3,x",
        keys=f'time_format = "{format_}"',
        columns=PLAIN.replace('"t"', time),
    )
    assert only(stream).at == datetime(2024, 1, 5, 8, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("POINT (3.7217 51.0543)", ""),
        ("SRID=4326;POINT Z(3.7217 51.0543 12)", ""),
        ('"{""type"": ""Point"", ""coordinates"": [3.7217, 51.0543]}"', ""),
        ('"51.0543, 3.7217"', ""),
        ('"Korenmarkt 1\n(51.0543, 3.7217)"', ""),
        ('"3.7217,51.0543"', 'point_order = "lon lat"'),
    ],
)
def test_a_place_may_be_a_point_in_one_column(read: Read, value: str, order: str) -> None:
    stream = read(
        "t,p,what",
        f"2024-01-01T00:00,{value},x",
        keys=order,
        columns='time = "t"\npoint = "p"\ncategory = "what"',
    )
    report = only(stream)
    assert (report.lat, report.lon) == (51.0543, 3.7217)


@pytest.mark.parametrize(
    ("epsg", "x_y", "place"),
    [
        # The church tower of Amersfoort, on which RD New is centred.
        (28992, "155000,463000", (52.15517440, 5.38720621)),
        # The origin of Lambert 93 as it is defined: 46.5 N, 3 E.
        (2154, "700000,6600000", (46.5, 3.0)),
        # Radius times the longitude, and the log of the tangent.
        (3857, "414297.75,6630904.39", (51.0543, 3.7217)),
    ],
)
def test_a_projected_place_is_where_it_is(
    read: Read, epsg: int, x_y: str, place: tuple[float, float]
) -> None:
    stream = read(
        "t,x,y,what",
        f"2024-01-01T00:00,{x_y},a",
        keys=f"crs = {epsg}",
        columns='time = "t"\nx = "x"\ny = "y"\ncategory = "what"',
    )
    report = only(stream)
    assert distance_m(report.lat, report.lon, *place) < 1.0


def test_a_belgian_file_is_read_as_the_police_publish_it(tmp_path: Path) -> None:
    path = tmp_path / "gent.csv"
    path.write_bytes(
        "datum;uur;x_lambert72;y_lambert72;type\r\n"
        "01/03/2023;14:05;104780,50;193800,25;Geweld - café\r\n"
        "02/03/2023;;104.780,50;193.800,25;Één\r\n".encode("cp1252")
    )
    stream = read_stream(path, parse_mapping("be", BELGIAN))
    assert [report.text for report in stream.reports] == ["Geweld - café", "Één"]
    assert stream.reports[0].at == datetime(2023, 3, 1, 13, 5, tzinfo=UTC)
    for report in stream.reports:
        assert distance_m(report.lat, report.lon, 51.0526, 3.7238) < 20.0


def test_x_and_y_the_wrong_way_round_are_told(read: Read) -> None:
    with_crs = 'time = "t"\nx = "a"\ny = "b"\ncategory = "what"'
    stream = read(
        "t,a,b,what", "2024-01-01T00:00,463000,155000,a", keys="crs = 28992", columns=with_crs
    )
    assert "outside the area of EPSG:28992 (are x and y swapped?)" in str(stream.skipped[0])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_encoding_is_found_out(read: Read, encoding: str) -> None:
    row = "2024-01-01T00:00,51,3,Geweld café Één"
    assert only(read("t,lat,lon,what", row, encoding=encoding)).text == "Geweld café Één"


def test_one_broken_byte_does_not_change_the_encoding_of_all_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "t,lat,lon,what\n" + "2024-01-01T00:00,51,3,café\n" * 3
    path.write_bytes(rows.encode() + b"2024-01-01T00:00,51,3,caf\xe9\n")
    mapping = parse_mapping(
        "own", f'timezone = "UTC"\ntext = "{{what}}"\ndefault = "fight"\n[columns]\n{PLAIN}'
    )
    assert [each.text for each in read_stream(path, mapping).reports] == ["café"] * 3 + [
        "caf\ufffd"
    ]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", "||", "^", "::"])
def test_any_delimiter_separates_columns(read: Read, delimiter: str) -> None:
    lines = ["t,lat,lon,what".replace(",", delimiter)]
    lines.append(f'2024-01-01T00:00,51,3,"a{delimiter}b"'.replace(",", delimiter))
    keys = "" if delimiter in ";\t|" else f"delimiter = {json.dumps(delimiter)}"
    assert only(read(*lines, keys=keys)).text == f"a{' ' if delimiter == chr(9) else delimiter}b"


def test_a_gzipped_file_needs_no_name_that_says_so(tmp_path: Path) -> None:
    plain = "t,lat,lon,what\n2024-01-01T00:00,51,3,x\n"
    mapping = parse_mapping("own", f'timezone = "UTC"\ndefault = "fight"\n[columns]\n{PLAIN}')
    for name, content in (("a.csv", gzip.compress(plain.encode())), ("b.csv.gz", plain.encode())):
        (tmp_path / name).write_bytes(content)
        assert len(read_stream(tmp_path / name, mapping).reports) == 1


def test_what_stands_for_none_is_no_value(read: Read) -> None:
    stream = read(
        "t,lat,lon,what",
        "2024-01-01T00:00,NULL,3,x",
        "2024-01-01T00:00,51,0,x",
        ",51,3,x",
        keys='none = ["", "0", "null"]',
    )
    assert {each.reason for each in stream.skipped} == {
        "there is no latitude",
        "there is no longitude",
        "there is no time",
    }


def test_only_what_is_kept_and_within_the_window_is_read(read: Read) -> None:
    stream = read(
        "t,lat,lon,what",
        "2024-01-01T23:30,51,3,too early",
        "2024-01-02T00:00,51,3,first",
        "2024-01-03T23:59,51,3,last",
        "2024-01-04T00:00,51,3,too late",
        "2024-01-03T12:00,51,3,test",
        "2024-01-03T12:00,52,3,elsewhere",
        keys='since = 2024-01-02\nuntil = "2024-01-03"',
        tables='[keep]\nlat = "51*"\n[drop]\nwhat = ["TEST"]',
    )
    assert [report.text for report in stream.reports] == ["first", "last"]
    assert (stream.filtered, stream.outside) == (2, 2)


def test_the_first_reports_are_the_earliest_of_the_whole_file(read: Read, tmp_path: Path) -> None:
    rows = [f"2024-01-{day:02}T00:00,{51 + day / 100},3,{day}" for day in (5, 3, 9, 1, 7)]
    stream = read("t,lat,lon,what", *rows)
    mapping = parse_mapping(
        "own",
        f'timezone = "Europe/Brussels"\ndefault = "fight"\ntext = "{{what}}"\n[columns]\n{PLAIN}',
    )
    first = read_stream(tmp_path / "rows.csv", mapping, limit=2)
    assert [report.text for report in first.reports] == ["1", "3"]
    assert (first.rows, first.usable, first.median) == (5, 5, stream.median)


def test_swapped_coordinates_are_suspected(read: Read) -> None:
    stream = read("t,lat,lon,what", "2024-01-01T00:00,3.72,51.05,x")
    assert "are latitude and longitude swapped?" in stream.remarks[0]
    stream = read("t,lat,lon,what", "2024-01-01T00:00,-122.4,37.8,x")
    assert "(are latitude and longitude swapped?)" in stream.skipped[0].reason


def test_a_missing_pyproj_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    with pytest.raises(StreamError, match=r"pip install 'nabij\[replay\]'"):
        projection(31370)
    with pytest.raises(StreamError, match="EPSG:31370 needs pyproj"):
        parse_mapping("be", BELGIAN)
    assert projection(4326) is None


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('time_fromat = "iso"', "unknown key time_fromat: did you mean time_format?"),
        ('time_format = "%Y-%m-%d %Q"', "%Q at character 10 is no directive of strptime"),
        ('time_format = "%Y-%m-%d %"', "a lone % at character 10"),
        ('time_format = "%d %d %Y"', "a directive stands twice"),
        ('time_format = "%H:%M"', "it needs a year and a day"),
        ('time_format = "%Y-%m-%d %Z"', "%Z at character 10"),
        ('crs = "Lambert 72"', 'crs must be an EPSG code as "EPSG:31370"'),
        ("crs = 999999", "crs EPSG:999999 is none that pyproj knows"),
        (
            "crs = 31370",
            "columns.lat: crs says that places are projected, so [columns] needs x and y",
        ),
        ('decimal = "."\ndelimiter = "\\n"', "delimiter: a line break"),
        ('decimal = ";"', "decimal must be '.' or ','"),
        ('quote = "ab"', "quote must be one character"),
        ('encoding = "klingon"', "encoding 'klingon' is none"),
        ('encoding = "rot13"', "encoding 'rot13' is none"),
        ('since = "2024-02-01"\nuntil = "2024-01-01"', "since 2024-02-01 is not before until"),
        ('since = "gisteren"', "'gisteren' is no time"),
        ('text = "{what"', "a lone { at character 1"),
        ('text = "{}"', "{} at character 1 names no column"),
        ("keep = 3", "keep must be a table"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_told(keys: str, told: str) -> None:
    with pytest.raises(StreamError) as error:
        parse_mapping("own", f'timezone = "UTC"\ndefault = "fight"\n{keys}\n[columns]\n{PLAIN}')
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('time = "t"', 'time = ""', "columns.time is empty: name a column of the file"),
        ('time = "t"', 'time = ["t", " "]', "columns.time is empty: name a column of the file"),
        ('lat = "lat"', 'lat = ""', "columns.lat is empty: name a column of the file"),
        (
            'category = "what"',
            'category = ""',
            "columns.category is empty: name a column of the file",
        ),
        ('timezone = "UTC"', 'timezone = ""', "timezone is empty"),
        ('category = "fire"', 'category = ""', "rules[0].category is empty"),
        (
            "when = { what",
            'when = { ""',
            "rules[0].when has an empty key: name a column of the file",
        ),
        ("drop = { what", 'drop = { ""', "drop has an empty key: name a column of the file"),
    ],
)
def test_an_empty_key_is_named_with_the_mapping(before: str, after: str, told: str) -> None:
    text = (
        'timezone = "UTC"\ndrop = { what = "" }\n[columns]\n'
        'time = "t"\nlat = "lat"\nlon = "lon"\ncategory = "what"\n'
        '[[rules]]\nwhen = { what = "" }\ncategory = "fire"\n'
    )
    parse_mapping("mine.toml", text)
    with pytest.raises(StreamError) as error:
        parse_mapping("mine.toml", text.replace(before, after))
    assert str(error.value) == f"mapping mine.toml: {told}"


def test_unknown_keys_are_named_wherever_they_stand() -> None:
    with pytest.raises(StreamError) as error:
        parse_mapping(
            "own",
            f'timezone = "UTC"\n[columns]\n{PLAIN}\nlattitude = "x"\n'
            '[[rules]]\nwhen = { what = "x" }\ncategroy = "fight"\ncategory = "fight"\n',
        )
    assert "unknown key columns.lattitude: did you mean lat?" in str(error.value)
    assert "unknown key rules[0].categroy: did you mean category?" in str(error.value)
