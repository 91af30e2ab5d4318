"""Which of the events that are read together are handled, and how effects are carried out."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest

from broker.core import changes
from broker.core.changes import Change, IncidentChanged
from broker.core.policy import Policy
from broker.core.zones import ZoneIndex
from broker.errors import UnavailableError
from broker.mqtt import Connection, Endpoint
from broker.runtime.dispatch import Dispatcher
from broker.runtime.service import NOTHING, Context, Effects, Service, Zones
from broker.store import Partitions, Store, StreamEntry
from schemas.ids import new_id
from schemas.taxonomy import Desk, default_policy_text


def dispatcher_of(service: Service) -> Dispatcher:
    return Dispatcher(
        service,
        partitions=Partitions([Store("redis://127.0.0.1:1")]),
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
