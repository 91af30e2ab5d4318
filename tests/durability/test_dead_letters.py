"""What no handler can take is kept, shown, replayed and dropped; nothing behind it waits."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import redis
import structlog

from broker.core.changes import Change, IncidentChanged
from broker.store import DeadLetter, Reader, Store, dead_letters
from broker.store.kernel.keys import Keys, where_bucket
from nabij.dead_letters_command import A_SECOND
from schemas.ids import new_id
from schemas.messages import Availability
from schemas.taxonomy import Desk
from services import relay, routes
from tests.durability.conftest import nabij
from tests.services.system import Servers, System, a_presence, polled, running

KEYS = Keys()


def letter(number: int, **fields: object) -> DeadLetter:
    values = {
        "id": uuid4(),
        "at": datetime.now(UTC) + timedelta(seconds=number),
        "service": "intake",
        "topic": "nabij/v1/u/Ann/up/report",
        "payload": b"x" * 100,
        "code": "bad_topic",
        "field": "$",
        "reason": "No.",
    }
    return DeadLetter(**(values | fields))  # type: ignore[arg-type]


async def until_kept(system: System, count: int) -> list[DeadLetter]:
    async def kept() -> bool:
        return len(await system.store.dead_letters.all()) >= count

    await polled(kept)
    return await system.store.dead_letters.all()


async def of_service(system: System, service: str) -> DeadLetter:
    """The one dead letter of a service, when it is there: others, too, may have read what is corrupt."""

    async def found() -> list[DeadLetter]:
        letters = await system.store.dead_letters.all()
        return [one for one in letters if service in (one.stream, one.service)]

    async def is_kept() -> bool:
        return len(await found()) > 0

    await polled(is_kept)
    (letter,) = await found()
    return letter


async def test_poison_on_a_stream_is_kept_and_acknowledged_and_holds_up_nobody(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        corrupt = (await system.report(ann, system.place()))["incident"]
        system.corrupt(f"incident:{corrupt}", "incident")
        poison = IncidentChanged(
            incident=UUID(corrupt), change=Change.WIDENED, at=datetime.now(UTC), desk=Desk.POLICE
        )
        with redis.Redis.from_url(servers.redis_url) as client:
            client.xadd(KEYS.events("alerting"), {"e": b"no event of ours"})
        await system.store.events.put([poison])
        place = system.place()
        await system.be_at(bob, place)

        behind = (await system.report(ann, place))["incident"]

        await bob.expect("u/bob/down/alert", incident=behind)
        letters = await until_kept(system, 3)  # alerting's two, and the police read the second too
        assert sorted((one.topic, one.code) for one in letters) == [
            ("events:alerting", "internal"),
            ("events:alerting", "not_json"),
            ("events:police", "internal"),
        ]

        async def done() -> bool:
            return await system.store.events.length("alerting") == 0

        await polled(done)


async def at_rest(system: System) -> None:
    """Wait until nobody is about to read what will be corrupted."""

    async def is_done() -> bool:
        lengths = [await system.store.events.length(name) for name in ("alerting", "police")]
        return not any(lengths)

    await polled(is_done)


async def test_a_replayed_message_that_works_has_its_effect_and_is_gone(servers: Servers) -> None:
    async with running(servers) as system:
        ann = await system.connect("ann")
        incident = (await system.report(ann, system.place()))["incident"]
        name, field = f"incident:{incident}", "incident"
        with redis.Redis.from_url(servers.redis_url) as client:
            await at_rest(system)
            whole = client.hget(KEYS.incident(incident), field)
            assert isinstance(whole, bytes)
            system.corrupt(name, field)
            message = {"id": str(new_id()), "incident": incident, "text": "Hallo"}
            await ann.publish("u/ann/up/message", message)
            kept = await of_service(system, "groups")
            status, shown = await nabij(system, "dead-letters", "show", str(kept.id))
            assert (status, shown["topic"]) == (0, "nabij/v1/u/ann/up/message")
            assert "Hallo" in shown["payload"]

            status, outcome = await nabij(system, "dead-letters", "replay", str(kept.id))
            again = await of_service(system, "groups")
            assert (status, outcome["failed"]) == (1, [str(kept.id)])
            assert again.id != kept.id
            assert again.replay_of == kept.id
            assert again.reason.startswith("Failed again when it was replayed.")

            client.hset(KEYS.incident(incident), field, whole)
        status, outcome = await nabij(system, "dead-letters", "replay", "--all")

        assert (status, outcome["failed"], outcome["waiting"]) == (0, [], [])
        assert str(again.id) in outcome["done"]
        await ann.expect("u/ann/down/receipt", id=message["id"], outcome="accepted")
        assert await system.store.dead_letters.all() == []


async def test_a_replayed_event_goes_back_on_its_stream(servers: Servers) -> None:
    async with running(servers) as system:
        ann, bob = [await system.connect(name) for name in ("ann", "bob")]
        place = system.place()
        incident = (await system.report(ann, place))["incident"]
        with redis.Redis.from_url(servers.redis_url) as client:
            await at_rest(system)
            whole = client.hget(KEYS.incident(incident), "incident")
            assert isinstance(whole, bytes)
            system.corrupt(f"incident:{incident}", "incident")
            await system.be_at(bob, place)  # walks in, and cannot be alerted
            kept = await of_service(system, "alerting")
            client.hset(KEYS.incident(incident), "incident", whole)

        status, outcome = await nabij(system, "dead-letters", "replay", "--all")

        assert status == 0
        assert str(kept.id) in outcome["done"]
        await bob.expect("u/bob/down/alert", incident=incident, reason="walked_in")


async def test_one_poisoned_message_of_a_batch_is_kept_alone(servers: Servers) -> None:
    async with running(servers) as system:
        fleet = await system.connect("nabij", "u/+/down/#")
        place = system.place()
        with redis.Redis.from_url(servers.redis_url) as client:
            client.hset(f"{KEYS.prefix}where:{where_bucket('eve')}", "eve", "nonsense")
            for user in ("eve", "ann", "bob"):
                await fleet.publish(
                    f"u/{user}/up/presence",
                    a_presence(place, availability=Availability.AVAILABLE),
                    response_topic=f"u/{user}/down/receipt",
                )

            for user in ("ann", "bob"):
                await fleet.expect(f"u/{user}/down/receipt", outcome="accepted")
            (kept,) = await until_kept(system, 1)
            assert kept.topic == "nabij/v1/u/eve/up/presence"


async def test_the_same_poison_delivered_again_is_one_dead_letter(servers: Servers) -> None:
    async with running(servers) as system:
        operators = await system.connect("nabij", "ops/rejected/#")
        ann = await system.connect("ann")
        incident = (await system.report(ann, system.place()))["incident"]
        await at_rest(system)
        system.corrupt(f"incident:{incident}", "incident")
        poison = {"id": str(new_id()), "incident": incident, "text": "Hallo"}
        for _ in range(3):
            await ann.publish("u/ann/up/message", poison)
        told = await operators.expect("ops/rejected/groups", count=3)
        assert "Hallo" in told["payload"]

        status, listed = await nabij(system, "dead-letters", "list")

        of_groups = [one["id"] for one in listed["letters"] if one["service"] == "groups"]
        assert (status, len(of_groups), listed["dropped"]) == (0, 1, 0)
        status, outcome = await nabij(system, "dead-letters", "drop", "--all")
        assert status == 0
        # A deadline may have met the incident since: police has a letter of its own then.
        assert [one for one in outcome["dropped"] if one in of_groups] == of_groups
        unknown = str(uuid4())
        assert await nabij(system, "dead-letters", "drop", unknown) == (
            1,
            {"dropped": [], "unknown": [unknown]},
        )


async def test_of_a_sender_that_is_none_of_ours_nothing_is_kept_but_that_there_is_one(
    servers: Servers,
) -> None:
    async with running(servers) as system:
        watcher = await system.connect("nabij", "ops/rejected/#", "u/Nobody/down/receipt")
        with structlog.testing.capture_logs() as logs:
            for number in range(30):
                report = {
                    "id": str(new_id()),
                    "category": "fire",
                    "text": f"Help {number}",
                    "location": {"lat": 51.012345, "lon": 3.712345},
                }
                await watcher.ask("u/Nobody/up/report", report)
        told = watcher.on("ops/rejected/intake")
        assert [(one["payload"], one["code"]) for one in told] == [("", "bad_topic")]
        (kept,) = await system.store.dead_letters.all()
        assert (kept.payload, kept.topic) == (b"", "nabij/v1/u/Nobody/up/report")
        with redis.Redis.from_url(servers.redis_url) as client:
            stored = b"".join(bytes(client.dump(key) or b"") for key in client.scan_iter("*"))
        for secret in ("12345", "Help", "Nobody"):
            assert secret not in str(logs)
        for secret in (b"12345", b"Help"):
            assert secret not in stored
        assert b"Nobody" in stored  # what an operator renames

        status, outcome = await nabij(system, "dead-letters", "replay", "--all")
        assert (status, outcome["failed"], outcome["done"]) == (1, [str(kept.id)], [])


OTHERS = [
    {"topic": "nabij/v1/u/bob/up/message"},
    {"topic": "nabij/v1/police/gent/command"},
    {"topic": "events:alerting"},
    {"topic": "nabij/v1/police/gent/escalation/p1", "outgoing": True},
    {"topic": "nabij/v1/u/Ann/up/report", "bare": True},
]


@pytest.mark.parametrize("flood", OTHERS, ids=str)
async def test_nobody_pushes_out_what_others_sent(flood: dict[str, object], redis_url: str) -> None:
    """Before, 10,000 of one sender's were all that was left."""
    async with Store(redis_url, routes=routes()) as store:
        real = [letter(number, **fields) for number, fields in enumerate(OTHERS) if fields != flood]
        for one in real:
            await store.dead_letters.keep(one)
        most = letter(0, **flood).share[1]
        own = [letter(10 + number, **flood) for number in range(most + 3)]
        for first in range(0, len(own), 500):
            await asyncio.gather(
                *(store.dead_letters.keep(one) for one in own[first : first + 500])
            )

        assert await store.dead_letters.all() == real + own[3:]
        assert await store.dead_letters.counts() == (len(real) + most, 3)


async def test_what_was_dropped_or_replayed_takes_no_room_of_its_senders(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MOST_OF_ONE", 4)
    async with Store(redis_url, routes=routes()) as store:
        own = [letter(number, topic="nabij/v1/u/bob/up/message") for number in range(7)]
        for one in own[:4]:
            assert await store.dead_letters.keep(one)
        await store.dead_letters.drop([one.id for one in own[1:4]])
        for one in own[4:]:
            await store.dead_letters.keep(one)
        assert not await store.dead_letters.keep(own[6])  # the same again

        assert await store.dead_letters.all() == [own[0], *own[4:]]
        assert (await store.dead_letters.counts()).dropped == 0


async def test_many_are_replayed_slowly_enough_for_what_comes_in_now(servers: Servers) -> None:
    async with running(servers) as system:
        desk = await system.connect("nabij", "ops/test/#")
        for number in range(A_SECOND + 10):
            one = letter(number, topic="nabij/v1/ops/test/replayed", outgoing=True)
            await system.store.dead_letters.keep(one)
        began = time.monotonic()

        status, outcome = await nabij(system, "dead-letters", "replay", "--all")

        assert time.monotonic() - began > 1.0  # the last ten wait for the second second
        assert (status, len(outcome["done"])) == (0, A_SECOND + 10)
        await desk.expect("ops/test/replayed", count=A_SECOND + 10)


@pytest.mark.parametrize("limit", ["MOST", "MOST_BYTES"])
async def test_beyond_the_limit_the_oldest_are_dropped_and_counted(
    limit: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        several = [letter(number) for number in range(8)]
        size = len(dead_letters.msgspec.msgpack.encode(several[0]))
        monkeypatch.setattr(dead_letters, limit, 3 if limit == "MOST" else 3 * size + 10)

        for one in several:
            await store.dead_letters.keep(one)

        assert await store.dead_letters.all() == several[-3:]
        assert await store.dead_letters.counts() == (3, 5)


@pytest.mark.parametrize("limit", ["MOST", "MOST_BYTES"])
async def test_what_one_desk_does_not_take_pushes_out_nothing_of_another(
    limit: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Store(redis_url, routes=routes()) as store:
        topics = {zone: f"nabij/v1/police/{zone}/escalation/p1" for zone in ("gent", "mons")}
        gents = [letter(number, topic=topics["gent"], outgoing=True) for number in range(3)]
        others = [letter(10 + number, topic=topics["mons"], outgoing=True) for number in range(30)]
        size = len(dead_letters.msgspec.msgpack.encode(gents[0]))
        monkeypatch.setattr(dead_letters, limit, 10 if limit == "MOST" else 10 * size + 10)

        for one in (*gents, *others):
            await store.dead_letters.keep(one)

        assert await store.dead_letters.all() == [*gents, *others[-7:]]
        assert await store.dead_letters.counts() == (10, 23)


@pytest.mark.parametrize("days", [31, -3_000])
async def test_one_that_is_dated_wrongly_wipes_no_other(days: int, redis_url: str) -> None:
    async with Store(redis_url, routes=routes()) as store:
        some = [letter(0), letter(1, at=datetime.now(UTC) + timedelta(days=days))]
        for one in some:
            await store.dead_letters.keep(one)

        assert {one.id for one in await store.dead_letters.all()} == {one.id for one in some}


async def test_too_old_ones_are_dropped_and_counted(redis_url: str) -> None:
    async with Store(redis_url, routes=routes()) as store:
        old = letter(0, at=datetime.now(UTC) - dead_letters.LIFETIME - timedelta(hours=1))
        await store.dead_letters.keep(old)
        new = letter(1)
        await store.dead_letters.keep(new)

        assert await store.dead_letters.all() == [new]
        assert await store.dead_letters.get(old.id) is None
        assert await store.dead_letters.counts() == (1, 1)


@pytest.mark.parametrize("attended", [False, True], ids=["", "attended by the duty desk"])
async def test_what_no_desk_takes_for_days_is_laid_aside_and_goes_out_when_it_is_replayed(
    attended: bool,  # noqa: FBT001 - an example
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "_GIVE_UP_MS", 1_000)
    monkeypatch.setattr(relay, "_GIVE_UP_TRIES", 1)
    async with running(servers) as system:
        ann = await system.connect("ann")
        receipt = await system.report(ann, system.place())  # and no desk has subscribed
        if attended:
            with redis.Redis.from_url(servers.redis_url) as client:
                (name,) = client.hkeys(Keys(0).outbox_messages)
            duty = Reader("police", "kortrijk")
            await system.store.outbox.confirm({duty: {name.decode()}}, now_ms=0, duty=duty)
            waiting = await system.waiting(name.decode())
            assert waiting is not None
            assert waiting.attended

        async def laid_aside() -> bool:
            return (await system.store.dead_letters.counts()).kept == 1

        async def removed() -> bool:  # which follows, so that no crash loses it between
            return await system.store.outbox.size() == 0

        await polled(laid_aside)
        await polled(removed)
        status, listed = await nabij(system, "dead-letters", "list")
        (letter,) = listed["letters"]
        assert (status, letter["code"], letter["service"]) == (0, "expired", "relay")
        desk = await system.connect("desk-gent", "police/gent/escalation/#")
        status, outcome = await nabij(system, "dead-letters", "replay", letter["id"])
        assert (status, outcome["done"]) == (0, [letter["id"]])
        await desk.expect("police/gent/escalation/", incident=receipt["incident"])
        assert not await laid_aside()
