"""What the code knows of services and topics, as lists of words: `python -m tests.new_service.survey`.

Run in a checkout it prints, as JSON, what that one knows, and what became of a simulated world in
which participants send what the checkout's contract has.
"""

import json
import sys
from collections.abc import Mapping, Sequence

from broker.runtime.retained import read_alone
from nabij import completion
from nabij.local.embedded import Account, acl_file
from nabij.up import workers_of
from schemas.contract import asyncapi
from schemas.contract_page import documents
from schemas.ids import new_id
from schemas.roles import Role
from schemas.topics import TOPICS
from services import routes
from tests.derived import REPOSITORY, WRITTEN, differences
from tests.new_service.declaration import SUBJECT
from tests.services.test_topics import FLOWS
from verify.chaos.observer import EXEMPT
from verify.chaos.plan import VICTIMS, strikes_of
from verify.chaos.shares import KINDS
from verify.simulation.simulated_world import SimulatedWorld
from verify.simulation.simulation_run import SimulationResult, _add
from verify.simulation.virtual_time import silence
from verify.world.exercised import Exercised

_ACCOUNTS = [
    Account("nabij", "secret", Role.SERVICE),
    Account("ann", "secret", Role.PARTICIPANT),
    Account("desk-gent", "secret", Role.POLICE_DESK, "gent"),
    Account("city-desk", "secret", Role.CITY_DESK),
]


def known() -> dict[str, Sequence[str]]:
    """What follows from the contract and from `services.ALL`."""
    contract, strikes = asyncapi(), strikes_of(len(VICTIMS), seed=1)
    return {
        "rights at the embedded MQTT broker": acl_file(_ACCOUNTS).splitlines(),
        "retained messages that are cleared": read_alone(),
        "channels": [*contract["channels"]],
        "operations": [*contract["operations"]],
        "workers of `nabij up`": [f"{name}={n}" for name, n in workers_of((), ()).items()],
        "words of the shell": completion.services(""),
        "readers of events": routes().readers,
        "victims of chaos": VICTIMS,
        "killed in turn": [one.victim for one in strikes if one.pause_s is None],
        "asked for an answer by chaos": KINDS,
        "not exercised by chaos at first": Exercised().missing(EXEMPT),
        "topics without a flow": [one.template for one in TOPICS if one.template not in FLOWS],
        **{name: _to_write(name) for name in (*WRITTEN, *_DOCUMENTS)},
    }


_DOCUMENTS = {f"docs/contract/{name}": text for name, text in documents().items()}


def _to_write(name: str) -> list[str]:
    """What a file does not say yet of what follows from the code."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    wanted = WRITTEN[name](text) if name in WRITTEN else _DOCUMENTS[name]
    return differences(text, wanted)


def simulated(*, is_sent: bool) -> Mapping[str, Sequence[str]]:
    """A world in which someone errs on any topic, and sends the new one right if so told."""
    world, result = SimulatedWorld(seed=1), SimulationResult()
    person = world.people[0]
    for number in range(60):
        world.loop.call_at(1.0 + number / 50, person.blunder)
    [topic] = [one for one in TOPICS if one.name == SUBJECT]
    if is_sent:
        key = new_id()
        said = {"id": str(key), "location": {"lat": 51.05, "lon": 3.72}}
        to, body = topic.topic(user=person.user), json.dumps(said).encode()
        world.loop.call_at(2.0, person.confirmed, to, body, key)
    with silence():
        _add(result, world)
    return {
        "workers": [*world.workers],
        "missing": [one for one in result.exercised.missing() if topic.template in one],
        "violations": [one.what for some in result.failing.values() for one in some],
    }


if __name__ == "__main__":
    found = {"known": known(), "erring": simulated(is_sent=False), "sent": simulated(is_sent=True)}
    sys.stdout.write(json.dumps(found))
