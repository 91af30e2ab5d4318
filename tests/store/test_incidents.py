"""Reports are committed once, in order, and beside each other only if they do not meet."""

import asyncio

import pytest
import redis
from msgspec.structs import replace

from broker.core.changes import Change, Erased
from broker.core.membership import Member, Part
from broker.store import (
    DeadlineKind,
    OutboxMessage,
    ReceiptRecord,
    Store,
    add_receipt,
    add_reply,
)
from broker.store.questions import add_question
from schemas import topics
from schemas.ids import group_event_id, new_id, question_id
from schemas.messages import (
    AlertReason,
    GroupEvent,
    GroupEventKind,
    Question,
)
from schemas.taxonomy import Audience
from tests.core.samples import START, north, placed, report
from tests.store.samples import (
    NOW_MS,
    TIMERS,
    candidates,
    change,
    changed,
    close,
    commit,
    open_incident,
    open_incidents,
    opened,
    receipt_of,
    widen,
)

# -- committing ----------------------------------------------------------------------------------


async def test_commit_can_be_read_back_whole(store: Store) -> None:
    one = report(text="rook\n«é»")
    incident = opened(one)
    topic = topics.CASE.topic(municipality="gent", category="graffiti")
    posted = OutboxMessage(id="p", topic=topic, payload=b"\x00\xff", made_ms=NOW_MS, due_ms=NOW_MS)

    assert await commit(store, one, incident, posted=posted) == 1

    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert (filed.incident, filed.group_events, filed.active_at) == (incident, 0, START)
    assert filed.people == {"ann": Member(part=Part.REPORTER, name="reporter-1")}
    found = await store.incidents.report(incident.id, one.id)
    assert found is not None
    assert (found.user, found.report) == ("ann", one)
    received = await store.incidents.received(one.id)
    assert received is not None
    assert (received.user, received.digest) == ("ann", "digest")
    assert received.receipt == replace(receipt_of(one.id), sequence=1)
    assert [due.message for due in await store.outbox.take(NOW_MS)] == [posted]
    [missed] = await store.missed.since("ann", START, 100)
    assert missed.incident == incident.id
    assert await open_incidents(store) == 1
    assert await store.incidents.get(new_id()) is None


async def test_report_is_committed_once_however_it_is_repeated(
    store: Store, other_store: Store
) -> None:
    one = report()
    seen = await store.incidents.neighbourhood(placed(one))

    sequences = await asyncio.gather(
        *(commit(of, one, opened(one), seen=seen) for of in (store, other_store) * 4)
    )

    assert sorted(sequences, key=str) == [1] + [None] * 7
    again = await store.incidents.neighbourhood(placed(one))
    assert again.received is not None
    assert again.received.receipt.sequence == 1
    assert await store.events.length("police") == 1


# -- changing ------------------------------------------------------------------------------------


async def test_change_needs_the_version_that_was_read(store: Store) -> None:
    incident = await open_incident(store, report())
    after = replace(incident, version=2, assigned=("a",))
    assert await store.incidents.change(incident, after, active_at=START, timers=TIMERS)
    lost = replace(incident, version=2, assigned=("b",))

    assert not await store.incidents.change(
        incident, lost, active_at=START, timers=TIMERS, events=[changed(incident)]
    )
    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert filed.incident.assigned == ("a",)
    assert await store.incidents.version(incident.id) == 2


async def test_touch_changes_the_version_alone(store: Store) -> None:
    incident = await open_incident(store, report())
    after = replace(incident, version=2)
    transaction = store.transaction()
    event = GroupEvent(
        id=group_event_id(incident.id, "x"),
        incident=incident.id,
        sequence=1,
        kind=GroupEventKind.JOINED,
        at=START,
        member="helper-1",
        members=2,
    )
    member = Member(part=Part.HELPER, name="helper-1")
    add_reply(transaction, incident.id, user="bob", member=member, event=event)

    assert await store.incidents.touch(incident, after, transaction)
    assert not await store.incidents.touch(incident, after, store.transaction())

    filed = await store.incidents.get(incident.id)
    assert filed is not None
    assert (filed.incident, filed.people["bob"], filed.group_events) == (after, member, 1)
    assert await store.incidents.group_event(incident.id, 1) == event


@pytest.mark.parametrize("code", ["fire", "theft"])
async def test_incident_opened_widened_and_closed_is_open_nowhere(
    store: Store, client: redis.Redis, code: str
) -> None:
    incident = await open_incident(store, report(code=code))
    for radius_m in (800.0, 1_700.0, 3_000.0):
        incident = await widen(store, incident, radius_m)
    other = await open_incident(store, report(north(5_000), code=code))
    await close(store, incident)

    left = {key: client.hkeys(key) for key in client.scan_iter("nabij:{p0}:open:*")}
    joining = {key: client.hkeys(key) for key in client.scan_iter("nabij:{p0}:join:*")}
    assert {member for members in left.values() for member in members} == {str(other.id)}
    assert {m for members in joining.values() for m in members} == {"#", str(other.id)}
    assert client.zrange("nabij:{p0}:open-incidents", 0, -1) == [str(other.id)]
    deadlines = map(str, client.zrange("nabij:{p0}:deadlines", 0, -1))
    assert [one for one in deadlines if str(incident.id) in one] == [f"erase {incident.id}"]


async def test_incident_stays_joinable_when_its_neighbour_of_the_same_kind_closes(
    store: Store, client: redis.Redis
) -> None:
    first = await open_incident(store, report())
    second_report = report(north(10), 300)  # long after: an incident of its own, in the same cells
    second = await open_incident(store, second_report)
    await close(store, first)

    assert await candidates(store, second_report) == [second.id]
    keys_of_second = [
        key for key in client.scan_iter("nabij:{p0}:join:*") if client.hexists(key, str(second.id))
    ]
    assert keys_of_second
    assert {client.ttl(key) for key in keys_of_second} == {-1}


async def test_erasing_leaves_no_key_of_the_incident(store: Store, client: redis.Redis) -> None:
    incident = await open_incident(store, report())
    claimed = await store.alerts.claim(
        incident, ["bob", "cleo"], reason=AlertReason.NEARBY, now=START, retention_s=600
    )
    await store.alerts.record_alerts(
        incident.id, claimed[:1], claimed[1:], now=START, event=changed(incident, Change.ALERTED)
    )
    filed = await store.incidents.get(incident.id)
    assert filed is not None
    done = await close(store, filed.incident)
    people = filed.people

    await store.incidents.erase(done, people, Erased(incident=done.id, zone=done.zone))

    assert set(people) == {"ann", "bob", "cleo"}
    for key in client.scan_iter("nabij:*"):
        if ":events:" in key:
            continue  # what happened, for services that have still to act on it
        content = _content(client, str(key))
        assert str(incident.id) not in key
        assert str(incident.id) not in content or ":receipt:" in key
    assert await store.incidents.get(incident.id) is None
    assert await store.missed.since("bob", START, 100) == []


def _content(client: redis.Redis, key: str) -> str:
    match client.type(key):
        case "hash":
            return str(client.hgetall(key))
        case "zset":
            return str(client.zrange(key, 0, -1))
        case "list":
            return str(client.lrange(key, 0, -1))
        case _:
            return str(client.get(key))


async def test_questions_and_receipts_are_kept_for_a_while(
    store: Store, client: redis.Redis
) -> None:
    asked = Question(
        id=question_id(new_id(), new_id(), new_id()),
        incident=new_id(),
        report=new_id(),
        text="?",
        asked_at=START,
    )
    message = new_id()
    transaction = store.transaction()
    add_question(transaction, asked, "ann")
    add_receipt(
        transaction, ReceiptRecord(message, "ann", "d", receipt_of(message), group_sequence=4)
    )
    await transaction.run()

    assert await store.questions.get(asked.id) == ("ann", asked)
    assert await store.questions.get(new_id()) is None
    received = await store.incidents.received(message)
    assert received is not None
    assert received.group_sequence == 4
    assert all(
        0 < client.ttl(key) <= 7 * 86_400
        for key in client.scan_iter("nabij:*")
        if "events" not in key
    )


async def test_deadlines_are_set_when_an_incident_opens(store: Store) -> None:
    incident = await open_incident(store, report())

    due = await store.deadlines.due(NOW_MS + 10**9)

    assert [(deadline.kind, deadline.incident, deadline.due_ms - NOW_MS) for deadline in due] == [
        (DeadlineKind.OVERDUE, incident.id, TIMERS.acknowledge_s * 1000),
        (DeadlineKind.WIDEN, incident.id, TIMERS.accept_s * 1000),
        (DeadlineKind.SILENCE, incident.id, TIMERS.silence_s * 1000),
    ]
    assert await change(store, incident, incident)


async def test_a_store_is_used_though_all_its_reports_are_for_the_police_alone(
    store: Store,
) -> None:
    assert not await store.is_used()
    first = report()
    await commit(store, first, replace(opened(first), audience=Audience.POLICE))
    assert await store.is_used()
    second = report(north(2_000))
    assert await commit(store, second, opened(second)) == 1  # the first that is told a number
