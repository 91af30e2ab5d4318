"""Which columns of an unknown file say where, and in which coordinates."""

import itertools
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nabij.geodata.geodata_errors import BadRowError
from nabij.geodata.places import NUMBER, Point
from verify.datasets.sample import Column, Table

EAST_WORDS = (
    "lon",
    "lng",
    "long",
    "longitude*",
    "lengte*",
    "x",
    "xcoord*",
    "coordx",
    "east*",
    "rdx",
    "oost*",
)
NORTH_WORDS = ("lat", "latitude*", "breedte*", "y", "ycoord*", "coordy", "north*", "rdy", "noord*")
POINT_WORDS = ("point*", "geo*", "location*", "locatie*", "coord*", "wkt", "the")
ENOUGH = 0.5  # of the values that are there
TRIED = 500

_PLAIN = re.compile(NUMBER)
_DEGREES = re.compile(r"\d\.\d{2,}.*\d\.\d{2,}")  # a pair of numbers that can be degrees
_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True, slots=True)
class Grid:
    """A projected system that cities publish in: its code, its words, the range of x and y (m)."""

    code: int
    name: str
    words: tuple[str, ...]
    x: tuple[float, float]
    y: tuple[float, float]


# In this order: where two grids have the same numbers, the first is taken. Ranges as in the EPSG
# registry's areas of use, rounded outwards.
GRIDS = (
    Grid(
        31370,
        "Belgian Lambert 72",
        ("lambert72", "lb72", "l72", "31370"),
        (14e3, 297e3),
        (20e3, 247e3),
    ),
    Grid(
        28992,
        "Dutch RD New",
        ("rd", "rdx", "rdy", "rijksdriehoek*", "28992"),
        (-7e3, 301e3),
        (289e3, 630e3),
    ),
    Grid(
        3812,
        "Belgian Lambert 2008",
        ("lambert2008", "l08", "lb08", "3812"),
        (520e3, 797e3),
        (520e3, 747e3),
    ),
    Grid(2154, "French Lambert 93", ("lambert93", "l93", "2154"), (0.0, 1.3e6), (6.0e6, 7.2e6)),
    Grid(2056, "Swiss LV95", ("lv95", "2056"), (2.48e6, 2.84e6), (1.07e6, 1.3e6)),
    Grid(21781, "Swiss LV03", ("lv03", "21781"), (480e3, 840e3), (70e3, 300e3)),
    Grid(27700, "British National Grid", ("osgb*", "bng", "27700"), (0.0, 7e5), (0.0, 1.3e6)),
    Grid(25832, "UTM 32N", ("utm*", "25832"), (200e3, 900e3), (4.5e6, 8e6)),
    Grid(2263, "New York Long Island (feet)", ("2263",), (909e3, 1.07e6), (110e3, 280e3)),
    Grid(3857, "Web Mercator", ("mercator", "3857"), (-2.1e7, 2.1e7), (-2.1e7, 2.1e7)),
)


@dataclass(frozen=True, slots=True)
class PlaceGuess:
    """The keys of the mapping that say where, and the median place in them (x, y)."""

    columns: dict[str, str]
    keys: dict[str, str]
    middle: tuple[float, float]
    remarks: tuple[str, ...] = field(default=())

    @property
    def is_degrees(self) -> bool:
        """Whether `middle` is longitude and latitude."""
        return "crs" not in self.keys


def guess_place(table: Table) -> PlaceGuess | None:
    """Return where rows happened, or None if no column tells."""
    numbers = {column.name: found for column in table.columns if (found := _numbers(column))}
    both = [
        (east, north)
        for east in table.columns
        for north in table.columns
        if east.name in numbers and north.name in numbers
        if east.is_called(EAST_WORDS) and north.is_called(NORTH_WORDS)
    ]
    pairs = sorted(both, key=lambda pair: -_kinship(*pair))
    guesses = (_in_columns(table, east, north, numbers) for east, north in pairs)
    named = [guess for guess in guesses if guess is not None]
    choices = itertools.chain(
        (guess for guess in named if guess.is_degrees),
        _points(table),
        named,
        _unnamed(table, numbers),
    )
    return next(choices, None)


def _numbers(column: Column) -> tuple[str, list[float]] | None:
    """Return the decimal mark and the numbers, if the column is of numbers."""
    values = column.present[:TRIED]
    commas = sum(bool(_COMMA.fullmatch(value)) for value in values)
    decimal = "," if commas > len(values) / 4 else "."
    plain = (value.replace(",", ".") if decimal == "," else value for value in values)
    found = [float(value) for value in plain if _PLAIN.fullmatch(value)]
    found = [value for value in found if value]  # 0 stands for none
    return (decimal, found) if found and len(found) >= ENOUGH * len(values) * 0.5 else None


def _kinship(east: Column, north: Column) -> float:
    """Words that both names share; degrees before metres."""
    shared = len(set(east.words) & set(north.words))
    return shared + 5.0 * east.is_called(
        ("lon", "lng", "long", "longitude*", "lengte*")
    ) * north.is_called(("lat", "latitude*", "breedte*"))


def _in_columns(
    table: Table, east: Column, north: Column, numbers: dict[str, tuple[str, list[float]]]
) -> PlaceGuess | None:
    decimal, xs = numbers[east.name]
    other, ys = numbers[north.name]
    if decimal != other and "," in (decimal, other):
        decimal = ","
    middle = statistics.median(xs), statistics.median(ys)
    keys = {"decimal": ","} if decimal == "," else {}
    if abs(middle[0]) <= 180.0 and abs(middle[1]) <= 90.0:
        return PlaceGuess({"lat": north.name, "lon": east.name}, keys, middle)
    if abs(middle[1]) <= 180.0 and abs(middle[0]) <= 90.0:
        return PlaceGuess(
            {"lat": east.name, "lon": north.name},
            keys,
            middle[::-1],
            (f"{north.name} holds longitudes and {east.name} latitudes: taken so",),
        )
    grid = _grid_of(table, middle)
    if grid is None:
        return None
    return PlaceGuess(
        {"x": east.name, "y": north.name},
        {**keys, "crs": f"EPSG:{grid.code}"},
        middle,
        (f"{east.name} and {north.name} look like {grid.name} (EPSG:{grid.code}): check it",),
    )


def _grid_of(table: Table, middle: tuple[float, float]) -> Grid | None:
    x, y = middle
    fitting = [
        grid for grid in GRIDS if grid.x[0] <= x <= grid.x[1] and grid.y[0] <= y <= grid.y[1]
    ]
    named = [
        grid for grid in fitting if any(column.is_called(grid.words) for column in table.columns)
    ]
    return next(iter((*named, *fitting)), None)


def _points(table: Table) -> Iterator[PlaceGuess]:
    columns = [column for column in table.columns if column.present]
    for column in sorted(columns, key=lambda column: not column.is_called(POINT_WORDS)):
        values = column.present[:TRIED]
        is_pairs = not any(mark in values[0].upper() for mark in ("POINT", "{"))
        places = [
            place
            for value in values
            if not is_pairs or _DEGREES.search(value)
            if (place := _point(column.name, value)) is not None
        ]
        if len(places) < ENOUGH * len(values):
            continue
        middle = statistics.median(x for x, _ in places), statistics.median(y for _, y in places)
        keys = {"point_order": "lon lat"} if is_pairs and _lon_first(column, places) else {}
        yield PlaceGuess({"point": column.name}, keys, middle[::-1] if keys else middle)


def _point(name: str, value: str) -> tuple[float, float] | None:
    """Return longitude and latitude as `point` reads them without further keys."""
    try:
        lat, lon = Point(name).read({name: value})
    except BadRowError as error:
        found = re.fullmatch(rf"\(?({NUMBER})\s?[,;\s]\s?({NUMBER})\)?", value)
        if found and "between" in error.reason:
            return float(found[2]), float(found[1])
        return None
    return lon, lat


def _lon_first(column: Column, places: Sequence[tuple[float, float]]) -> bool:
    """Whether the first of two numbers is the longitude; `places` take it for the latitude."""
    if any(abs(lat) > 90.0 for _, lat in places):
        return True
    return "lon" in "".join(column.words)[:4]


def _unnamed(table: Table, numbers: dict[str, tuple[str, list[float]]]) -> Iterator[PlaceGuess]:
    """Two neighbouring columns of degrees with decimals, though their names do not say so."""
    for first, second in zip(table.columns, table.columns[1:], strict=False):
        if first.name not in numbers or second.name not in numbers:
            continue
        lats, lons = numbers[first.name][1], numbers[second.name][1]
        is_degrees = max(map(abs, lats)) <= 90.0 and max(map(abs, lons)) <= 180.0
        if is_degrees and all(value % 1.0 for value in (*lats[:20], *lons[:20])):
            keys = {"decimal": ","} if numbers[first.name][0] == "," else {}
            yield PlaceGuess(
                {"lat": first.name, "lon": second.name},
                keys,
                (statistics.median(lons), statistics.median(lats)),
                (f"{first.name} and {second.name} may be latitude and longitude: check it",),
            )
