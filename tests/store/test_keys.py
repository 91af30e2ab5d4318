"""The key table in the docstring of `broker/store/kernel/keys.py` is what that module makes."""

import inspect
import re
from uuid import uuid4

import pytest
import redis
from redis.crc import key_slot

from broker.core.zones import Zone, ZoneKind
from broker.store import Store, Update
from broker.store.kernel import keys
from broker.store.kernel.keys import Keys, where_bucket
from schemas.messages import AlertReason, Availability
from tests.core.samples import START, report
from tests.store.samples import NOW_MS, open_incident

ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \| .* \| ([^|]+) \|$", re.MULTILINE)
FOUND = ROW.findall(keys.__doc__ or "")
ROWS = [(row, kind) for row, kind, _ in FOUND]
TABLE = dict(ROWS)
LIVES_AS_INCIDENT = {"as incident", "retention after close"}
KEYS = Keys()


def family(key: str) -> str:
    return key.removeprefix(KEYS.prefix).partition(":")[0].partition("{")[0]


def test_table_and_keys_agree() -> None:
    made = {
        family(value)
        for name, value in vars(KEYS).items()
        if name != "prefix" and isinstance(value, str)
    }
    for _, method in inspect.getmembers(KEYS, inspect.ismethod):
        if inspect.signature(method).return_annotation is str and method.__name__[0] != "_":
            arguments = [
                7 if "int" in str(parameter.annotation) else "x"
                for parameter in inspect.signature(method).parameters.values()
            ]
            made.add(family(method(*arguments)))

    assert made | {"where"} == {family(row) for row in TABLE}  # where: is made by presence.lua
    assert len(ROWS) == len(TABLE)


def test_what_lives_as_its_incident_is_erased_with_it() -> None:
    of_incidents = {family(row) for row, _, lives in FOUND if lives in LIVES_AS_INCIDENT}

    assert of_incidents == {family(key) for key in KEYS.all_of(uuid4())}


@pytest.mark.parametrize("partition", [0, 7, 15])
def test_every_key_carries_the_partitions_tag(partition: int) -> None:
    assert Keys(partition, 16).prefix == f"nabij:{{p{partition}}}:"
    assert "`nabij:{p0}:`" in (keys.__doc__ or "")


def test_the_slot_is_that_of_redis_cluster() -> None:
    for partition in range(64):
        keys = Keys(partition, 64)
        assert keys.slot == key_slot(keys.sequence.encode())


async def test_keys_in_redis_are_of_the_types_in_the_table(
    store: Store, client: redis.Redis
) -> None:
    incident = await open_incident(store, report())
    await store.alerts.claim(incident, ["bob"], reason=AlertReason.NEARBY, now=START, retention_s=9)
    await store.presence.update(
        [Update("ann", 0x8A1FA4A24C2FFFF, Availability.AVAILABLE, NOW_MS)],
        now_ms=NOW_MS,
        presence_s=9,
    )
    await store.zones.save(ZoneKind.POLICE, [Zone("a", "A", ZoneKind.POLICE, (1,))])
    types = {family(row): kind for row, kind in ROWS}

    for key in client.scan_iter("*"):
        assert key.startswith(KEYS.prefix)
        assert client.type(key) == types[family(key)], key


def test_buckets_spread_users_evenly() -> None:
    counts: dict[int, int] = {}
    for number in range(50_000):
        bucket = where_bucket(f"u-{number}")
        counts[bucket] = counts.get(bucket, 0) + 1

    assert max(counts.values()) < 25  # three in the mean; packed up to 128
