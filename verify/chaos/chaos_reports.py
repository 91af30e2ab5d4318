"""What devices report in a chaos run, and where: drawn from the dice of each."""

import math
from datetime import UTC, datetime, timedelta
from random import Random

from schemas.ids import new_id
from schemas.messages import Position, Report
from schemas.taxonomy import Audience

GHENT, KORTRIJK = (51.0543, 3.7217), (50.8276, 3.2650)
ELSEWHERE = 0.1  # of the reports come from Kortrijk: another zone, another desk
SPREAD_M = 3_500.0
METRES_PER_DEGREE = 111_195.0
HOT_SPOTS = 12  # places where reports merge
HOT = 0.5
CATEGORIES = (
    "fire",
    "theft",
    "robbery",
    "fight",
    "medical",
    "vandalism",
    "traffic-accident",
    "threat",
    "suspicious",
    "graffiti",
    "noise",
    "illegal-dumping",
    "bicycle-theft",
    "parking",
)
UNKNOWN = ("no-such-thing", "fire-drill")
POISON = 0.02
OLD, OLD_S = (
    0.05,
    18_000.0,
)  # so many were seen so long ago that nobody is alerted, nor do they merge
ODD = 0.1  # so many have what is odd and not needed


def is_odd(report: Report) -> bool:
    """Whether something in it is odd, so that its receipt must say so."""
    return report.location.accuracy_m < 0.0


def draw_report(random: Random) -> tuple[Report, bool]:
    """Return a report, and whether it is poison, that must be rejected."""
    now = datetime.now(UTC)
    seen_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    around = KORTRIJK if random.random() < ELSEWHERE else GHENT
    if random.random() < HOT:
        spot = Random(f"hot spot {random.randrange(HOT_SPOTS)}")
        lat, lon = somewhere(spot, around)
        place = moved((lat, lon), random.gauss(0.0, 20.0), random.gauss(0.0, 20.0))
    else:
        place = Position(*somewhere(random, around))
    poison = random.random() < POISON
    category = random.choice(UNKNOWN if poison else CATEGORIES)
    if random.random() < OLD:
        seen_at -= timedelta(seconds=OLD_S)
    odd = random.random() < ODD
    if odd:
        place = Position(lat=place.lat, lon=place.lon, accuracy_m=-1.0)
    report = Report(
        id=new_id(),
        category=category,
        location=place,
        seen_at=seen_at,
        text="cha\u2066os\r\n" if odd else "chaos",
        audience=Audience.POLICE if random.random() < 0.1 else Audience.POLICE_AND_NEARBY,
    )
    return report, poison


def somewhere(random: Random, around: tuple[float, float]) -> tuple[float, float]:
    """Return a place (lat, lon) within `SPREAD_M` of `around`."""
    away_m, bearing = SPREAD_M * math.sqrt(random.random()), random.uniform(0.0, math.tau)
    place = moved(around, away_m * math.cos(bearing), away_m * math.sin(bearing))
    return place.lat, place.lon


def moved(place: tuple[float, float], north_m: float, east_m: float) -> Position:
    """Return the place that is so far north and east."""
    lat = place[0] + north_m / METRES_PER_DEGREE
    lon = place[1] + east_m / METRES_PER_DEGREE / math.cos(math.radians(place[0]))
    return Position(lat=lat, lon=lon)
