"""Files from strangers: whatever is wrong with them is told, and is never a mistake of ours."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.replay.own_mapping import MAPPING
from verify.datasets.mappings import parse_mapping
from verify.datasets.proposal import propose
from verify.datasets.report_stream import Stream, StreamError, read_stream
from verify.replay.replay_plan import ReplayPlan

CATEGORIES = ("fight", "fire", "suspicious", "theft")
HEADER = "t,lat,lon,what"
GOOD = "2024-01-01T00:00,51.05,3.72,brand"
OWN = parse_mapping("own", MAPPING)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*lines: str, header: str = HEADER) -> Path:
        path = tmp_path / "rows.csv"
        path.write_text("\n".join([header, *lines]), encoding="utf-8")
        return path

    return write


def plan(path: Path, tmp_path: Path, **keys: object) -> ReplayPlan:
    (tmp_path / "own.toml").write_text(MAPPING)
    keys = {"origin": (51.05, 3.72), **keys}
    return ReplayPlan(stream=path, mapping=tmp_path / "own.toml", participants=1, **keys)  # type: ignore[arg-type]


def test_a_stream_without_a_usable_row_says_how_many_failed_and_why(
    write: Write, tmp_path: Path
) -> None:
    path = write(
        "gisteren,51,3,brand",
        "vandaag\x1b[31m,51,3,brand",
        "2024-01-01T00:00,51,,brand",
        "2024-01-01T00:00,51,3,zeehond",
    )
    with pytest.raises(StreamError) as error:
        plan(path, tmp_path).read()
    lines = str(error.value).splitlines()
    assert lines[0].endswith("rows.csv: none of its 4 rows can be used:")
    assert lines[1:] == [
        "  2 rows: the time cannot be read as iso; first in line 2: 'gisteren'",
        "  1 row: there is no longitude; first in line 4: the column is empty",
        "  1 row: no rule for the category 'zeehond'",
    ]


@pytest.mark.parametrize("year", ["0001", "9999", "1899", "2101"])
def test_a_row_of_an_absurd_year_is_skipped(write: Write, year: str) -> None:
    stream = read_stream(write(GOOD, GOOD.replace("2024", year)), OWN)
    assert len(stream.reports) == 1
    assert "not between the years 1900 and 2100" in stream.skipped[0].reason


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "\u0665\u0661", "1_0", "0x10"])
def test_what_is_no_number_is_no_place(write: Write, value: str) -> None:
    stream = read_stream(write(f"2024-01-01T00:00,{value},3.72,brand", GOOD), OWN)
    assert (len(stream.reports), stream.skipped[0].rows) == (1, 1)


def test_a_quote_that_is_never_closed_swallows_no_rows(write: Write) -> None:
    rows = [f"2024-01-01T00:0{minute},51.05,3.72,brand {minute}" for minute in range(8)]
    rows[2] = rows[2].replace("brand", '"brand')
    stream = read_stream(write(*rows), OWN)
    assert (stream.rows, len(stream.reports)) == (8, 8)
    assert "a quote is not closed somewhere: 6 rows were read line by line" in stream.remarks[0]
    assert stream.reports[2].text == "brand 2"


def test_a_quote_that_closes_in_another_row_swallows_no_rows(write: Write) -> None:
    rows = [f"2024-01-01T00:0{minute},51.05,3.72,brand" for minute in range(8)]
    rows[1] = rows[1].replace("brand", '"brand')
    rows[5] = rows[5].replace("brand", 'brand "groot"')
    stream = read_stream(write(*rows), OWN)
    assert len(stream.reports) == 8


def test_a_text_of_several_lines_stays_one_row(write: Write) -> None:
    stream = read_stream(
        write('2024-01-01T00:00,51.05,3.72,"brand, groot,\nin de, straat"', GOOD), OWN
    )
    assert [report.text for report in stream.reports] == ["brand, groot, in de, straat", "brand"]
    assert stream.remarks == ()


def test_a_row_with_more_columns_than_the_header_is_not_taken_for_another(write: Write) -> None:
    stream = read_stream(write("2024-01-01T00:00,51.05,3.72,brand,in huis", GOOD + ",,"), OWN)
    assert (len(stream.reports), stream.skipped[0].rows) == (1, 1)
    assert "more columns than the header's 4" in stream.skipped[0].reason


def test_a_repeated_column_that_is_needed_is_refused(write: Write) -> None:
    with pytest.raises(StreamError, match=r"'lat' \(the place\) stands in the columns 2, 5"):
        read_stream(write(header=f"{HEADER},lat"), OWN)
    assert read_stream(write(GOOD + ",a,b", header=f"{HEADER},x,x"), OWN).usable == 1


def test_a_missing_column_is_told_with_the_one_that_was_meant(write: Write) -> None:
    with pytest.raises(StreamError, match="did you mean 'What' by 'what'"):
        read_stream(write(GOOD, header="t,lat,lon,What"), OWN)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"t,lat,lon,what\n", "has no rows"),
        (gzip.compress(b"t,lat,lon,what\n" * 1_000)[:-20], "cannot be read"),
        (gzip.compress(b"t,lat,lon,what\n" * 1_000)[:30] + b"x" * 30, "cannot be read"),
        (b"PK\x03\x04" + b"\0" * 40, "is no CSV but a ZIP archive or an Excel workbook"),
        (b"t,lat,lon,what\n" + b"x" * (1 << 20) + b"\n", "line 2 is longer than"),
    ],
    ids=["empty", "blank", "header", "cut gzip", "broken gzip", "zip", "endless line"],
)
def test_a_file_that_cannot_be_used_says_why(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(StreamError, match=told):
        plan(path, tmp_path).read()


def test_a_directory_and_a_missing_file_are_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path, "is a directory"), (tmp_path / "none.csv", "No such file")):
        with pytest.raises(StreamError, match=told):
            read_stream(path, OWN)
        with pytest.raises(StreamError, match=told):
            propose(path, CATEGORIES, _nobody)


@pytest.mark.parametrize("origin", [(0.0, 0.0), (0.0, -179.0), (84.0, 0.0)])
def test_any_origin_that_the_stream_fits_around_will_do(
    write: Write, tmp_path: Path, origin: tuple[float, float]
) -> None:
    stream = plan(write(GOOD), tmp_path, origin=origin).read()
    assert (stream.reports[0].lat, stream.reports[0].lon) == origin


@pytest.mark.parametrize("origin", [(90.0, 0.0), (0.0, 179.999)])
def test_an_origin_at_a_pole_or_the_date_line_is_refused(
    write: Write, tmp_path: Path, origin: tuple[float, float]
) -> None:
    path = write(*(GOOD.replace("3.72", lon) for lon in ("3.70", "3.72", "3.74")))
    with pytest.raises(StreamError, match="--origin"):
        plan(path, tmp_path, origin=origin).read()


def test_a_wrong_window_is_told(write: Write, tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="--since, --until: 'gisteren' is no time"):
        plan(write(GOOD), tmp_path, between=("gisteren", None)).read()
    with pytest.raises(StreamError, match="1 row: before since or after until"):
        plan(write(GOOD), tmp_path, between=("2025-01-01", None)).read()


def test_a_large_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv.gz"
    with gzip.open(path, "wt", compresslevel=1) as text:
        text.write(HEADER + "\n")
        for number in range(15_000):
            text.write(f"2024-01-01T00:00,51.05,3.{number % 97:02},brand {number} {'x' * 400}\n")
    told: list[tuple[int, int]] = []
    tracemalloc.start()
    stream = read_stream(path, OWN, limit=100, on_bytes=lambda *each: told.append(each))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stream.rows, len(stream.reports)) == (15_000, 100)
    assert peak < 4 << 20, "the file has 6 MB"
    assert told == sorted(told)
    assert len(told) >= 3


# -- anything at all -----------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            "NULL",
            "2024-01-01",
            "2024-01-01T00:00",
            "1/2/2024 3:04 PM",
            "51.05",
            "51,05",
            "3.72",
            "POINT (3.7 51)",
            '{"type":"Point","coordinates":[3,51]}',
            "brand",
            '"',
            "a\nb",
            "194000",
            "0",
        ]
    ),
    st.text(max_size=12),
)
CUT = st.sampled_from([",", ";", "\t", "|", '"', "\n", "\r\n"])
CSVS = st.builds(
    lambda head, rows, cut: cut.join(head) + "\n" + "\n".join(cut.join(row) for row in rows),
    st.lists(
        st.sampled_from(["t", "lat", "lon", "what", "x", "y", "date", "uur", "type", "geo", ""]),
        max_size=6,
    ),
    st.lists(st.lists(CELLS, max_size=6), max_size=12),
    CUT,
)
FILES = st.one_of(
    st.binary(max_size=400),
    CSVS.map(lambda text: text.encode("utf-8", "replace")),
    CSVS.map(lambda text: text.encode("utf-16", "replace")),
    st.tuples(CSVS, st.binary(max_size=6), st.integers(0, 400)).map(
        lambda each: each[0].encode("utf-8", "replace")[: each[2]] + each[1]
    ),
    CSVS.map(lambda text: gzip.compress(text.encode("utf-8", "replace"))[:-3]),
)
ANYTHING = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANYTHING
@given(content=FILES)
def test_any_bytes_are_a_stream_or_a_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    stream = _unless_told(lambda: read_stream(path, OWN), str(path))
    assert stream is None or stream.rows == _accounted(stream)


@ANYTHING
@given(content=FILES)
def test_any_bytes_can_be_inspected(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    proposal = _unless_told(lambda: propose(path, CATEGORIES, _nobody), str(path))
    if proposal is not None and proposal.stream is not None:
        stream = read_stream(path, parse_mapping("proposed", proposal.toml))
        assert (stream.usable, stream.rows) == (proposal.stream.usable, proposal.stream.rows)
        assert stream.rows == _accounted(stream)


@ANYTHING
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(MAPPING)), st.sampled_from(list('"{}[]=,\n%x0')), st.integers(0, 3)
        ),
        max_size=6,
    )
)
def test_any_mapping_is_one_or_a_clear_error(
    edits: list[tuple[int, str, int]], tmp_path: Path
) -> None:
    text = MAPPING
    for at, mark, gone in edits:
        text = text[:at] + mark + text[at + gone :]
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n")
    _unless_told(lambda: read_stream(path, parse_mapping("own", text)), "own", str(path))


T = TypeVar("T")


def _unless_told(work: Callable[[], T], *names: str) -> T | None:
    """Return what comes of it, or None if an error names the file that is wrong."""
    told = ""
    try:
        return work()
    except StreamError as error:
        told = str(error)
    assert any(name in told for name in names), told
    return None


def _accounted(stream: Stream) -> int:
    lost = sum(each.rows for each in stream.skipped) + sum(stream.unmapped.values())
    return stream.usable + lost + stream.filtered + stream.outside


def _nobody(_: str) -> Callable[[int, int], None]:
    return lambda _, __: None
