"""A service is named once: everything that runs, watches or kills services finds it by that."""

import ast
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

import services
from broker.core.changes import (
    INCIDENT_CHANGED,
    Change,
    Erased,
    IncidentChanged,
    Informed,
    Routes,
    WalkedIn,
)
from broker.runtime.service import NOTHING, Context, Effects, Service
from schemas.ids import new_id
from schemas.taxonomy import Desk
from schemas.topics import TOPICS

REPOSITORY = Path(__file__).parents[2]


def test_every_file_of_a_service_is_listed() -> None:
    files = {path.stem for path in (REPOSITORY / "services").glob("*.py")} - {"__init__"}
    assert files == set(services.ALL)


def test_every_service_is_one_of_that_name() -> None:
    assert [services.load(name).name for name in services.ALL] == list(services.ALL)


def test_each_service_that_handles_events_has_a_stream_and_no_other() -> None:
    assert set(services.routes().readers) == {
        name for name in services.ALL if services.load(name).event_handlers
    }


def test_every_topic_from_outside_has_the_service_that_the_contract_names() -> None:
    read = {
        sub.topic.template: name
        for name in services.ALL
        for sub in services.load(name).subscriptions
        if sub.moved_to is None
    }
    assert read == {topic.template: topic.service for topic in TOPICS if topic.is_received}


# Who is woken by what happens to an incident of the police, and of the city.
WOKEN = {
    Change.OPENED: ({"alerting", "police"}, {"city"}),
    Change.MERGED: ({"police"}, {"city"}),
    Change.RENEWED: ({"alerting", "police"}, set()),
    Change.WIDENED: ({"alerting", "police"}, set()),
    Change.ALERTED: ({"police"}, set()),
    Change.REPLIED: ({"police"}, set()),
    Change.COMMANDED: ({"police"}, set()),
    Change.OVERDUE: ({"police"}, set()),
    Change.RESTATED: ({"police"}, set()),
    Change.CLOSED: ({"groups", "police"}, {"groups"}),
}


@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("desk", Desk)
def test_a_change_wakes_the_services_that_act_on_it_and_no_other(
    change: Change, desk: Desk
) -> None:
    event = IncidentChanged(incident=new_id(), change=change, at=datetime.now(UTC), desk=desk)

    woken = services.routes().readers_of(event)

    assert set(woken) == WOKEN[change][desk is Desk.CITY]
    assert len(set(woken)) == len(woken)


def test_what_is_no_change_has_one_reader() -> None:
    incident, at = new_id(), datetime.now(UTC)
    events = {
        "alerting": WalkedIn(incident=incident, users=("ann",)),
        "groups": Informed(incident=incident, command=new_id(), text="Stay back.", at=at),
        "police": Erased(incident=incident, zone="gent"),
    }
    for reader, event in events.items():
        assert services.routes().readers_of(event) == (reader,)


def test_a_service_that_declares_its_interest_is_routed_to_and_named_nowhere_else() -> None:
    counting = Service("counting")

    @counting.on(INCIDENT_CHANGED, changes={Change.CLOSED}, desks={Desk.CITY})
    async def count(_change: IncidentChanged, _ctx: Context) -> Effects:
        return NOTHING

    routes = Routes({"counting": counting.interests, "idle": Service("idle").interests})
    of = partial(IncidentChanged, incident=new_id(), at=datetime.now(UTC))

    assert routes.readers == ("counting",)
    assert routes.readers_of(of(change=Change.CLOSED, desk=Desk.CITY)) == ("counting",)
    assert routes.readers_of(of(change=Change.CLOSED, desk=Desk.POLICE)) == ()
    assert routes.readers_of(of(change=Change.OPENED, desk=Desk.CITY)) == ()
    with pytest.raises(ValueError, match="two handlers of IncidentChanged"):
        counting.on(INCIDENT_CHANGED)(count)


def test_what_has_moved_is_with_the_service_that_the_contract_names() -> None:
    moved = [
        sub
        for name in services.ALL
        for sub in services.load(name).subscriptions
        if sub.moved_to is not None
    ]
    assert moved
    assert [sub.moved_to for sub in moved] == [sub.topic.service for sub in moved]


# Where services are named together, and why: what each has of its own follows from no declaration.
NAMED_TOGETHER = {
    "verify/simulation/simulated_world.py": "some have two workers in a simulated world",
    "verify/simulation/faults.py": "some of those lose one for good, as with its host",
}


def named_in(path: Path) -> list[str]:
    """The literals of a module that name three services or more."""
    text, found = path.read_text(encoding="utf-8"), []
    if sum(f'"{name}"' in text for name in services.ALL) < 3:
        return []
    for node in ast.walk(ast.parse(text)):
        parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
        words = {one.value for one in parts if isinstance(one, ast.Constant)}
        if len(words & {*services.ALL}) >= 3:
            found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    return found


def test_no_other_list_of_services_stands_beside_services_all() -> None:
    rooms = [path.parent for path in REPOSITORY.glob("*/__init__.py")]
    modules = [path for room in rooms for path in room.rglob("*.py")]
    lists = [one for path in modules for one in named_in(path)]
    listed = {one.partition(":")[0] for one in lists}

    assert "services/__init__.py" in listed
    assert listed == {"services/__init__.py", *NAMED_TOGETHER}, lists
