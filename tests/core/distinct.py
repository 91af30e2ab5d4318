"""An incident and a report of which no two fields are alike: whatever is mixed up shows."""

from datetime import timedelta
from uuid import UUID

from broker.core.incidents import Incident
from schemas.messages import EmergencyCall, Mode, Position, Report, Status
from schemas.taxonomy import Audience, Desk, Language, Names, Priority, Urgency
from tests.core.samples import at


def identifier(number: int) -> UUID:
    """A UUIDv7 that ends in `number`."""
    return UUID(f"01954f3c-7a2b-7c3d-8e4f-{number:012x}")


REPORT = Report(
    id=identifier(1),
    category="smoke",
    location=Position(51.01, 3.71, 11.0),
    seen_at=at(2),
    reporter_location=Position(51.02, 3.72, 12.0),
    text="the report's words",
    emergency_call=EmergencyCall.NOT_CALLED,
    audience=Audience.POLICE_AND_NEARBY,
    language=Language.FR,
    mode=Mode.REAL,
)
INCIDENT = Incident(
    id=UUID("6fa459ea-ee8a-8ca4-894e-db77e160beef"),
    category="fire",
    mode=Mode.DRILL,
    audience=Audience.POLICE,
    desk=Desk.POLICE,
    urgency=Urgency.URGENT,
    priority=Priority.P2,
    zone="gent",
    municipality="merelbeke",
    location=Position(51.05, 3.75, 13.0),
    radius_m=411.5,
    merge_m=101.0,
    opened_at=at(4),
    first_seen_at=at(1),
    last_seen_at=at(3),
    wave_at=at(6),
    first_report=identifier(2),
    names=Names(nl="Brand", fr="Incendie", en="Fire"),
    merge_s=601.0,
    alert_if_seen_within_s=1_801,
    text="the incident's words",
    wave=3,
    reports=5,
    attempts=2,
    status=Status.ON_SCENE,
    acknowledged_by="desk 1",
    assigned=("gent-21", "gent-22"),
    outcome="solved",
    closed_at=at(9),
    version=17,
)
NOW = at(10) + timedelta(milliseconds=250)
