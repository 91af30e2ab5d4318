"""Commits as the services make them, for tests of the store."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from broker.core.changes import Change, IncidentChanged
from broker.core.grid import place_of, region_of
from broker.core.incidents import Incident, closed, merged, opened_by, widened
from broker.core.membership import Member, reporter
from broker.store import Neighbourhood, OutboxMessage, ReceiptRecord, Store
from broker.store.kernel.keys import Keys
from schemas.messages import Outcome, Receipt, Report, Subject
from schemas.taxonomy import Audience
from tests.core.samples import POLICY, START, category

KEYS = Keys()

TIMERS = POLICY.timers
NEARBY = Audience.POLICE_AND_NEARBY


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


NOW_MS = milliseconds(START)


def receipt_of(message: UUID) -> Receipt:
    return Receipt(subject=Subject.REPORT, outcome=Outcome.ACCEPTED, at=START, id=message)


def changed(incident: Incident, change: Change = Change.OPENED) -> IncidentChanged:
    return IncidentChanged(incident=incident.id, change=change, at=START, desk=incident.desk)


def opened(report: Report, now: datetime = START) -> Incident:
    return opened_by(
        report,
        category(report.category),
        audience=NEARBY,
        zone="gent",
        municipality="gent",
        now=now,
        region=region_of(place_of(report.location.lat, report.location.lon)),
    )


def joined(incident: Incident, report: Report) -> Incident:
    return replace(merged(incident, report, START), version=incident.version + 1)


async def commit(
    store: Store,
    report: Report,
    incident: Incident,
    *,
    user: str = "ann",
    seen: Neighbourhood | None = None,
    posted: OutboxMessage | None = None,
    member: Member | None = None,
) -> int | None:
    seen = seen or await store.incidents.neighbourhood(report, NEARBY)
    return await store.incidents.commit_report(
        report,
        ReceiptRecord(report.id, user, "digest", receipt_of(report.id)),
        member=member or reporter({}, "zoe"),
        incident=incident,
        seen=seen,
        event=changed(incident, Change.OPENED if incident.reports == 1 else Change.MERGED),
        posted=posted,
        timers=TIMERS,
        now=incident.opened_at,
    )


async def open_incident(store: Store, report: Report, *, user: str = "ann") -> Incident:
    incident = opened(report)
    assert await commit(store, report, incident, user=user) is not None
    return incident


async def change(store: Store, before: Incident, after: Incident) -> Incident:
    after = replace(after, version=before.version + 1)
    assert await store.incidents.change(before, after, active_at=START, timers=TIMERS)
    return after


async def widen(store: Store, incident: Incident, radius_m: float) -> Incident:
    return await change(store, incident, widened(incident, radius_m, START))


async def close(store: Store, incident: Incident) -> Incident:
    return await change(store, incident, closed(incident, "done", START))


def names(found: Sequence[Incident]) -> list[UUID]:
    return [incident.id for incident in found]


async def open_incidents(store: Store) -> int:
    return int(await store.incidents._redis.call("ZCARD", KEYS.open_incidents))


async def candidates(store: Store, one: Report) -> list[object]:
    merge_m = category(one.category).merge_m
    return list(names((await store.incidents.neighbourhood(one, NEARBY, merge_m)).candidates))
