"""What happened to an incident and why, in short sentences, for `nabij explain`.

A note holds no participant's position; the incident itself has its place.
"""

from datetime import datetime

from msgspec import Struct

from broker.core.grid import distance_m
from broker.core.incidents import Incident
from schemas.messages import (
    AlertReason,
    Assign,
    Close,
    PoliceCommand,
    Reply,
    Report,
    SetStatus,
    Status,
)
from schemas.taxonomy import Audience

COUNT = "{count}"  # placeholder for a number that only the store's script knows

_WHY = {
    AlertReason.NEARBY: "nearby at commit",
    AlertReason.WALKED_IN: "came within the radius",
    AlertReason.WIDENED: "within the wider radius",
    AlertReason.OTHER: "for another reason",  # of a later version
}


class Note(Struct, frozen=True, omit_defaults=True):
    """One thing that happened; `user` is the participant who did it, if one did."""

    event: str
    at: datetime
    why: str
    user: str | None = None


def reported(incident: Incident, report: Report, user: str, at: datetime) -> Note:
    """Return why `report` opened `incident`, or joined it."""
    if incident.reports > 1:
        here, there = report.location, incident.location
        distance = distance_m(here.lat, here.lon, there.lat, there.lon)
        why = (
            f"report {report.id}: of the same kind, {distance:.0f} m from the first one "
            f"(at most {incident.merge_m:g} m); its reporter is not alerted from now on"
        )
        return Note("merged", at, why, user)
    why = (
        f"report {report.id}: {incident.urgency} {incident.category} ({incident.mode}) in zone "
        f"{incident.zone}, municipality {incident.municipality}, for the {incident.desk}; no open "
        f"incident of its kind is near enough to join; {_reach(incident)}"
    )
    return Note("opened", at, why, user)


def _reach(incident: Incident) -> str:
    return not_alerting(incident) or f"alerts people within {incident.radius_m:g} m"


def not_alerting(incident: Incident) -> str | None:
    """Return why `incident` alerts no one; None if it does."""
    if incident.audience is Audience.POLICE:
        return "alerts nobody: its audience is the police alone"
    if incident.is_old:
        return (
            "alerts nobody: all that was reported was seen more than "
            f"{incident.alert_if_seen_within_s} s before"
        )
    if incident.radius_m <= 0:
        return f"alerts nobody: {incident.category} has no radius"
    return None


def changed(before: Incident, after: Incident, at: datetime) -> Note | None:
    """Return the note of a deadline or the end; None where the handler writes its own."""
    if after.status is Status.CLOSED and before.status is not Status.CLOSED:
        return Note("closed", at, f"outcome: {after.outcome}")
    if after.wave > before.wave:
        why = (
            f"nobody had accepted in time: wave {after.wave}, "
            f"radius {before.radius_m:g} → {after.radius_m:g} m"
        )
        return Note("widened", at, why)
    if after.attempts > before.attempts:
        why = f"the police had not acknowledged in time: escalated again, attempt {after.attempts}"
        return Note("overdue", at, why)
    return None


def alerted(incident: Incident, reason: AlertReason, at: datetime) -> Note:
    """Return the note of one fan-out, with `COUNT` for the number of people."""
    why = f"{COUNT} {_WHY[reason]}: wave {incident.wave}, radius {incident.radius_m:g} m"
    return Note("alerted", at, why)


def reason_of(reason: AlertReason) -> str:
    """Return why a participant was alerted, in words."""
    return _WHY[reason]


def commanded(order: PoliceCommand, at: datetime) -> Note:
    """Return the note of a command; questions and what the police tell have notes of their own."""
    match order:
        case Assign():
            what = f" {order.unit}"
        case SetStatus():
            what = f" {order.status}"
        case Close():
            what = f": {order.outcome}"
        case _:
            what = ""
    return Note("commanded", at, f"{order.__struct_config__.tag}{what}, by {order.by}")


def replied(user: str, reply: Reply, at: datetime) -> Note:
    """Return the note of a participant's answer to the alert."""
    eta = f", arrives in {reply.eta_s} s" if reply.eta_s is not None else ""
    return Note("replied", at, f"{reply.kind}{eta}", user)
