"""Some simulated world writes every family of keys, or another test is named; none outlives its incident."""

import inspect
import re
from typing import Any
from uuid import uuid4

import pytest

from broker.store import incident_store
from broker.store.incident_store import ReportCommit
from broker.store.kernel.keys import Keys
from broker.store.kernel.transaction import Transaction
from verify.simulation.simulated_world import SimulatedWorld
from verify.simulation.simulation_run import first_failing
from verify.simulation.virtual_time import silence

SEEDS = (*range(14), 28)  # the last has a desk that nobody attends
PREFIX = Keys().prefix

# What a simulated world does not write, and which tests do.
EXEMPT = {
    "attended": "a duty desk, which the simulated city does not name: tests/services/test_delivery_to_desks.py",
    "migrating": "layouts of older releases: tests/store/test_migrations.py",
    "clock-jump": "clocks that jump: tests/services/test_clock.py",
    "dropped": "what an MQTT broker tells of lost messages: tests/services, tests/durability; no queue is full in a small world",
    "dead-letter-replay": "an operator's replay: tests/durability/test_dead_letters.py",
}


class Written(dict[bytes, Any]):
    """The data of a modelled Redis, which remembers the keys that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.keys_seen: set[bytes] = set()

    def __setitem__(self, key: bytes, value: Any) -> None:
        self.keys_seen.add(key)
        super().__setitem__(key, value)


def family(key: str) -> str:
    return re.sub(r"^nabij:\{p\d+\}:", "", key).partition(":")[0]


def families() -> set[str]:
    """The families of the key table: its attributes, and its methods with any argument."""
    keys = Keys()
    found = {family(value) for value in vars(keys).values() if str(value).startswith(PREFIX)}
    for _, method in inspect.getmembers(keys, inspect.ismethod):
        hints = inspect.signature(method)
        if hints.return_annotation is str:
            words = [1 if one.annotation is int else uuid4() for one in hints.parameters.values()]
            found.add(family(method(*words)))
    return found - {""}


def test_no_family_of_keys_is_forgotten_nor_exempt_without_need() -> None:
    written: set[str] = set()
    with silence():
        for seed in SEEDS:
            world = SimulatedWorld(seed)
            world.redis.database.data = data = Written()
            world.run()
            written |= {family(key.decode()) for key in data.keys_seen}
    assert families() - written == EXEMPT.keys()


@pytest.mark.parametrize("life", [(), ("PX", 86_400_000)], ids=["forever", "a day"])
def test_a_key_that_outlives_its_incident_is_seen(
    monkeypatch: pytest.MonkeyPatch, life: tuple[str | int, ...]
) -> None:
    honest = incident_store._file_report

    def with_thanks(transaction: Transaction, made: ReportCommit, *words: Any) -> None:
        honest(transaction, made, *words)
        key = f"{transaction.keys.prefix}thanks:{made.incident.id}:ann"
        transaction.call("SET", key, 1, *life)

    monkeypatch.setattr(incident_store, "_file_report", with_thanks)
    found = first_failing(range(2))

    assert found is not None
    assert all(
        (one.invariant, one.what.partition(" ")[2]) == ("I8", "left in keys of erased incidents")
        for one in found[1]
    )


def test_a_key_that_is_not_erased_with_its_incident_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Keys.all_of
    monkeypatch.setattr(Keys, "all_of", lambda *given: honest(*given)[1:])

    found = first_failing(range(2))

    assert found is not None
    assert {one.invariant for one in found[1]} == {"I8"}
