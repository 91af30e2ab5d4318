"""An incident for the police alone from before conversations: nobody hears another reporter any more."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis
from msgspec.structs import replace

from broker.core.changes import Erased
from broker.core.incidents import Incident, opened_by
from broker.core.membership import Member, Part
from broker.store import Opening, Store, open_partitions
from broker.store.kernel.transaction import Transaction
from broker.store.migrations import SCHEMA_VERSION
from broker.store.split_conversations import split_conversations
from schemas.ids import group_event_id
from schemas.messages import GroupEvent, GroupEventKind, Report, Sync
from schemas.taxonomy import Audience
from services import routes
from tests.core.samples import START, placed, report
from tests.store.samples import milliseconds

PREFIX = "nabij:{p0}:"
SCHEMA = f"{PREFIX}schema-version"
HERS, HIS = "I hide upstairs", "The police have left, come out"
WE_COME = "We come. Stay inside."
ENCODE = msgspec.json.Encoder().encode


def old_incident(first: Report, audience: Audience, now: datetime) -> Incident:
    opened = opened_by(placed(first, audience), now)
    return replace(opened, reports=2, version=4)


def old_event(incident: Incident, sequence: int, member: str, text: str) -> dict[str, Any]:
    """As it was written before events had a role."""
    event = GroupEvent(
        id=group_event_id(incident.id, f"cause-{sequence}"),
        incident=incident.id,
        sequence=sequence,
        kind=GroupEventKind.SAID,
        at=incident.opened_at + timedelta(seconds=sequence),
        member=member,
        members=2,
        text=text,
    )
    found: dict[str, Any] = json.loads(ENCODE(event))
    return found


def fill_as_version_2(
    client: redis.Redis,
    audience: Audience = Audience.POLICE,
    *,
    now: datetime = START,
    users: tuple[str, str] = ("zoe", "mallory"),
) -> tuple[Incident, Report]:
    """Write an incident that two users have reported; return it and the second's report."""
    first, second = report(code="threat"), report(code="threat")
    incident = old_incident(first, audience, now)
    name, now_ms = str(incident.id), milliseconds(now)
    client.set(SCHEMA, 2)
    client.set(f"{PREFIX}sequence", 2)
    client.set(f"{PREFIX}partitions", 1)
    client.hset(
        f"{PREFIX}incident:{name}",
        mapping={"v": 4, "incident": ENCODE(incident), "active": now_ms, "told": now_ms},
    )
    client.zadd(f"{PREFIX}open-incidents", {name: now_ms})
    client.zadd(f"{PREFIX}deadlines", {f"silence {name}": now_ms + 3_600_000})
    for number, (user, one) in enumerate(zip(users, (first, second), strict=True), 1):
        member = Member(part=Part.REPORTER, name=f"reporter-{number}")
        client.hset(f"{PREFIX}people:{name}", user, ENCODE(member))
        client.hset(f"{PREFIX}reports:{name}", str(one.id), ENCODE({"user": user, "report": one}))
        client.zadd(f"{PREFIX}involved:{user}", {name: now_ms + number})
    said = (("reporter-1", HERS), ("police", WE_COME), ("reporter-2", HIS))
    for sequence, (member_name, text) in enumerate(said, 1):
        client.rpush(
            f"{PREFIX}group:{name}", ENCODE(old_event(incident, sequence, member_name, text))
        )
    return incident, second


def contents(client: redis.Redis) -> dict[str, Any]:
    """Everything in Redis."""
    read: dict[str, Callable[[str], Any]] = {
        "string": client.get,
        "hash": client.hgetall,
        "stream": client.xlen,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    return {key: read[client.type(key)](key) for key in client.scan_iter()}


async def heard(store: Store, user: str) -> dict[tuple[UUID, int], str | None]:
    """What a sync of `user` who has nothing brings: as services/groups.py draws it up."""
    request = Sync(since=START.replace(year=START.year - 1))
    found = {}
    glimpses = await store.missed.since(user, request.since, 200)
    missed = await store.missed.read(one.incident for one in glimpses)
    for glimpse in glimpses:
        told = missed[glimpse.incident].told_to(glimpse.member)
        found |= {
            (glimpse.incident, event.sequence): event.text
            for event in told
            if glimpse.lacks(event, request)
        }
    return found


async def test_each_reporter_of_a_group_of_before_keeps_their_words_and_the_desks_alone(
    redis_url: str, client: redis.Redis
) -> None:
    incident, his = fill_as_version_2(client)
    own = incident.conversation_of(his)

    async with open_partitions(redis_url, routes=routes()) as [store]:
        assert client.get(SCHEMA) == str(SCHEMA_VERSION) == "3"
        assert await heard(store, "zoe") == {(incident.id, 1): HERS, (incident.id, 2): WE_COME}
        assert await heard(store, "mallory") == {(own, 1): WE_COME, (own, 2): HIS}
        conversations = await store.conversations.of(incident)
        assert {one.id: [*one.people] for one in conversations} == {
            incident.id: ["zoe"],
            own: ["mallory"],
        }
        filed = await store.conversations.get(incident.id)
        assert filed is not None
        assert [*filed.people] == ["zoe"]
        assert filed.group_events == 3  # her device knows the events by their numbers
    assert HIS not in str(client.lrange(f"{PREFIX}group:{incident.id}", 0, -1))


async def test_who_came_later_does_not_get_what_the_desk_said_before(
    redis_url: str, client: redis.Redis
) -> None:
    incident, his = fill_as_version_2(client)
    came_ms = milliseconds(START + timedelta(hours=2))
    client.zadd(f"{PREFIX}involved:mallory", {str(incident.id): came_ms})

    async with open_partitions(redis_url) as [store]:
        own = incident.conversation_of(his)
        assert await heard(store, "mallory") == {(own, 1): HIS}
        assert await heard(store, "zoe") == {(incident.id, 1): HERS, (incident.id, 2): WE_COME}


async def test_one_that_was_held_up_before_its_commit_repeats_nothing_of_what_another_migrated(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident, his = fill_as_version_2(client)
    reached, goes_on, run = asyncio.Event(), asyncio.Event(), Transaction.run
    held_up: list[Transaction] = []

    async def run_late(transaction: Transaction) -> list[Any] | None:
        is_first = bool(transaction._guards) and not held_up
        if is_first:
            held_up.append(transaction)
            reached.set()
            await goes_on.wait()
        return await run(transaction)

    monkeypatch.setattr(Transaction, "run", run_late)
    async with Store(redis_url) as slow, Store(redis_url) as other:
        late = asyncio.create_task(migrated(slow))
        await reached.wait()
        await migrated(other)
        after = contents(client)
        goes_on.set()
        await late

    assert contents(client) == after
    own = client.lrange(f"{PREFIX}group:{incident.conversation_of(his)}", 0, -1)
    assert [json.loads(event)["sequence"] for event in own] == [1, 2]


async def test_a_migration_that_takes_longer_than_its_lock_is_finished_by_one_process(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_LOCK_MS", 300), ("_RENEWED_S", 0.05)):
        monkeypatch.setattr(f"broker.store.migrations.{name}", value)
    fill_as_version_2(client)
    run, tokens = Transaction.run, set[str]()

    async def run_slowly(transaction: Transaction) -> list[Any] | None:
        if transaction._guards:
            await asyncio.sleep(0.5)
            tokens.add(str(client.get(f"{PREFIX}migrating")))
        return await run(transaction)

    monkeypatch.setattr(Transaction, "run", run_slowly)
    async with open_partitions(redis_url):
        assert client.get(SCHEMA) == str(SCHEMA_VERSION)
    assert len(tokens) == 1
    assert "None" not in tokens
    assert not client.exists(f"{PREFIX}migrating")


async def migrated(store: Store) -> None:
    async for _ in split_conversations(store.deadlines._redis):
        pass


async def test_what_a_device_sends_under_the_id_of_before_is_of_its_own_conversation(
    redis_url: str, client: redis.Redis
) -> None:
    incident, his = fill_as_version_2(client)

    async with open_partitions(redis_url, routes=routes()) as [store]:
        own = await store.conversations.own(incident.id, "mallory")
        assert own == incident.conversation_of(his)
        assert await store.conversations.own(incident.id, "zoe") is None
        assert await store.conversations.own(incident.id, "eva") is None
        filed = await store.conversations.get(own)
    assert filed is not None
    assert (filed.incident.id, filed.report, [*filed.people]) == (incident.id, his.id, ["mallory"])
    assert filed.people["mallory"].name == "reporter-1"


async def test_the_migration_may_run_again_and_leaves_groups_as_they_are(
    redis_url: str, client: redis.Redis
) -> None:
    fill_as_version_2(client)
    async with open_partitions(redis_url, routes=routes()):
        pass
    client.set(SCHEMA, 2)
    once = contents(client)
    async with open_partitions(redis_url, routes=routes()):
        pass
    client.set(SCHEMA, 2)
    assert contents(client) == once

    client.flushall()
    incident, _ = fill_as_version_2(client, Audience.POLICE_AND_NEARBY)
    async with open_partitions(redis_url, opening=Opening.USE, routes=routes()) as [store]:
        filed = await store.conversations.get(incident.id)
    assert filed is not None
    assert {*filed.people} == {"zoe", "mallory"}


async def test_what_is_left_of_an_incident_of_before_is_erased_with_it(
    redis_url: str, client: redis.Redis
) -> None:
    incident, _ = fill_as_version_2(client)
    async with open_partitions(redis_url, routes=routes()) as [store]:
        await store.events.ensure_groups()
        filed = await store.incidents.get(incident.id)
        assert filed is not None
        await store.incidents.erase(
            filed.incident, filed.people, Erased(incident=incident.id, zone="gent")
        )
    names = [
        *client.scan_iter(f"{PREFIX}incident:*"),
        *client.scan_iter(f"{PREFIX}people:*"),
        *client.scan_iter(f"{PREFIX}group:*"),
        *client.scan_iter(f"{PREFIX}involved:*"),
    ]
    assert names == []
