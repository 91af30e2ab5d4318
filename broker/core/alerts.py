"""What an alert says: the same to everybody who is alerted in one wave, for one reason."""

from datetime import datetime

from broker.core.incidents import Incident
from schemas.ids import alert_id
from schemas.messages import Alert, AlertReason, Brief
from schemas.taxonomy import EMERGENCY_NUMBER, Names


def alert_of(
    incident: Incident, advice: Names, *, expires_at: datetime, wave: int, reason: AlertReason
) -> Alert:
    """Return the alert of `incident`."""
    code = incident.category
    return Alert(
        id=alert_id(incident.id, wave),
        incident=incident.id,
        wave=wave,
        reason=reason,
        category=incident.category,
        names=incident.names or Names(nl=code, fr=code, en=code),
        urgency=incident.urgency,
        location=incident.location,
        radius_m=incident.radius_m,
        opened_at=incident.opened_at,
        seen_at=incident.last_seen_at,
        expires_at=expires_at,
        advice=advice,
        text=incident.text or None,
        mode=incident.mode,
    )


def brief_of(alert: Alert) -> Brief:
    """Return an alert as a small device reads it, with a bounded size under any policy."""
    return Brief(
        id=alert.id,
        incident=alert.incident,
        category=alert.category,
        lat=round(alert.location.lat, 5),
        lon=round(alert.location.lon, 5),
        expires_at=alert.expires_at.replace(microsecond=0),
        call=EMERGENCY_NUMBER,
        mode=alert.mode,
    )
