"""What goes to the police: zone, priority, and the deadlines for an answer."""

from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

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
    kind = EscalationKind.NEW if incident.reports == 1 else EscalationKind.UPDATE
    return replace(
        _escalation(escalation_id(report.id), kind, incident, report=report.id, now=now),
        location=report.location,
        seen_at=report.seen_at,
        text=report.text,
        emergency_call=report.emergency_call,
        audience=report.audience,
        language=report.language,
        reporter_location=report.reporter_location,
        mode=report.mode,
    )


def overdue_of(incident: Incident, now: datetime) -> Escalation:
    """Return the escalation of an incident that is not acknowledged after `incident.attempts`."""
    identifier, first = overdue_id(incident.id, incident.attempts), incident.first_report
    return replace(
        _escalation(identifier, EscalationKind.OVERDUE, incident, report=first, now=now),
        seen_at=incident.first_seen_at,
        attempt=incident.attempts,
    )


def answer_of(answer: Answer, incident: Incident, report: UUID, now: datetime) -> Escalation:
    """Return the escalation that carries a reporter's answer."""
    identifier = answer_escalation_id(answer.id)
    return replace(
        _escalation(identifier, EscalationKind.ANSWER, incident, report=report, now=now),
        text=answer.text,
        question=answer.question,
    )


def said_to_police(
    message: GroupMessage, incident: Incident, report: UUID, now: datetime
) -> Escalation:
    """Return the escalation with what the reporter of `report` says to the police alone."""
    return replace(
        _escalation(said_id(message.id), EscalationKind.SAID, incident, report=report, now=now),
        text=message.text,
        audience=incident.audience,
    )


def _escalation(
    identifier: UUID, kind: EscalationKind, incident: Incident, *, report: UUID, now: datetime
) -> Escalation:
    """Return an escalation with what all about `incident` share, at its place and in its mode."""
    return Escalation(
        id=identifier,
        kind=kind,
        incident=incident.id,
        version=incident.version,
        zone=incident.zone,
        priority=incident.priority,
        category=incident.category,
        location=incident.location,
        committed_at=now,
        report=report,
        reports=incident.reports,
        mode=incident.mode,
    )


def said_to_city(message: GroupMessage, incident: Incident, report: UUID, now: datetime) -> Case:
    """Return the case with what the reporter of `report` says to the city's desk alone."""
    return replace(
        _case(said_id(message.id), incident, report, now), text=message.text, message=message.id
    )


def case_of(report: Report, incident: Incident, now: datetime) -> Case:
    """Return the city desk's case of `report`."""
    return replace(
        _case(case_id(report.id), incident, report.id, now),
        location=report.location,
        seen_at=report.seen_at,
        text=report.text,
        language=report.language,
        mode=report.mode,
    )


def _case(identifier: UUID, incident: Incident, report: UUID, now: datetime) -> Case:
    """Return a case with what all of `incident` share, with its place and mode, as if seen now."""
    return Case(
        id=identifier,
        incident=incident.id,
        report=report,
        version=incident.version,
        municipality=incident.municipality,
        category=incident.category,
        location=incident.location,
        seen_at=now,
        committed_at=now,
        reports=incident.reports,
        mode=incident.mode,
    )


def awaits_police(incident: Incident) -> bool:
    """Whether the police have yet to acknowledge."""
    return (
        incident.desk is Desk.POLICE
        and incident.urgency is Urgency.URGENT
        and incident.status is Status.OPEN
    )


def acknowledge_by(incident: Incident, timers: Timers) -> datetime:
    """Return when the incident is escalated again if it is not acknowledged."""
    return incident.opened_at + timedelta(seconds=timers.acknowledge_s * incident.attempts)


def accept_by(incident: Incident, timers: Timers) -> datetime:
    """Return when the radius widens if no participant has accepted."""
    return incident.wave_at + timedelta(seconds=timers.accept_s)


def accept_again_by(
    incident: Incident, *, accepted: int, left: int, timers: Timers, now: datetime
) -> datetime | None:
    """Return when the radius widens if the last participant who had accepted has left.

    None if some are, or none had accepted. A deadline that still runs and is sooner stays.
    """
    if accepted and not left and incident.alerts_people:
        return now + timedelta(seconds=timers.accept_s)
    return None


def silence(incident: Incident, timers: Timers) -> timedelta:
    """Return how long an incident, or a conversation about it, may be silent before it closes."""
    urgent = incident.urgency is Urgency.URGENT
    return timedelta(seconds=timers.silence_s if urgent else timers.silence_routine_s)
