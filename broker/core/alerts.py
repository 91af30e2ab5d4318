"""What an alert says: the same to everyone of an incident, but for its id, wave and reason."""

from collections.abc import Callable
from datetime import datetime

from broker.core.incidents import Incident
from schemas.ids import alert_id, alert_ids
from schemas.messages import Alert, AlertReason
from schemas.taxonomy import Category, Names

DrawUp = Callable[[str, int, AlertReason], Alert]


def alerts_of(
    incident: Incident, category: Category, advice: Names, *, expires_at: datetime
) -> DrawUp:
    """Return what draws up the alert of `incident` for (user, wave, reason)."""
    identify = alert_ids(incident.id, incident.wave)

    def draw_up(user: str, wave: int, reason: AlertReason) -> Alert:
        return Alert(
            id=identify(user) if wave == incident.wave else alert_id(incident.id, wave, user),
            incident=incident.id,
            wave=wave,
            reason=reason,
            category=incident.category,
            names=category.names,
            urgency=incident.urgency,
            location=incident.location,
            radius_m=incident.radius_m,
            opened_at=incident.opened_at,
            expires_at=expires_at,
            advice=advice,
            text=incident.text or None,
            mode=incident.mode,
        )

    return draw_up
