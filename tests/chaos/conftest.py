"""A small run in which all went well, made by hand, for each test to break in one place."""

import uuid
from uuid import UUID

import pytest

from broker.core.policy import Policy
from schemas.ids import alert_id, escalation_id, group_event_id, incident_id
from schemas.messages import (
    AlertReason,
    EscalationKind,
    GroupEventKind,
    Merge,
    Outcome,
    Status,
    Subject,
)
from verify.chaos.chaos_evidence import ChaosEvidence, StoreFacts
from verify.chaos.chaos_judge import judge
from verify.chaos.chaos_log import JournalAdded, JournalRemoved, Started
from verify.chaos.chaos_world import policy_text
from verify.oracle.geofence import cell_at
from verify.oracle.judgement import Judgement
from verify.oracle.observations import (
    AlertSeen,
    CommandSent,
    EscalationSeen,
    GroupEventSeen,
    PresenceSent,
    ReceiptSeen,
    ReportCreated,
    StateSeen,
)

SETTLED_AT = 1_000.0
KORENMARKT = (51.0543, 3.7217)
FAR_AWAY = (51.10, 3.80)


class SmallRun:
    """ann reports a fire, bob next to it is alerted, cleo far away is not; the police inform."""

    def __init__(self) -> None:
        self.report = uuid.UUID("01a20010-609a-7508-98ec-a3732a0a98f8")
        self.incident = incident_id(self.report)
        self.command = uuid.UUID("01a20010-609a-7508-98ec-a3732a0a98f9")
        self.facts = StoreFacts()
        self.facts.reports[self.report] = 1
        self.poison: set[str] = set()
        self.growth: list[str] = []
        self.evidence = ChaosEvidence()
        self.device_log()
        self.desk_log()

    def device_log(self) -> None:
        lat, lon = KORENMARKT
        self.evidence.add(
            "device-1",
            [
                Started(t=1.0, process="device-1"),
                self.stands("bob", KORENMARKT),
                self.stands("cleo", FAR_AWAY),
                ReportCreated(
                    t=10.0,
                    user="ann",
                    id=self.report,
                    category="fire",
                    lat=lat,
                    lon=lon,
                    seen_at=10.0,
                ),
                JournalAdded(t=10.1, id=self.report),
                JournalRemoved(t=10.2, id=self.report),
                self.receipt(),
                self.alert("bob"),
                self.said(group_event_id(self.incident, self.command)),
            ],
        )

    def desk_log(self) -> None:
        self.evidence.add(
            "desk",
            [
                self.escalation(escalation_id(self.report)),
                self.state(1),
                self.state(2),
                CommandSent(
                    t=20.0,
                    zone="gent",
                    id=self.command,
                    incident=self.incident,
                    command="inform",
                    text="inform 1",
                ),
                self.answer(self.command, 20.1),
                StateSeen(
                    t=30.0,
                    zone="gent",
                    incident=self.incident,
                    version=2,
                    status=Status.OPEN,
                    late=True,
                ),
            ],
        )

    def stands(
        self,
        user: str,
        place: tuple[float, float] | None,
        t: float = 2.0,
        done: float | None = 2.1,
        *,
        short: bool = False,
    ) -> PresenceSent:
        """The user says where they are, or hides; it is confirmed, or (no `done`) is not."""
        cell = cell_at(*place) if place else None
        return PresenceSent(t=t, user=user, number=int(t), cell=cell, short=short, done=done)

    def answer(
        self,
        command: UUID,
        t: float,
        outcome: Outcome = Outcome.ACCEPTED,
        code: str | None = None,
    ) -> ReceiptSeen:
        return ReceiptSeen(
            t=t, to="gent", id=command, subject=Subject.COMMAND, outcome=outcome, code=code
        )

    def receipt(self, *, sequence: int = 1) -> ReceiptSeen:
        return ReceiptSeen(
            t=10.2,
            to="ann",
            id=self.report,
            subject=Subject.REPORT,
            outcome=Outcome.ACCEPTED,
            incident=self.incident,
            merge=Merge.OPENED,
            sequence=sequence,
        )

    def alert(self, user: str, wave: int = 1) -> AlertSeen:
        return AlertSeen(
            t=10.3,
            user=user,
            id=alert_id(self.incident, wave),
            incident=self.incident,
            wave=wave,
            reason=AlertReason.NEARBY,
        )

    def said(self, identifier: UUID, sequence: int = 1) -> GroupEventSeen:
        return GroupEventSeen(
            t=20.2,
            user="ann",
            id=identifier,
            incident=self.incident,
            sequence=sequence,
            kind=GroupEventKind.SAID,
            at=20.1,
            text="inform 1",
        )

    def escalation(self, identifier: UUID) -> EscalationSeen:
        return EscalationSeen(
            t=10.25,
            zone="gent",
            priority="p1",
            id=identifier,
            kind=EscalationKind.NEW,
            incident=self.incident,
            report=self.report,
        )

    def state(self, version: int) -> StateSeen:
        return StateSeen(
            t=10.3, zone="gent", incident=self.incident, version=version, status=Status.OPEN
        )

    def judged(self) -> Judgement:
        return judge(
            self.evidence,
            self.facts,
            Policy.parse(policy_text()).file,
            settled_at=SETTLED_AT,
            poison=self.poison,
            growth=self.growth,
        )

    def violated(self) -> dict[str, int]:
        """The invariants that do not hold, with their counts."""
        return {name: count for name, count in self.judged().counts.items() if count}


@pytest.fixture
def small_run() -> SmallRun:
    return SmallRun()
