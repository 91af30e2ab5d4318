"""Ids: made by devices (UUIDv7) or derived by the broker (UUIDv5), so that repeats repeat the id."""

from uuid import UUID

import uuid_utils

_REGION, _VERSION = 0xFFFF, 0xF << 76
NAMESPACE = UUID("6e616269-6a00-5000-8000-6e6162696a00")
_NAMESPACE = uuid_utils.UUID(str(NAMESPACE))


def new_id() -> UUID:
    """Return a fresh UUIDv7 (RFC 9562, 5.7)."""
    return UUID(int=uuid_utils.uuid7().int)


def made_at_ms(identifier: UUID) -> int:
    """Return when its maker's clock made a UUIDv7 (Unix ms; RFC 9562, 5.7)."""
    return identifier.int >> 80


def _derived(*parts: object) -> UUID:
    return UUID(int=uuid_utils.uuid5(_NAMESPACE, "|".join(map(str, parts))).int)


def incident_id(first_report: UUID, region: int = 0) -> UUID:
    """Return the id of the incident that `first_report` opens in a region (16 bits).

    A UUIDv8 (RFC 9562, 5.8) that ends in its region, which names its partition.
    """
    return _in_region(_derived("incident", first_report), region)


def conversation_id(report: UUID, region: int) -> UUID:
    """Return the id by which a reporter knows the incident of a report for the police alone.

    It is that of the incident that `report` would open in the region of its place. So it does not
    tell whether the report opened that incident or joined another's.
    """
    return incident_id(report, region)


def is_opened_by(incident: UUID, first_report: UUID) -> bool:
    """Whether `first_report` opened `incident`, in any region."""
    return incident == incident_id(first_report, region_in(incident))


def without_region(incident: UUID) -> UUID:
    """Return the id that `incident` would have in region 0: a report has one."""
    return UUID(int=incident.int & ~_REGION)


def region_in(identifier: UUID) -> int:
    """Return the region that the id of an incident or a question names."""
    return identifier.int & _REGION


def _in_region(derived: UUID, region: int) -> UUID:
    return UUID(int=derived.int & ~(_REGION | _VERSION) | 8 << 76 | region)


def alert_id(incident: UUID, wave: int) -> UUID:
    """Return the id of the alert of `incident` to everybody who is alerted in `wave`."""
    return _derived("alert", incident, wave)


def escalation_id(report: UUID) -> UUID:
    """Return the id of the escalation that `report` causes."""
    return _derived("escalation", report)


def overdue_id(incident: UUID, attempt: int) -> UUID:
    """Return the id of escalation number `attempt` (from 2) of `incident`."""
    return _derived("overdue", incident, attempt)


def answer_escalation_id(answer: UUID) -> UUID:
    """Return the id of the escalation with `answer` for the police."""
    return _derived("answer", answer)


def said_id(message: UUID) -> UUID:
    """Return the id of the escalation or case with what a reporter says to the desk."""
    return _derived("said", message)


def case_id(report: UUID) -> UUID:
    """Return the id of the city's case of `report`."""
    return _derived("case", report)


def question_id(command: UUID, report: UUID, incident: UUID) -> UUID:
    """Return the id of the question that `command` asks the reporter of `report`.

    It is in the region of `incident`, as the reporter knows it.
    """
    return _in_region(_derived("question", command, report), region_in(incident))


def group_event_id(incident: UUID, cause: object) -> UUID:
    """Return the id of the group event of `incident` that follows from `cause` (a message's id)."""
    return _derived("group", incident, cause)
