"""Histories made by hand, told in seconds and metres around one place."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

import msgspec
from msgspec import structs

from schemas.ids import alert_id, escalation_id, incident_id, new_id
from schemas.messages import EscalationKind, Merge
from schemas.taxonomy import PolicyFile, default_policy_text
from verify.oracle.geofence import FencePolygon, Geofence, cell_at, centre_of
from verify.oracle.history import Deed, ReplayHistory, SentPresence, SentReport
from verify.oracle.observations import EscalationSeen
from verify.oracle.oracle import Oracle, OracleVerdict

METRES_PER_DEGREE = math.radians(6_371_007.180918475)

START = 1_800_000_000.0

HERE = centre_of(cell_at(51.0543, 3.7217))

POLICY = msgspec.toml.decode(default_policy_text(), type=PolicyFile)

USERS = ("ann", "bob", "cleo", "dirk")


def north_of(place: tuple[float, float], metres: float) -> tuple[float, float]:
    return place[0] + metres / METRES_PER_DEGREE, place[1]


def square(south: float, west: float, side: float) -> FencePolygon:
    ring = [(west, south), (west + side, south), (west + side, south + side), (west, south + side)]
    return FencePolygon.from_coordinates([ring])


@dataclass
class Story:
    """A history made by hand: everything takes 0.1 s from sending to receipt, in seconds."""

    history: ReplayHistory = field(default_factory=lambda: ReplayHistory(participants=USERS))
    sequences: Iterator[int] = field(default_factory=lambda: count(1))

    def presence(
        self,
        user: int,
        place: tuple[float, float] | None,
        at: float,
        *,
        took: float = 0.1,
        accuracy_m: float = 0.0,
    ) -> None:
        cell = cell_at(*place) if place else None
        sent_at = START + at
        presence = SentPresence(user, cell, sent_at, sent_at + took, accuracy_m)
        self.history.presences.append(presence)

    def report(
        self,
        user: int,
        place: tuple[float, float],
        at: float,
        *,
        joins: UUID | None = None,
        category: str = "theft",
        took: float = 0.1,
        seen_ago: float = 0.0,
        accuracy_m: float = 0.0,
    ) -> SentReport:
        report = new_id()
        sent = SentReport(
            id=report,
            user=user,
            category=category,
            lat=place[0],
            lon=place[1],
            seen_at=START + at - seen_ago,
            sent_at=START + at,
            received_at=START + at + took,
            incident=joins or incident_id(report),
            merge=Merge.MERGED if joins else Merge.OPENED,
            sequence=next(self.sequences),
            accuracy_m=accuracy_m,
        )
        self.history.reports.append(sent)
        return sent

    def escalation(
        self, report: SentReport, *, zone: str = "here", kind: str = "", priority: str = ""
    ) -> None:
        default = "new" if report.merge is Merge.OPENED else "update"
        assert report.incident
        self.history.escalations.append(
            EscalationSeen(
                t=report.received_at,
                zone=zone,
                priority=priority or POLICY.categories[report.category].priority,
                id=escalation_id(report.id),
                kind=EscalationKind(kind or default),
                incident=report.incident,
                report=report.id,
                attempt=1,
                reports=2 if default == "update" else 1,
            )
        )

    def threat(
        self, away_m: float, at: float, *, joins: SentReport | None = None, number: int = 1
    ) -> SentReport:
        """A user reports one, for the police alone; these hear it as the `number`th of one."""
        told = replace(
            self.report(0, north_of(HERE, away_m), at, category="threat"), merge=None, sequence=None
        )
        self.history.reports[-1] = told
        known = joins.incident if joins else told.incident
        merge = Merge.MERGED if joins else Merge.OPENED
        self.escalation(replace(told, incident=known, merge=merge))
        self.history.escalations[-1] = structs.replace(self.history.escalations[-1], reports=number)
        if joins is None:
            self.acknowledged(told)
        return told

    def alert(self, user: int, report: SentReport, *, wave: int = 1, at: float = 1.0) -> None:
        assert report.incident
        self.history.alerts.append(
            user=user,
            incident=report.incident,
            alert=alert_id(report.incident, wave),
            wave=wave,
            nearby=wave == 1,
            received_at=START + at,
        )

    def acknowledged(self, report: SentReport) -> None:
        assert report.incident
        deed = Deed(report.incident, report.received_at, report.received_at + 0.1)
        self.history.acknowledgements.append(deed)

    def theft(self, away_m: float) -> SentReport:
        """Ann reports one, so far north of here; the police hear of it and acknowledge."""
        theft = self.report(0, north_of(HERE, away_m), at=0.0)
        self.escalation(theft)
        self.acknowledged(theft)
        return theft

    def accepted(self, report: SentReport, at: float, *, user: int = 1) -> None:
        assert report.incident
        self.history.acceptances.append(Deed(report.incident, START + at, START + at + 0.1, user))

    def left(self, report: SentReport, at: float, *, user: int = 1) -> None:
        assert report.incident
        self.history.departures.append(Deed(report.incident, START + at, START + at + 0.1, user))

    def verdict(self, until: float = 30.0) -> OracleVerdict:
        lat, lon = HERE
        zones = Geofence({"here": (square(lat - 1.0, lon - 1.0, 2.0),)})
        oracle = Oracle(POLICY, zones=zones, municipalities=zones)
        return oracle.judge(self.history, START + until, START + until)


def clean(verdict: OracleVerdict) -> bool:
    return (verdict.missing, verdict.unexpected, verdict.merges_wrong) == (0, 0, 0)
