"""What an alert says: the same for every recipient of an incident, except id, wave and reason."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from broker.core.incidents import Incident
from schemas.codec import encode
from schemas.ids import alert_id, alert_ids
from schemas.messages import Alert, AlertReason, Brief
from schemas.taxonomy import EMERGENCY_NUMBER, Names

DrawUp = Callable[[str, int, AlertReason], Alert]
_NOBODY = UUID(int=0)  # placeholder for each recipient's id


def alerts_of(incident: Incident, advice: Names, *, expires_at: datetime) -> DrawUp:
    """Return a function that builds the alert of `incident` for (user, wave, reason)."""
    code = incident.category
    names = incident.names or Names(nl=code, fr=code, en=code)

    def draw_up(user: str, wave: int, reason: AlertReason) -> Alert:
        return Alert(
            id=alert_id(incident.id, wave, user),
            incident=incident.id,
            wave=wave,
            reason=reason,
            category=incident.category,
            names=names,
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

    return draw_up


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


def payloads_of(
    incident: Incident, advice: Names, *, expires_at: datetime, wave: int, reason: AlertReason
) -> Callable[[str], bytes]:
    """Return a function that encodes each user's alert: all but the id is encoded once."""
    alert = alerts_of(incident, advice, expires_at=expires_at)("", wave, reason)
    before, after = encode(replace(alert, id=_NOBODY)).split(str(_NOBODY).encode(), 1)
    identify = alert_ids(incident.id, wave)

    def payload(user: str) -> bytes:
        return before + identify(user).encode() + after

    return payload
