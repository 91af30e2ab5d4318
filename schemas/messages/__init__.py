"""Every payload on the wire, as frozen, validated Structs. JSON, UTF-8, at most 16 KiB.

Times are RFC 3339 with an offset. Coordinates are WGS 84 degrees. Ids are UUIDs: version 7 where
a device makes them, version 5 where the broker derives them, so that repeating a step repeats
the id. See `schemas/topics.py` for who sends which payload where. Each module has what one side
sends to the other; what other rooms read is imported from here.
"""

from schemas.messages.fields import EmergencyCall, Mode, Position, Status
from schemas.messages.from_desks import (
    Acknowledge,
    Ask,
    Assign,
    Close,
    DeskSync,
    Inform,
    PoliceCommand,
    Reporters,
    SetStatus,
)
from schemas.messages.from_participants import (
    TAKES_ALERTS,
    Answer,
    Availability,
    Form,
    GroupMessage,
    Presence,
    Reply,
    ReplyKind,
    Report,
    Sync,
)
from schemas.messages.operations import Probe, Rejection, ServiceState, ServiceStatus, Unattended
from schemas.messages.receipts import DeliveryReceipt, Merge, Outcome, Receipt, Subject
from schemas.messages.to_desks import Case, Escalation, EscalationKind, IncidentState
from schemas.messages.to_participants import (
    Alert,
    AlertReason,
    Brief,
    GroupEvent,
    GroupEventKind,
    GroupRole,
    Question,
)

__all__ = [
    "TAKES_ALERTS",
    "Acknowledge",
    "Alert",
    "AlertReason",
    "Answer",
    "Ask",
    "Assign",
    "Availability",
    "Brief",
    "Case",
    "Close",
    "DeliveryReceipt",
    "DeskSync",
    "EmergencyCall",
    "Escalation",
    "EscalationKind",
    "Form",
    "GroupEvent",
    "GroupEventKind",
    "GroupMessage",
    "GroupRole",
    "IncidentState",
    "Inform",
    "Merge",
    "Mode",
    "Outcome",
    "PoliceCommand",
    "Position",
    "Presence",
    "Probe",
    "Question",
    "Receipt",
    "Rejection",
    "Reply",
    "ReplyKind",
    "Report",
    "Reporters",
    "ServiceState",
    "ServiceStatus",
    "SetStatus",
    "Status",
    "Subject",
    "Sync",
    "Unattended",
]
