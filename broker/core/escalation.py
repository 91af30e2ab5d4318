"""What goes to the police: which zone and priority, and by when the police must have answered."""

from datetime import datetime, timedelta
from uuid import UUID

from broker.core.incidents import Incident
from schemas.ids import answer_escalation_id, case_id, escalation_id, overdue_id, said_id
from schemas.messages import (
    Answer,
    Case,
    Escalation,
    EscalationKind,
    GroupMessage,
    Report,
    Status,
)
from schemas.taxonomy import Desk, Timers, Urgency


def escalation_of(report: Report, incident: Incident, now: datetime) -> Escalation:
    """Return the escalation of `report`, which opened `incident` or joined it."""
    return Escalation(
        id=escalation_id(report.id),
        kind=EscalationKind.NEW if incident.reports == 1 else EscalationKind.UPDATE,
        incident=incident.id,
        version=incident.version,
        zone=incident.zone,
        priority=incident.priority,
        category=incident.category,
        location=report.location,
        committed_at=now,
        report=report.id,
        seen_at=report.seen_at,
        text=report.text,
        emergency_call=report.emergency_call,
        audience=report.audience,
        language=report.language,
        reporter_location=report.reporter_location,
        reports=incident.reports,
        mode=report.mode,
    )


def overdue_of(incident: Incident, now: datetime) -> Escalation:
    """Return the escalation that says: nobody has acknowledged this (`incident.attempts` tries)."""
    return Escalation(
        id=overdue_id(incident.id, incident.attempts),
        kind=EscalationKind.OVERDUE,
        incident=incident.id,
        version=incident.version,
        zone=incident.zone,
        priority=incident.priority,
        category=incident.category,
        location=incident.location,
        committed_at=now,
        report=incident.first_report,
        seen_at=incident.first_seen_at,
        reports=incident.reports,
        attempt=incident.attempts,
        mode=incident.mode,
    )


def answer_of(answer: Answer, incident: Incident, report: UUID, now: datetime) -> Escalation:
    """Return the escalation that carries a reporter's answer."""
    return Escalation(
        id=answer_escalation_id(answer.id),
        kind=EscalationKind.ANSWER,
        incident=incident.id,
        version=incident.version,
        zone=incident.zone,
        priority=incident.priority,
        category=incident.category,
        location=incident.location,
        committed_at=now,
        report=report,
        text=answer.text,
        reports=incident.reports,
        question=answer.question,
        mode=incident.mode,
    )


def said_to_police(
    message: GroupMessage, incident: Incident, report: UUID, now: datetime
) -> Escalation:
    """Return the escalation that carries what the reporter of `report` says to the police alone."""
    return Escalation(
        id=said_id(message.id),
        kind=EscalationKind.SAID,
        incident=incident.id,
        version=incident.version,
        zone=incident.zone,
        priority=incident.priority,
        category=incident.category,
        location=incident.location,
        committed_at=now,
        report=report,
        text=message.text,
        audience=incident.audience,
        reports=incident.reports,
        mode=incident.mode,
    )


def said_to_city(message: GroupMessage, incident: Incident, report: UUID, now: datetime) -> Case:
    """Return the case that carries what the reporter of `report` says to the city's desk alone."""
    return Case(
        id=said_id(message.id),
        incident=incident.id,
        report=report,
        version=incident.version,
        municipality=incident.municipality,
        category=incident.category,
        location=incident.location,
        seen_at=now,
        committed_at=now,
        text=message.text,
        reports=incident.reports,
        message=message.id,
        mode=incident.mode,
    )


def case_of(report: Report, incident: Incident, now: datetime) -> Case:
    """Return the city desk's case of `report`."""
    return Case(
        id=case_id(report.id),
        incident=incident.id,
        report=report.id,
        version=incident.version,
        municipality=incident.municipality,
        category=incident.category,
        location=report.location,
        seen_at=report.seen_at,
        committed_at=now,
        text=report.text,
        language=report.language,
        reports=incident.reports,
        mode=report.mode,
    )


def awaits_police(incident: Incident) -> bool:
    """Whether the police have still to acknowledge."""
    return (
        incident.desk is Desk.POLICE
        and incident.urgency is Urgency.URGENT
        and incident.status is Status.OPEN
    )


def acknowledge_by(incident: Incident, timers: Timers) -> datetime:
    """Return when the incident is escalated again if nobody has acknowledged."""
    return incident.opened_at + timedelta(seconds=timers.acknowledge_s * incident.attempts)


def accept_by(incident: Incident, timers: Timers) -> datetime:
    """Return when the radius widens if nobody nearby has accepted."""
    return incident.wave_at + timedelta(seconds=timers.accept_s)


def accept_again_by(
    incident: Incident, *, accepted: int, left: int, timers: Timers, now: datetime
) -> datetime | None:
    """Return when the radius widens after all, if `left` of those who had accepted are left.

    None if some are, or none had accepted. A deadline that still runs and is sooner stays.
    """
    if accepted and not left and incident.alerts_people:
        return now + timedelta(seconds=timers.accept_s)
    return None


def silence(incident: Incident, timers: Timers) -> timedelta:
    """Return how long nothing may happen before the incident closes."""
    urgent = incident.urgency is Urgency.URGENT
    return timedelta(seconds=timers.silence_s if urgent else timers.silence_routine_s)
