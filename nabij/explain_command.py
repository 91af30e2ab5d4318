"""`nabij explain`: prints from the record what happened to an incident or a person, and why."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from broker.core.health import with_mend
from broker.core.incident_history import Note, not_alerting, reason_of
from broker.core.incidents import Incident
from broker.core.membership import Member
from broker.errors import ConfigError, UnavailableError
from broker.runtime.config import Settings
from broker.store import AlertRecord, DeliveryState, Partitions, StoredIncident
from nabij.event_loop import run
from nabij.local.account_names import is_name
from nabij.local.opened_store import describe_running, each_to_search, opened_store, searched
from nabij.output import counted, one_line, print_json, print_line, say

_FEWEST, _WHOLE = 6, 36  # as the demo shows them; a full id with hyphens

_Record = tuple[StoredIncident, Mapping[str, AlertRecord], list[Note]]

_REPORTED = ("opened", "merged")
_DELIVERY = {
    DeliveryState.CLAIMED: "is being sent",
    DeliveryState.SENT: "sent, not yet confirmed by the device",
    DeliveryState.REFUSED: "refused by the MQTT broker, will be tried again",
    DeliveryState.DELIVERED: "delivered, on the device's word",
    DeliveryState.EXPIRED: "expired: no device confirmed it in time",
}


def run_explain(settings: Settings, incident: str, user: str | None, *, as_json: bool) -> bool:
    """Print the record; return whether it has the incident."""
    if user is not None and not is_name(user):
        raise ConfigError(
            [f"{user!r} is no user name: it has 1 to 40 characters of a-z, 0-9 and -"]
        )
    found = run(_read(settings, _digits(incident)))
    if found is None:
        say(
            f"no incident {incident} is known in {searched(settings)}; the id is another, or it was "
            "erased with time"
        )
        return False
    filed, alerts, notes = found
    told = _about_user(filed, alerts, notes, user) if user else _about_all(filed, alerts, notes)
    if as_json:
        print_json(told)
    else:
        _print(told)
    return True


def _digits(text: str) -> str:
    """Return the full id of an incident from an id or the beginning of one."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{_FEWEST},32}}", digits):
        raise ConfigError(
            [f"{text!r} is no incident's id, nor {_FEWEST} or more digits that one begins with"]
        )
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(part for part in parts if part)


async def _read(settings: Settings, digits: str) -> _Record | None:
    """Read the record where it is: in the default directory, else in one of the running demos."""
    places = each_to_search(settings)
    if len(places) == 1:
        return await _read_at(settings, digits)
    problem: Exception | None = None
    if places[0].data_dir == settings.data_dir:  # what a person runs comes before any demo
        _, *places = places
        try:
            if record := await _read_at(settings, digits):
                return record
        except (ConfigError, UnavailableError) as error:
            problem = error
    found = {place.data_dir: await _read_if_possible(place, digits) for place in places}
    records = {path: record for path, record in found.items() if record}
    if len(records) > 1:
        raise ConfigError([_in_several(digits, records)])
    for path, record in records.items():
        say(f"found in what runs in {path}")
        return record
    if problem is not None:
        raise problem
    return None


async def _read_if_possible(settings: Settings, digits: str) -> _Record | None:
    try:
        return await _read_at(settings, digits)
    except (ConfigError, UnavailableError) as error:  # a demo that starts or ends
        say(f"{describe_running(settings.data_dir)}: {with_mend(str(error))}")
        return None


def _in_several(digits: str, records: Mapping[Path, _Record]) -> str:
    each = "; ".join(
        f"{one.incident.category} in zone {one.incident.zone}, opened "
        f"{_time(one.incident.opened_at)}, in {describe_running(path)}"
        for path, (one, _, _) in records.items()
    )
    return (
        f"incidents of several demos or replays begin with {digits}: name the directory of one "
        f"with --data-dir: {each}"
    )


async def _read_at(settings: Settings, digits: str) -> _Record | None:
    async with opened_store(settings) as partitions:
        identifier = await _whole(partitions, digits)
        if identifier is None:
            return None
        home = partitions.of(identifier)
        store = await partitions.holding(home, identifier) or home
        filed = await store.conversations.get(identifier)  # or a reporter's own id for it
        if filed is None:
            return None
        incident = filed.incident.id
        alerts = {one.user: one for one in await store.alerts.of(incident)}
        return filed, alerts, await store.history.of(incident)


async def _whole(partitions: Partitions, digits: str) -> UUID | None:
    if len(digits) == _WHOLE:
        return UUID(digits)
    found = {one for part in partitions for one in await part.incidents_beginning(digits)}
    if len(found) > 1:
        raise ConfigError([f"several incidents begin with {digits}: {', '.join(map(str, found))}"])
    return found.pop() if found else None


# -- what it comes to ----------------------------------------------------------------------------


def _about_all(
    filed: StoredIncident, alerts: Mapping[str, AlertRecord], notes: list[Note]
) -> dict[str, Any]:
    states = [one.state for one in alerts.values()]
    return {
        "incident": _incident(filed.incident),
        "conversation": _conversation(filed),
        "decisions": notes,
        "deliveries": {state: states.count(state) for state in DeliveryState},
        "recipients": [_recipient(one, filed.people.get(one.user)) for one in alerts.values()],
    }


def _about_user(
    filed: StoredIncident, alerts: Mapping[str, AlertRecord], notes: list[Note], user: str
) -> dict[str, Any]:
    alert = alerts.get(user)
    member = filed.people.get(user)
    has_reported = any(note.user == user and note.event in _REPORTED for note in notes)
    return {
        "incident": _incident(filed.incident),
        "conversation": _conversation(filed),
        "user": user,
        "alerted": alert is not None,
        "why": _why(alert) if alert else _why_not(filed.incident, has_reported=has_reported),
        "recipient": _recipient(alert, member) if alert else None,
        "decisions": [note for note in notes if note.user == user],
    }


def _incident(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "category": incident.category,
        "status": incident.status,
        "zone": incident.zone,
        "opened_at": incident.opened_at,
        "closed_at": incident.closed_at,
        "radius_m": incident.radius_m,
        "wave": incident.wave,
        "reports": incident.reports,
    }


def _conversation(filed: StoredIncident) -> dict[str, Any] | None:
    """Return a reporter's own id of an incident for a desk alone, and their report."""
    return {"id": filed.conversation, "report": filed.report} if filed.report else None


def _recipient(alert: AlertRecord, member: Member | None) -> dict[str, Any]:
    return {
        "user": alert.user,
        "reason": alert.reason,
        "wave": alert.wave,
        "claimed_at": alert.claimed_at,
        "delivery": alert.state,
        "delivery_at": alert.at,
        "tries": alert.tries,
        "mqtt_reason_code": alert.code,
        "part": member.part if member else None,
    }


def _why(alert: AlertRecord) -> str:
    return f"{reason_of(alert.reason)} (wave {alert.wave}); {_DELIVERY[alert.state]}"


def _why_not(incident: Incident, *, has_reported: bool) -> str:
    if has_reported:
        return "reported the incident: reporters are not alerted to it"
    if nobody := not_alerting(incident):
        return nobody
    end = f" closed {_time(incident.closed_at)};" if incident.closed_at else ""
    return (
        f"not in the record:{end} while it was open no place in effect of theirs was known to be "
        f"within its radius (at last {incident.radius_m:g} m). Muted, away, or heard of too long "
        "ago counts as no place; positions are not kept, so that is all that can be said"
    )


# -- for people ----------------------------------------------------------------------------------


def _print(told: dict[str, Any]) -> None:
    incident = told["incident"]
    print_line(
        f"incident {incident['id']}: {incident['category']} in zone {incident['zone']}, "
        f"{incident['status']}, wave {incident['wave']}, {counted(incident['reports'], 'report')}"
    )
    if apart := told["conversation"]:
        print_line(f"the reporter of {apart['report']} knows it as {apart['id']}")
    if "user" in told:
        verb = "was alerted" if told["alerted"] else "was not alerted"
        print_line(f"{told['user']} {verb}: {told['why']}")
    for note in told["decisions"]:
        who = f" by {note.user}" if note.user else ""
        print_line(one_line(f"{_time(note.at)}  {note.event}{who}: {note.why}"))
    for one in told.get("recipients", [told.get("recipient")]):
        if one is not None:
            _print_recipient(one)


def _print_recipient(one: dict[str, Any]) -> None:
    code = f", PUBACK {one['mqtt_reason_code']}" if one["mqtt_reason_code"] else ""
    print_line(
        f"{_time(one['claimed_at'])}  alerted {one['user']}: {reason_of(one['reason'])} (wave "
        f"{one['wave']}); {_time(one['delivery_at'])} {_DELIVERY[one['delivery']]} "
        f"({_tries(one['tries'])}{code}); now {one['part']}"
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _tries(number: int) -> str:
    return "1 try" if number == 1 else f"{number} tries"
