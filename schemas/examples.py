"""Full values of every payload on the wire: the examples of the contract.

The golden files of the tests are these values, encoded.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from schemas import messages as m
from schemas.codec import Code
from schemas.taxonomy import Audience, Desk, Language, Names, Priority, Urgency

AT = datetime(2026, 3, 1, 21, 15, 30, 250_000, tzinfo=UTC)
V7 = UUID("01954f3c-7a2b-7c3d-8e4f-5a6b7c8d9e0f")
V5 = UUID("6fa459ea-ee8a-5ca4-894e-db77e160355e")
HERE = m.Position(lat=51.0543, lon=3.7217, accuracy_m=12.5)
THERE = m.Position(lat=51.055, lon=3.722)
NAMES = Names(nl="Brand", fr="Incendie", en="Fire")
COMMAND: dict[str, Any] = {"id": V7, "incident": V5, "by": "desk 4"}

EXAMPLES: dict[str, msgspec.Struct] = {
    "report": m.Report(
        id=V7,
        category="fire",
        location=HERE,
        seen_at=AT,
        reporter_location=THERE,
        text="Rook uit het dak\nen vlammen",
        emergency_call=m.EmergencyCall.CALLED,
        audience=Audience.POLICE,
        language=Language.FR,
        mode=m.Mode.DRILL,
    ),
    "presence": m.Presence(
        at=AT, location=HERE, availability=m.Availability.ON_DUTY, form=m.Form.SHORT
    ),
    "presence-muted": m.Presence(at=AT, availability=m.Availability.MUTED),
    "reply": m.Reply(id=V7, incident=V5, kind=m.ReplyKind.ACCEPTED, eta_s=180),
    "message": m.GroupMessage(id=V7, incident=V5, text="Ik sta aan de ingang 🚒"),
    "answer": m.Answer(id=V7, question=V5, text="Twee, rode jas"),
    "sync": m.Sync(since=AT, alerts=frozenset({V5}), groups={V5: frozenset({1, 2})}),
    "delivery-receipt": m.DeliveryReceipt(ids=frozenset({V5})),
    "desk-sync": m.DeskSync(has=frozenset({V5})),
    "receipt": m.Receipt(
        subject=m.Subject.REPORT,
        outcome=m.Outcome.ACCEPTED,
        at=AT,
        id=V7,
        incident=V5,
        merge=m.Merge.OPENED,
        sequence=42,
        advice="Bel 112.",
        notes=("language: 'nl-BE' was read as 'nl'",),
    ),
    "receipt-rejected": m.Receipt(
        subject=m.Subject.REPORT,
        outcome=m.Outcome.REJECTED,
        at=AT,
        advice="Bel 112.",
        notes=("unknown field 'audiance': did you mean 'audience'?",),
        code=Code.NULL_ISLAND,
        field="$.location",
        reason="The position is (0, 0).",
    ),
    "alert": m.Alert(
        id=V5,
        incident=V5,
        wave=2,
        reason=m.AlertReason.WIDENED,
        category="fire",
        names=NAMES,
        urgency=Urgency.URGENT,
        location=HERE,
        radius_m=500.0,
        opened_at=AT,
        seen_at=AT,
        expires_at=AT,
        advice=NAMES,
        text="Rook",
        mode=m.Mode.DRILL,
    ),
    "brief": m.Brief(
        id=V5,
        incident=V5,
        category="fire",
        lat=51.0543,
        lon=3.7217,
        expires_at=AT,
        call="112",
        mode=m.Mode.DRILL,
    ),
    "group": m.GroupEvent(
        id=V5,
        incident=V5,
        sequence=3,
        kind=m.GroupEventKind.JOINED,
        at=AT,
        member="helper-2",
        role=m.GroupRole.RESPONDER,
        members=3,
        eta_s=120,
        on_scene=1,
        text="kom eraan",
        you="helper-1",
    ),
    "question": m.Question(id=V5, incident=V5, report=V7, text="Hoeveel personen?", asked_at=AT),
    "escalation": m.Escalation(
        id=V5,
        kind=m.EscalationKind.NEW,
        incident=V5,
        version=1,
        zone="gent",
        priority=Priority.P1,
        category="fire",
        location=HERE,
        committed_at=AT,
        report=V7,
        seen_at=AT,
        text="Rook",
        emergency_call=m.EmergencyCall.NOT_CALLED,
        audience=Audience.POLICE,
        language=Language.EN,
        reporter_location=THERE,
        reports=2,
        attempt=2,
        question=V5,
        mode=m.Mode.DRILL,
    ),
    "incident": m.IncidentState(
        incident=V5,
        version=9,
        status=m.Status.ASSIGNED,
        category="fire",
        priority=Priority.P1,
        zone="gent",
        location=HERE,
        radius_m=500.0,
        wave=2,
        opened_at=AT,
        seen_at=AT,
        updated_at=AT,
        reports=2,
        alerted=40,
        accepted=7,
        on_scene=1,
        acknowledged_by="desk 4",
        assigned=("gent-21",),
        outcome="geblust",
        mode=m.Mode.DRILL,
    ),
    "command-acknowledge": m.Acknowledge(**COMMAND),
    "command-assign": m.Assign(**COMMAND, unit="gent-21"),
    "command-status": m.SetStatus(**COMMAND, status=m.Status.ON_SCENE),
    "command-ask": m.Ask(**COMMAND, text="Hoeveel personen?", report=V7),
    "command-inform": m.Inform(**COMMAND, text="Blijf uit de rook.", report=V7),
    "command-close": m.Close(**COMMAND, outcome="geblust"),
    "case": m.Case(
        id=V5,
        incident=V5,
        report=V7,
        version=1,
        municipality="gent",
        category="graffiti",
        location=HERE,
        seen_at=AT,
        committed_at=AT,
        text="op de brug",
        language=Language.FR,
        reports=2,
        message=V7,
        mode=m.Mode.DRILL,
    ),
    "service": m.ServiceStatus(
        service="intake", instance="1-1", state=m.ServiceState.READY, at=AT, version="0.1.0"
    ),
    "probe": m.Probe(number=7, nonce="00112233aabbccdd"),
    "unattended": m.Unattended(desk=Desk.POLICE, zone="gent", count=2, oldest_at=AT, at=AT),
    "rejected": m.Rejection(
        service="intake",
        topic="nabij/v1/u/ann/up/report",
        code="not_json",
        field="$",
        reason="JSON is malformed.",
        at=AT,
        payload="{",
        size=1,
    ),
}


def examples_of(name: str) -> dict[str, msgspec.Struct]:
    """Return the examples of the payload `name`, by their own names."""
    return {key: each for key, each in EXAMPLES.items() if type(each).__name__ == name}
