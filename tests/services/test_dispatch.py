"""Which of the events that are read together are handled, and how effects are carried out."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from broker.core import changes
from broker.core.changes import Change, IncidentChanged
from broker.core.policy import Policy
from broker.core.zones import ZoneIndex
from broker.errors import UnavailableError
from broker.identity.principal import Principal
from broker.mqtt import Connection, Delivery, Endpoint, Message
from broker.runtime.dispatch import Dispatcher
from broker.runtime.refusals import refusal_of
from broker.runtime.service import NOTHING, Context, Effects, Service, Zones
from broker.store import Partitions, Store, StreamEntry
from broker.store.kernel.keys import Keys
from schemas import messages, topics
from schemas.codec import Code, Invalid, encode
from schemas.examples import EXAMPLES
from schemas.ids import new_id
from schemas.roles import Role
from schemas.taxonomy import Desk, default_policy_text
from schemas.topics import RECEIPT, ROOT, Topic
from services import routes


def dispatcher_of(service: Service, partitions: int = 1) -> Dispatcher:
    stores = [
        Store("redis://127.0.0.1:1", Keys(number, partitions), routes=routes())
        for number in range(partitions)
    ]
    return Dispatcher(
        service,
        partitions=Partitions(stores),
        mqtt=Connection(Endpoint(host="127.0.0.1", port=1), client_id="nobody"),
        policy=Policy.parse(default_policy_text()),
        zones=Zones(ZoneIndex([]), ZoneIndex([])),
    )


def entry(number: int, incident: UUID, change: Change) -> StreamEntry:
    event = IncidentChanged(
        incident=incident, change=change, at=datetime.now(UTC), desk=Desk.POLICE
    )
    return StreamEntry(f"{number}-0", event, b"")


@pytest.mark.parametrize(
    ("newest_of", "handled"),
    [
        (lambda change: change.incident, ["2-0", "3-0", "9-0"]),
        (None, ["1-0", "2-0", "3-0", "9-0"]),
    ],
)
async def test_only_the_newest_event_of_a_key_is_worth_handling(
    newest_of: Callable[[IncidentChanged], UUID] | None, handled: list[str]
) -> None:
    service = Service("test")

    @service.on(changes.INCIDENT_CHANGED, newest_of=newest_of)
    async def handle(_change: IncidentChanged, _ctx: Context) -> Effects:
        return NOTHING

    fire, fight = new_id(), new_id()
    unreadable = StreamEntry("9-0", None, b"?")
    read = [
        entry(1, fire, Change.OPENED),
        entry(2, fight, Change.OPENED),
        entry(3, fire, Change.ALERTED),
        unreadable,
    ]
    assert sorted(one.id for one in dispatcher_of(service).worth_handling(read)) == handled


async def test_effects_are_carried_out_to_the_last_of_the_rest() -> None:
    recorded: list[int] = []

    async def portion(number: int) -> Effects:
        async def record(_outcomes: object) -> None:
            recorded.append(number)

        rest = partial(portion, number + 1) if number < 4 else None
        return Effects((), record, rest)

    dispatcher = dispatcher_of(Service("test"))
    await dispatcher.run(lambda _ctx: portion(1), dispatcher.first)

    assert recorded == [1, 2, 3, 4]


async def test_a_rest_that_fails_fails_the_whole() -> None:
    async def fail() -> Effects:
        raise UnavailableError("gone")

    async def begin(_ctx: Context) -> Effects:
        return Effects(rest=fail)

    dispatcher = dispatcher_of(Service("test"))
    with pytest.raises(UnavailableError, match="gone"):
        await dispatcher.run(begin, dispatcher.first)


# -- which handler gets a message, and in which partition ------------------------------------------


def delivery_of(topic: str, payload: bytes, acknowledged: list[str]) -> Delivery:
    message = Message(topic, payload)
    return Delivery(message, 0.0, False, 1, 0, lambda *_: acknowledged.append(topic))  # noqa: FBT003


async def test_topics_that_end_alike_have_each_their_own_handler() -> None:
    later = Topic(
        "u/{user}/later/reply", messages.Reply, Role.PARTICIPANT, Role.SERVICE, receipt=RECEIPT
    )
    service, handled, acknowledged = Service("test"), [], []

    @service.on(topics.REPLY)
    async def now(_reply: messages.Reply, _ctx: Context) -> Effects:
        handled.append("now")
        return NOTHING

    @service.on(later)
    async def then(_reply: messages.Reply, _ctx: Context) -> Effects:
        handled.append("later")
        return NOTHING

    dispatcher, payload = dispatcher_of(service), encode(EXAMPLES["reply"])
    for topic in (later, topics.REPLY):
        await dispatcher.deliver(delivery_of(topic.topic(user="ann"), payload, acknowledged))

    assert handled == ["later", "now"]
    assert len(acknowledged) == 2
    with pytest.raises(LookupError):
        dispatcher.subscription(delivery_of(f"{ROOT}/u/ann/up/report", payload, acknowledged))


async def test_messages_that_are_tried_again_together_are_handled_at_the_time_of_that_try() -> None:
    service, tries, acknowledged = Service("test"), [], []

    @service.on_batch(topics.PRESENCE)
    async def handle(batch: Sequence[tuple[messages.Presence, Context]]) -> Effects:
        tries.append({ctx.now for _, ctx in batch})
        if len(tries) == 1:
            raise UnavailableError("away")
        return NOTHING

    payload = encode(EXAMPLES["presence"])
    some = [delivery_of(topics.PRESENCE.topic(user=user), payload, acknowledged) for user in "ab"]
    await dispatcher_of(service).deliver_batch(some)

    [first], [second] = tries
    assert first < second
    assert len(acknowledged) == 2


async def _never(_value: object, _ctx: Context) -> Effects:
    raise AssertionError("nothing is to be handled")


async def _never_several(_values: object) -> Effects:
    raise AssertionError("nothing is to be handled")


def test_a_service_cannot_declare_two_handlers_of_one_message() -> None:
    service = Service("test")
    service.on(topics.REPLY)(_never)

    with pytest.raises(ValueError, match="two handlers would get it"):
        service.on(topics.REPLY)(_never)


def test_a_service_cannot_subscribe_to_what_it_could_not_answer() -> None:
    with pytest.raises(ValueError, match="not received from a device or desk"):
        Service("test").on(topics.ALERT)(_never)


def test_a_service_cannot_handle_messages_of_several_partitions_together() -> None:
    with pytest.raises(ValueError, match="handled in the partition of its incident"):
        Service("test").on_batch(topics.REPLY)(_never_several)


@pytest.mark.parametrize(
    ("topic", "example"),
    [
        (topics.REPORT, "report"),
        (topics.REPLY, "reply"),
        (topics.MESSAGE, "message"),
        (topics.ANSWER, "answer"),
        (topics.COMMAND, "command-close"),
        (topics.SYNC, "sync"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_a_message_is_handled_in_the_partition_that_its_topic_declares(
    topic: Topic[Any], example: str
) -> None:
    service, homes, value = Service("test"), [], EXAMPLES[example]

    @service.on(topic)
    async def handle(_value: object, ctx: Context) -> Effects:
        homes.append(ctx.store)
        return NOTHING

    dispatcher = dispatcher_of(service, partitions=64)
    await dispatcher.deliver(
        delivery_of(topic.topic(**dict.fromkeys(topic.levels, "x")), encode(value), [])
    )

    partitions = dispatcher.context().partitions
    match value:
        case messages.Report(location=location):
            assert homes == [partitions.at(location.lat, location.lon)]
        case messages.Answer(question=question):
            assert homes == [partitions.of(question)]
        case messages.Sync():
            assert homes == [partitions.first]
        case _:
            assert homes == [partitions.of(value.incident)]


@pytest.mark.parametrize(
    ("topic", "own"),
    [
        (topics.REPORT, "u/Ann.1/down/receipt"),
        (topics.COMMAND, "police/Ann.1/receipt"),
        (topics.CITY_SYNC, "city/Ann.1/receipt"),
    ],
    ids=["participant", "police desk", "city desk"],
)
def test_a_sender_whose_name_is_none_of_ours_is_told_so_on_its_own_topic(
    topic: Topic[Any], own: str
) -> None:
    def refused(name: str) -> Message | None:
        return refusal_of(
            Message(topic.topic(**{topic.levels[0]: "x"}).replace("/x/", f"/{name}/"), b"{}"),
            topic,
            Invalid(Code.BAD_TOPIC, "$", "No name of ours."),
            policy=Policy.parse(default_policy_text()),
            broker_index=0,
            now=datetime.now(UTC),
        )

    told = refused("Ann.1")
    assert told is not None
    assert told.topic == f"{ROOT}/{own}"
    assert refused("") is None  # nobody reads there


@pytest.mark.parametrize(
    ("topic", "example", "sender"),
    [
        (topics.REPLY, "reply", Principal(Role.PARTICIPANT, "x")),
        (topics.COMMAND, "command-close", Principal(Role.POLICE_DESK, "x")),
        (topics.CITY_SYNC, "desk-sync", Principal(Role.CITY_DESK, "x")),
    ],
    ids=["participant", "police desk", "city desk"],
)
async def test_a_handler_is_told_who_sent_it_and_as_what(
    topic: Topic[Any], example: str, sender: Principal
) -> None:
    service, senders = Service("test"), []

    @service.on(topic)
    async def handle(_value: object, ctx: Context) -> Effects:
        senders.append(ctx.principal)
        return NOTHING

    levels = dict.fromkeys(topic.levels, "x")
    payload = encode(EXAMPLES[example])
    await dispatcher_of(service).deliver(delivery_of(topic.topic(**levels), payload, []))

    assert senders == [sender]


def test_a_desk_is_never_taken_for_a_user_nor_a_user_for_a_desk() -> None:
    user, desk = Principal(Role.PARTICIPANT, "gent"), Principal(Role.POLICE_DESK, "gent")

    assert (user.user, desk.zone) == ("gent", "gent")
    for read in (lambda: desk.user, lambda: user.zone, lambda: desk.municipality):
        with pytest.raises(LookupError, match="the sender is"):
            read()
