"""A message stays in the outbox until its own reader confirms it, and is sent again until then."""

import asyncio
from itertools import count

import pytest
import redis
from msgspec.structs import replace

from broker.core.resending import Pacing
from broker.store import Alarm, OutboxMessage, Reader, Store, Undelivered, posted
from broker.store.outbox import post
from broker.store.outbox_messages import DutyDesk
from schemas import topics
from schemas.ids import new_id
from tests.store.samples import NOW_MS

GENT, KORTRIJK, ANN = Reader("police", "gent"), Reader("police", "kortrijk"), Reader("u", "ann")


def message(number: int, *, due_ms: int = NOW_MS, zone: str = "gent") -> OutboxMessage:
    topic = topics.ESCALATION.topic(zone=zone, priority="p1")
    made_ms = NOW_MS + number
    return OutboxMessage(
        id=f"m-{number}",
        topic=topic,
        payload=b"\0\xff{}",
        made_ms=made_ms,
        due_ms=due_ms,
        sent_ms=made_ms,
    )


def made_at(made_ms: int, *, name: str, zone: str = "gent") -> OutboxMessage:
    topic = topics.ESCALATION.topic(zone=zone, priority="p1")
    due_ms = made_ms + 3_000
    return OutboxMessage(
        id=name, topic=topic, payload=b"{}", made_ms=made_ms, due_ms=due_ms, sent_ms=made_ms
    )


def question(number: int) -> OutboxMessage:
    topic = topics.QUESTION.topic(user="ann")
    return OutboxMessage(
        id=f"q-{number}", topic=topic, payload=b"{}", made_ms=NOW_MS, due_ms=NOW_MS
    )


async def add(store: Store, *messages: OutboxMessage) -> None:
    transaction = store.transaction()
    for one in messages:
        post(transaction, one)
    await transaction.run()


async def take(store: Store, now_ms: int = NOW_MS) -> list[OutboxMessage]:
    """What is sent to its own reader now."""
    return [due.message for due in await store.outbox.take(now_ms) if due.to_reader]


async def confirm(store: Store, reader: Reader, *names: str, at_ms: int = 0) -> list[OutboxMessage]:
    """What `reader` confirms; by default long ago, so that it says nothing now."""
    return await store.outbox.confirm({reader: set(names)}, now_ms=at_ms, duty=KORTRIJK)


async def undelivered(store: Store) -> list[Undelivered]:
    return await store.outbox.undelivered()


async def test_what_one_took_nobody_else_is_given_for_a_while(store: Store) -> None:
    await add(store, message(1), message(2, due_ms=NOW_MS + 1))

    both = await asyncio.gather(*(take(store, NOW_MS + 1) for _ in range(4)))
    assert sorted(one.id for some in both for one in some) == ["m-1", "m-2"]
    assert await take(store, NOW_MS + 2_000) == []
    assert [one.id for one in await take(store, NOW_MS + 2_001)] == ["m-1", "m-2"]


async def test_a_message_that_cannot_be_read_holds_up_no_other(
    store: Store, client: redis.Redis
) -> None:
    await add(store, message(1), message(2))
    client.hset("nabij:{p0}:outbox-messages", "m-1", b"\xc1")

    assert await take(store) == [message(2)]
    assert await store.outbox.size() == 2


async def test_message_is_taken_again_and_again_until_its_reader_confirms_it(store: Store) -> None:
    late, soon = message(1, due_ms=NOW_MS + 5), message(2)
    await add(store, late, soon)

    assert await take(store, NOW_MS - 1) == []
    assert await take(store) == [soon]
    assert await take(store, NOW_MS + 2_000) == [late, soon]
    assert await confirm(store, GENT, "m-2", "unknown") == [soon]
    assert await take(store, NOW_MS + 9_000) == [late]
    assert await confirm(store, GENT, "m-1", "m-2") == [late]
    assert await store.outbox.size() == 0


@pytest.mark.parametrize("stranger", [KORTRIJK, Reader("city", "gent"), Reader("u", "gent"), ANN])
async def test_only_the_reader_of_a_message_can_confirm_it(store: Store, stranger: Reader) -> None:
    await add(store, message(1))

    assert await store.outbox.confirm({stranger: {"m-1"}}, now_ms=NOW_MS) == []
    assert await take(store) == [message(1)]


async def test_nothing_of_a_confirmed_message_is_left(store: Store, client: redis.Redis) -> None:
    await add(store, message(1), message(1), question(2))
    assert await take(store) == [message(1), question(2)]

    await confirm(store, GENT, "m-1")
    await confirm(store, ANN, "q-2")
    assert await undelivered(store) == []

    assert client.keys("nabij:{p0}:outbox*") == client.keys("nabij:{p0}:undelivered*") == []


async def test_what_lost_its_body_does_not_wait_for_ever(store: Store, client: redis.Redis) -> None:
    await add(store, message(1), message(2))
    client.hdel("nabij:{p0}:outbox-messages", "m-1")

    assert await take(store) == [message(2)]
    assert await store.outbox.size() == 1


async def test_what_nobody_confirms_is_sent_again_later_and_ever_later(store: Store) -> None:
    await add(store, message(1), message(2))
    await confirm(store, GENT, "m-2")

    sent_ms = []
    for now_ms in range(NOW_MS, NOW_MS + 60_000, 500):
        sent_ms += [now_ms - NOW_MS for _ in await take(store, now_ms)]
    assert sent_ms == [0, 2_000, 4_000, 6_000, 9_000, 13_500, 20_500, 31_000, 46_500]
    old = NOW_MS + 3_600_000
    assert [one.id for one in await take(store, old)] == ["m-1"]
    assert await take(store, old + 299_999) == []
    assert [one.id for one in await take(store, old + 300_000)] == ["m-1"]


async def test_how_often_a_message_was_taken_is_known_until_it_is_confirmed(
    store: Store, client: redis.Redis
) -> None:
    await add(store, message(1), message(2, due_ms=NOW_MS + 60_000))
    for now_ms in (NOW_MS, NOW_MS, NOW_MS + 10_000, NOW_MS + 20_000):
        await take(store, now_ms)

    assert await store.outbox.tries([message(1), message(2)]) == [3, 0]
    await confirm(store, GENT, "m-1")
    assert not client.exists("nabij:{p0}:outbox-tries")


async def test_a_clock_that_went_back_does_not_have_it_sent_without_a_pause(store: Store) -> None:
    await add(store, message(1, due_ms=NOW_MS + 3_600_000))
    transaction = store.transaction()
    transaction.call("ZADD", store.keys.outbox, NOW_MS, "m-1")
    await transaction.run()

    assert [one.id for one in await take(store)] == ["m-1"]
    assert await take(store, NOW_MS + 299_000) == []


@pytest.mark.parametrize("by_s", [-86_400, -3_600, -3, 3, 3_600, 86_400])
async def test_a_jump_that_comes_to_count_makes_no_message_older(store: Store, by_s: int) -> None:
    await add(store, message(1, due_ms=NOW_MS + 1_000))
    assert await take(store, NOW_MS + 1_000)
    await store.deadlines.follow([(NOW_MS / 1000 + 2, by_s)])
    new_ms = NOW_MS + 1_000 * by_s
    await add(store, message(2, due_ms=new_ms + 3_000))

    sent_ms = [
        (one.id, after_ms)
        for after_ms in range(2_000, 10_000, 500)
        for one in await take(store, new_ms + after_ms)
    ]
    for name in ("m-1", "m-2"):
        assert [ms for one, ms in sent_ms if one == name][:3] == [3_000, 5_000, 7_000]


async def test_many_are_confirmed_at_once_by_many(store: Store, client: redis.Redis) -> None:
    several = [message(n) for n in range(2_500)]
    await add(store, *several)

    await asyncio.gather(*(confirm(store, GENT, one.id) for one in several[:200]))
    await confirm(store, GENT, *(one.id for one in several[:2_400]))

    assert await store.outbox.size() == client.hlen("nabij:{p0}:outbox-messages") == 100


async def test_a_desk_has_undelivered_messages_from_when_they_are_sent_again(store: Store) -> None:
    await add(store, message(1), message(2), message(3, zone="kortrijk"), question(4))
    assert await undelivered(store) == []  # their first sending is the committer's

    await take(store)
    assert sorted(await undelivered(store)) == [
        Undelivered(GENT, 2, NOW_MS + 1),
        Undelivered(KORTRIJK, 1, NOW_MS + 3),
    ]
    await confirm(store, GENT, "m-1")
    await confirm(store, KORTRIJK, "m-3")
    assert await undelivered(store) == [Undelivered(GENT, 1, NOW_MS + 2)]


async def test_a_message_confirmed_while_it_is_taken_is_not_undelivered_for_ever(
    store: Store,
) -> None:
    several = [message(number) for number in range(40)]
    await add(store, *several)

    confirming = (confirm(store, GENT, one.id) for one in several)
    await asyncio.gather(*(take(store) for _ in range(10)), *confirming)

    assert await undelivered(store) == []


async def test_a_desk_that_comes_back_is_sent_all_that_it_lacks_at_once(store: Store) -> None:
    await add(store, *(message(number) for number in range(3)), message(9, zone="kortrijk"))
    assert len(await take(store, NOW_MS + 60_000)) == 4
    assert await take(store, NOW_MS + 60_001) == []

    assert await store.outbox.send_again(GENT, but={"m-1"}) == 2

    assert [one.id for one in await take(store, NOW_MS + 60_001)] == ["m-0", "m-2"]


async def test_what_the_duty_desk_has_waits_for_its_own_desk_without_alarm(store: Store) -> None:
    await add(store, message(1), question(2))
    await take(store)

    assert await confirm(store, KORTRIJK, "m-1", "q-2") == []

    assert await undelivered(store) == []
    [attended, asked] = await take(store, NOW_MS + 2_000)
    assert (attended.id, attended.attended, asked.id) == ("m-1", True, "q-2")
    assert await undelivered(store) == []
    assert await store.outbox.send_again(GENT, but=()) == 1
    assert await confirm(store, GENT, "m-1") == [attended]
    assert await store.outbox.send_again(GENT, but=()) == 0


# -- a desk that confirms, and is behind -----------------------------------------------------------


async def test_a_desk_that_is_behind_is_not_sent_what_waits_in_its_queue(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, honest = count(), Pacing.sends

    def sends(self: Pacing, desk: str, sent_ms: int) -> bool:
        next(looks)
        return honest(self, desk, sent_ms)

    monkeypatch.setattr(Pacing, "sends", sends)
    several = [made_at(NOW_MS + 100 * number, name=f"m-{number}") for number in range(600)]
    await add(store, *several)

    for number in range(0, 300, 5):  # it reads in order, ever later
        at_ms = NOW_MS + 200 * number
        await confirm(store, GENT, *(f"m-{n}" for n in range(number, number + 5)), at_ms=at_ms)
        assert await take(store, at_ms) == []
    assert 300 < next(looks) < 2 * 600  # each is looked at once or twice


async def test_what_nobody_has_sent_yet_is_sent_at_once_also_to_a_desk_that_is_behind(
    store: Store,
) -> None:
    unsent = replace(message(9), sent_ms=0)
    await add(store, *(made_at(NOW_MS, name=f"m-{number}") for number in range(9)), unsent)
    await confirm(store, GENT, "m-0", at_ms=NOW_MS + 20_000)

    at_ms = NOW_MS + 20_001
    assert [one.id for one in await take(store, at_ms)] == ["m-9"]
    assert await take(store, at_ms + 19_999) == []


async def test_what_a_desk_has_lost_is_sent_again_once_it_confirms_what_came_later(
    store: Store,
) -> None:
    several = [made_at(NOW_MS + 1_000 * number, name=f"m-{number}") for number in range(9)]
    await add(store, *several)

    sent = []
    for number in [0, 1, 3, 4, 5, 6, 7, 8]:
        at_ms = several[number].made_ms + 50
        await confirm(store, GENT, f"m-{number}", at_ms=at_ms)
        sent += [(one.id, number) for one in await take(store, at_ms)]
    assert sent == [("m-2", 6)]


async def test_a_copy_of_what_was_lost_has_as_long_as_the_desk_takes(store: Store) -> None:
    """A desk that is 20 s behind, and never gets the first."""
    await add(store, *(made_at(NOW_MS + 1_000 * n, name=f"m-{n}") for n in range(200)))

    sent_s = []
    for second in range(1, 180):
        at_ms = NOW_MS + 1_000 * (second + 20)
        await confirm(store, GENT, f"m-{second}", at_ms=at_ms)
        sent_s += [second + 20 for one in await take(store, at_ms) if one.id == "m-0"]
    assert sent_s == [41, 61, 90, 134]


async def test_a_desk_that_says_nothing_any_more_is_sent_ever_fewer(store: Store) -> None:
    await add(store, *(made_at(NOW_MS + n, name=f"m-{n}") for n in range(100)))
    await add(store, *(made_at(NOW_MS, zone="kortrijk", name=f"k-{n}") for n in range(3)))
    await confirm(store, GENT, "m-0", at_ms=NOW_MS + 10)

    assert {one.reader for one in await take(store, NOW_MS + 3_000)} == {KORTRIJK}
    turns = [await take(store, NOW_MS + 4_000 + 250 * turn) for turn in range(320)]
    copies = [sum(one.reader == GENT for one in some) for some in turns]
    assert sum(copies[:8]) > 20  # in the first two seconds
    assert max(copies[8:]) <= 10
    assert max(copies[240:]) == 1
    found = [one.id for some in turns for one in some]
    assert {f"m-{number}" for number in range(1, 100)} <= {*found}  # each has its turn
    assert found.count("k-0") >= 5


async def test_a_time_that_a_copy_took_says_nothing_of_how_long_a_desk_takes(store: Store) -> None:
    await add(store, *(made_at(NOW_MS, name=name) for name in ("m-0", "m-1", "m-2")))
    await take(store, NOW_MS + 3_000)

    await confirm(store, GENT, "m-0", at_ms=NOW_MS + 50_000)  # the first copy, or a later one?

    assert len(await take(store, NOW_MS + 50_000 + 3_001)) == 2  # else after another 50 s


async def test_what_climbed_climbs_again_only_if_the_duty_desk_has_lost_it_or_says_nothing(
    store: Store,
) -> None:
    duty = DutyDesk(KORTRIJK, after_ms=10_000)
    await add(store, made_at(NOW_MS, name="m-1"), made_at(NOW_MS, name="m-2"))

    climbed = []
    for second in range(3, 90):
        now_ms = NOW_MS + 1_000 * second
        due = await store.outbox.take(now_ms, duty=duty)
        climbed += [(one.message.id, second) for one in due if one.climbs]
        own = made_at(now_ms, zone="kortrijk", name=f"k-{second}")
        if second < 60:  # the duty desk reads others until then
            await add(store, own)
            await confirm(store, KORTRIJK, own.id, at_ms=now_ms)
        if second == 13:
            await confirm(store, KORTRIJK, "m-1", at_ms=now_ms)

    assert [second for name, second in climbed if name == "m-1"] == [10]
    assert [second for name, second in climbed if name == "m-2"] == [10, 20, 29, 42, 62]


async def test_a_duty_desk_that_comes_back_is_sent_what_climbed_to_it(store: Store) -> None:
    duty = DutyDesk(KORTRIJK, after_ms=10_000)
    await add(store, made_at(NOW_MS, name="m-1"), made_at(NOW_MS, zone="kortrijk", name="k-1"))
    assert len(await store.outbox.take(NOW_MS + 10_000, duty=duty)) == 2
    await confirm(store, KORTRIJK, "k-1", at_ms=NOW_MS + 10_000)
    assert await store.outbox.take(NOW_MS + 10_001, duty=duty) == []

    await store.outbox.send_again(GENT, but=())

    assert [one.climbs for one in await store.outbox.take(NOW_MS + 10_001, duty=duty)] == [True]


async def test_a_desk_confirms_while_what_it_confirms_climbs(store: Store) -> None:
    duty = DutyDesk(KORTRIJK, after_ms=1)
    await add(store, *(message(number) for number in range(20)))

    await asyncio.gather(
        store.outbox.take(NOW_MS + 60_000, duty=duty),
        *(confirm(store, KORTRIJK, f"m-{number}") for number in range(20)),
    )

    assert await undelivered(store) == []


async def test_an_alarm_is_raised_repeated_and_ended_by_one_worker(store: Store) -> None:
    first, again = Alarm(NOW_MS, NOW_MS), Alarm(NOW_MS, NOW_MS + 60_000)

    raised = await asyncio.gather(*(store.desks.set_alarm(GENT, None, first) for _ in range(5)))
    assert sorted(raised) == [False] * 4 + [True]
    assert await store.desks.alarms() == {GENT: first}
    assert await store.desks.set_alarm(GENT, first, again)
    assert not await store.desks.set_alarm(GENT, first, again)
    assert await store.desks.set_alarm(GENT, again, None)
    assert await store.desks.alarms() == {}


async def test_desks_are_known_by_when_they_were_last_heard_of(store: Store) -> None:
    await store.desks.record_heard([GENT], NOW_MS)
    await store.desks.record_heard([GENT, KORTRIJK], NOW_MS + 5)
    await store.desks.record_heard([], NOW_MS + 9)

    assert await store.desks.last_heard() == {GENT: NOW_MS + 5, KORTRIJK: NOW_MS + 5}


async def test_a_message_of_now_is_due_when_its_reader_had_time_to_confirm_it() -> None:
    made = posted(new_id(), topics.QUESTION.topic(user="ann"), b"{}", now_ms=NOW_MS)

    assert (made.made_ms, made.due_ms, made.reader) == (NOW_MS, NOW_MS + 3_000, ANN)
