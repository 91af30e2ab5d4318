"""What a sync reads: what may be news to a user, and nothing of all the rest they were in."""

from datetime import timedelta
from uuid import uuid5

from msgspec.structs import replace

from broker.core.incidents import Incident
from broker.store import Store, add_reply
from schemas.ids import NAMESPACE, new_id
from schemas.messages import AlertReason, GroupEvent, GroupEventKind
from tests.core.samples import START, report
from tests.store.samples import open_incident

LATER = START + timedelta(hours=1)


async def tell(store: Store, incident: Incident, numbers: range) -> None:
    """Say something to the group, as if it were an hour later."""
    before = incident
    for number in numbers:
        event = GroupEvent(
            id=uuid5(NAMESPACE, f"{incident.id} {number}"),
            incident=incident.id,
            sequence=number,
            kind=GroupEventKind.SAID,
            at=LATER,
            member="reporter-1",
            members=1,
            text="?",
        )
        transaction = store.transaction()
        add_reply(transaction, before.id, user="", member=None, event=event)
        after = replace(before, version=before.version + 1)
        assert await store.incidents.touch(before, after, transaction)
        before = after


async def test_an_incident_that_one_reported_and_heard_of_is_not_read_again(store: Store) -> None:
    incident = await open_incident(store, report())

    assert await store.missed.since("ann", LATER, 100) == []

    await tell(store, incident, range(1, 4))
    [glimpse] = await store.missed.since("ann", LATER, 100)
    assert (glimpse.events, glimpse.told_at, glimpse.is_open) == (3, LATER, True)


async def test_an_alert_is_read_until_its_device_has_said_a_word(store: Store) -> None:
    incident = await open_incident(store, report())
    await store.alerts.claim(incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=9)

    [glimpse] = await store.missed.since("bob", LATER, 100)
    assert glimpse.incident == incident.id
    assert glimpse.alert is not None
    assert not glimpse.confirmed
    too_soon = timedelta(hours=2)  # to take its silence for a word: it may be on its way
    assert await store.missed.since("bob", LATER, 100, told_before=too_soon) == []

    await store.missed.confirm([incident.id], "bob", LATER)
    assert await store.missed.since("bob", LATER, 100) == []
    [glimpse] = await store.missed.since("bob", START, 100)
    assert glimpse.confirmed


async def test_what_is_new_is_read_whole(store: Store) -> None:
    incident = await open_incident(store, report())
    await tell(store, incident, range(1, 31))

    read = await store.missed.read([incident.id, new_id()])

    assert set(read) == {incident.id}
    known = read[incident.id].incident
    assert known is not None
    assert known.first_report == incident.first_report
    assert [event.sequence for event in read[incident.id].events] == list(range(1, 31))


async def test_only_the_newest_are_looked_at(store: Store) -> None:
    for minute in range(5):
        place = replace(report().location, lat=50.0 + minute)
        incident = await open_incident(store, replace(report(), location=place))
        await tell(store, incident, range(1, 2))

    assert len(await store.missed.since("ann", START, 3)) == 3
