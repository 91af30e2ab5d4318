"""A report with what follows from its category and place, computed once and passed on."""

from msgspec import Struct

from broker.core.grid import place_of, region_of
from broker.core.policy import effective_audience
from broker.core.zones import ZoneIndex
from schemas.messages import Report
from schemas.taxonomy import Audience, Category


class PlacedReport(Struct, frozen=True, kw_only=True):
    """A report with what a decision on it needs.

    `audience` is the one in effect, the narrower of the report's and its category's. `cell` is of
    resolution 10, and `region` the one that holds it.
    """

    report: Report
    category: Category
    audience: Audience
    cell: int
    region: int
    zone: str
    municipality: str


def placed(
    report: Report, category: Category, *, police: ZoneIndex, municipality: ZoneIndex
) -> PlacedReport:
    """Return `report` with its category and its place on the grid."""
    cell = place_of(report.location.lat, report.location.lon)
    return PlacedReport(
        report=report,
        category=category,
        audience=effective_audience(category, report.audience),
        cell=cell,
        region=region_of(cell),
        zone=police.zone_of(cell),
        municipality=municipality.zone_of(cell),
    )
