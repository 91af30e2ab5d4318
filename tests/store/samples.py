"""Commits as the services make them, for tests of the store."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from broker.core.changes import Change, IncidentChanged
from broker.core.incidents import Incident, closed, merged, opened_by, widened
from broker.core.membership import Member, reporter
from broker.store import Neighbourhood, OutboxMessage, ReceiptRecord, ReportCommit, Store
from broker.store.kernel.keys import Keys
from schemas.messages import Outcome, Receipt, Report, Subject
from tests.core.samples import POLICY, START, placed

KEYS = Keys()

TIMERS = POLICY.timers


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


NOW_MS = milliseconds(START)


def receipt_of(message: UUID) -> Receipt:
    return Receipt(subject=Subject.REPORT, outcome=Outcome.ACCEPTED, at=START, id=message)


def changed(incident: Incident, change: Change = Change.OPENED) -> IncidentChanged:
    return IncidentChanged(incident=incident.id, change=change, at=START, desk=incident.desk)


def opened(report: Report, now: datetime = START) -> Incident:
    return opened_by(placed(report), now)


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
    one = placed(report)
    made = ReportCommit(
        one,
        ReceiptRecord(report.id, user, "digest", receipt_of(report.id)),
        incident,
        member=member or reporter({}, "zoe"),
        event=changed(incident, Change.OPENED if incident.reports == 1 else Change.MERGED),
        posted=posted,
    )
    seen = seen or await store.incidents.neighbourhood(one)
    return await store.incidents.commit_report(made, seen, timers=TIMERS, now=incident.opened_at)


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
    return list(names((await store.incidents.neighbourhood(placed(one))).candidates))
