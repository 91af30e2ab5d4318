"""Incidents: how reports become one, and the life cycle as one table."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from broker.core.changes import Change, IncidentChanged
from broker.core.grid import distance_m, place_of, region_of
from broker.core.placed_report import PlacedReport
from broker.errors import Code, Rejected
from schemas.ids import conversation_id, incident_id
from schemas.messages import IncidentState, Mode, Position, Report, Status
from schemas.taxonomy import Audience, Category, Desk, Names, Priority, Urgency

LIFE_CYCLE: dict[Status, frozenset[Status]] = {
    Status.OPEN: frozenset({Status.ACKNOWLEDGED, Status.ASSIGNED, Status.ON_SCENE, Status.CLOSED}),
    Status.ACKNOWLEDGED: frozenset({Status.ASSIGNED, Status.ON_SCENE, Status.CLOSED}),
    Status.ASSIGNED: frozenset({Status.ACKNOWLEDGED, Status.ON_SCENE, Status.CLOSED}),
    Status.ON_SCENE: frozenset({Status.ASSIGNED, Status.CLOSED}),
    Status.CLOSED: frozenset(),
}

SILENT = "silent"  # the outcome of an incident that closed by itself


def life_cycle_diagram() -> str:
    """Return `LIFE_CYCLE` as text, a line for each status: `docs/protocol.md` has it."""
    width = max(map(len, Status))
    return "\n".join(
        f"{status:<{width}} ─▶ {' | '.join(s for s in Status if s in following) or 'the end'}"
        for status, following in LIFE_CYCLE.items()
    )


class Incident(Struct, frozen=True, kw_only=True):
    """One incident. `version` counts every change, also of its group and its alerts.

    It keeps what it needs of its category, so that a new policy does not affect it: `names` (None
    in incidents of an earlier version), radius and merging limits. `location` is that of the first
    report and never moves. While it `is_old`, everything reported was seen too long ago to alert
    people. `attempts` counts its escalations.
    """

    id: UUID
    category: str
    mode: Mode
    audience: Audience
    desk: Desk
    urgency: Urgency
    priority: Priority
    zone: str
    municipality: str
    location: Position
    radius_m: float
    merge_m: float
    opened_at: datetime
    first_seen_at: datetime
    last_seen_at: datetime
    wave_at: datetime
    first_report: UUID
    names: Names | None = None
    merge_s: float | None = None
    alert_if_seen_within_s: int = 3_600
    is_old: bool = False
    text: str = ""
    wave: int = 1
    reports: int = 1
    attempts: int = 1
    status: Status = Status.OPEN
    acknowledged_by: str | None = None
    assigned: tuple[str, ...] = ()
    outcome: str | None = None
    closed_at: datetime | None = None
    version: int = 1

    @property
    def alerts_people(self) -> bool:
        """Whether participants nearby are alerted."""
        nearby = self.audience is Audience.POLICE_AND_NEARBY
        return self.radius_m > 0 and nearby and not self.is_old

    @property
    def has_group(self) -> bool:
        """Whether its members hear each other; if not, each reporter speaks with the desk alone."""
        return self.audience is Audience.POLICE_AND_NEARBY

    def next(self) -> "Incident":
        """Return the incident with the version of its next commit."""
        return replace(self, version=self.version + 1)

    def event(self, change: Change, at: datetime, report: UUID | None = None) -> IncidentChanged:
        """Return the event that tells services of a change."""
        return IncidentChanged(
            incident=self.id, change=change, at=at, desk=self.desk, report=report
        )

    def conversation_of(self, report: Report) -> UUID:
        """Return the id by which the reporter of `report` knows this incident."""
        if self.has_group:
            return self.id
        place = report.location
        return conversation_id(report.id, region_of(place_of(place.lat, place.lon)))


def opened_by(
    placed: PlacedReport,
    now: datetime,
    *,
    region: int | None = None,
    alert_if_seen_within_s: int = 3_600,
    radius_m: float | None = None,
) -> Incident:
    """Return the incident that a report opens.

    `region` is that of the partition which opens it (None: the report's), `radius_m` that of its
    first wave (None: the category's).
    """
    report, category = placed.report, placed.category
    return Incident(
        id=incident_id(report.id, placed.region if region is None else region),
        category=report.category,
        mode=report.mode,
        audience=placed.audience,
        desk=category.desk,
        urgency=category.urgency,
        priority=category.priority,
        zone=placed.zone,
        municipality=placed.municipality,
        location=report.location,
        radius_m=float(category.radius_m) if radius_m is None else radius_m,
        merge_m=float(category.merge_m),
        opened_at=now,
        wave_at=now,
        first_seen_at=report.seen_at,
        last_seen_at=report.seen_at,
        first_report=report.id,
        names=category.names,
        merge_s=float(category.merge_s),
        alert_if_seen_within_s=alert_if_seen_within_s,
        is_old=is_old(report, alert_if_seen_within_s, now),
        text=report.text if category.text_to is Audience.POLICE_AND_NEARBY else "",
    )


def merge_target(placed: PlacedReport, candidates: Iterable[Incident]) -> Incident | None:
    """Return the incident that a report joins: the nearest match, at equal distance the oldest.

    `docs/protocol.md`, "From report to incident", has the rule.
    """
    report, category = placed.report, placed.category
    fitting = (
        (_distance(report, incident), incident.opened_at, incident)
        for incident in candidates
        if _same_kind(placed, incident) and _same_time(report, category, incident)
    )
    within = [each for each in fitting if each[0] <= min(category.merge_m, each[2].merge_m)]
    return min(within, key=lambda entry: entry[:2])[2] if within else None


def _same_kind(placed: PlacedReport, incident: Incident) -> bool:
    report = placed.report
    return (
        incident.status is not Status.CLOSED
        and incident.category == report.category
        and incident.mode is report.mode
        and incident.audience is placed.audience
    )


def _same_time(report: Report, category: Category, incident: Incident) -> bool:
    kept_s = category.merge_s if incident.merge_s is None else incident.merge_s
    gap = timedelta(seconds=min(category.merge_s, kept_s))
    return incident.first_seen_at - gap <= report.seen_at <= incident.last_seen_at + gap


def _distance(report: Report, incident: Incident) -> float:
    here, there = report.location, incident.location
    return distance_m(here.lat, here.lon, there.lat, there.lon)


def is_old(report: Report, alert_if_seen_within_s: int, now: datetime) -> bool:
    """Whether what `report` tells was seen too long ago to alert people."""
    return now - report.seen_at > timedelta(seconds=alert_if_seen_within_s)


def merged(incident: Incident, report: Report, now: datetime) -> Incident:
    """Return `incident` with one more report: its time span may grow, its place stays.

    From the first report that is not old, people are alerted to it.
    """
    if incident.is_old and not is_old(report, incident.alert_if_seen_within_s, now):
        incident = replace(incident, is_old=False, wave_at=now)
    return replace(
        incident,
        reports=incident.reports + 1,
        first_seen_at=min(incident.first_seen_at, report.seen_at),
        last_seen_at=max(incident.last_seen_at, report.seen_at),
    )


def advanced(incident: Incident, status: Status, *, by: str | None = None) -> Incident:
    """Return `incident` in `status`; repeating the present status changes nothing.

    Raises:
        Rejected: the life cycle has no such step.
    """
    if status is incident.status:
        return incident
    if status not in LIFE_CYCLE[incident.status]:
        follows = " or ".join(sorted(LIFE_CYCLE[incident.status]))
        raise Rejected(
            Code.INCIDENT_CLOSED if incident.status is Status.CLOSED else Code.BAD_TRANSITION,
            "$.status",
            f"An incident that is {incident.status} cannot become {status}: "
            + (f"only {follows}." if follows else "it stays so."),
        )
    return replace(incident, status=status, acknowledged_by=incident.acknowledged_by or by)


def acknowledged(incident: Incident, *, by: str) -> Incident:
    """Return `incident` acknowledged; a later status stays."""
    if incident.status is not Status.OPEN:
        return incident
    return advanced(incident, Status.ACKNOWLEDGED, by=by)


def assigned(incident: Incident, unit: str, *, by: str) -> Incident:
    """Return `incident` with one more unit on its way; the status `on_scene` stays."""
    units = (*(known for known in incident.assigned if known != unit), unit)
    if incident.status in (Status.OPEN, Status.ACKNOWLEDGED):
        incident = advanced(incident, Status.ASSIGNED, by=by)
    return replace(incident, assigned=units)


def closed(incident: Incident, outcome: str, now: datetime, *, by: str | None = None) -> Incident:
    """Return `incident` closed with `outcome`.

    Raises:
        Rejected: it is closed already.
    """
    if incident.status is Status.CLOSED:
        raise Rejected(Code.INCIDENT_CLOSED, "$.incident", "The incident is closed already.")
    return replace(advanced(incident, Status.CLOSED, by=by), outcome=outcome, closed_at=now)


def widened(incident: Incident, radius_m: float, now: datetime) -> Incident:
    """Return `incident` in its next wave, with a larger radius."""
    return replace(incident, radius_m=radius_m, wave=incident.wave + 1, wave_at=now)


def state_of(
    incident: Incident, *, alerted: int, accepted: int, on_scene: int, now: datetime
) -> IncidentState:
    """Return the retained state that the police read."""
    return IncidentState(
        incident=incident.id,
        version=incident.version,
        status=incident.status,
        category=incident.category,
        priority=incident.priority,
        zone=incident.zone,
        location=incident.location,
        radius_m=incident.radius_m,
        wave=incident.wave,
        opened_at=incident.opened_at,
        seen_at=incident.last_seen_at,
        updated_at=now,
        reports=incident.reports,
        alerted=alerted,
        accepted=accepted,
        on_scene=on_scene,
        acknowledged_by=incident.acknowledged_by,
        assigned=incident.assigned,
        outcome=incident.outcome,
        mode=incident.mode,
    )
