"""`nabij bench broker` measures what it says, on both MQTT brokers, in its smallest form."""

from collections.abc import Callable
from typing import Any

import pytest

from bench import broker


async def test_both_mqtt_brokers_are_measured_in_one_run(
    program: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program("mosquitto")
    smallest = broker._Plan(rounds=1, trips=5, messages=200, volleys=1, storms=1)
    for name, value in {
        "_QUICK": smallest,
        "_CROWD": 12,
        "_FEW": 6,
        "_PUBLISHERS": 2,
        "_PAUSE_S": 0.0,
        "_PAUSE_AFTER_CUT_S": 0.05,
    }.items():
        monkeypatch.setattr(broker, name, value)

    result = await broker.measure(quick=True)

    keys: dict[str, Any] = result.keys
    crowds = ("last_6_ms", "last_12_ms", "crowd_6_ms", "crowd_12_ms")
    both = ("round_trip_ms", "publishes_s", *crowds, "idle_mb", "storm_s")
    kept = ("round_trip_kept_ms", "publishes_s_kept", "last_6_kept_ms", "crowd_6_kept_ms")
    for key in (*both, *kept, "flooded_p99_ms"):
        assert keys[key] > 0, key
        assert keys[f"mosquitto_{key}"] > 0, key
    assert keys["empty_mb"] <= keys["idle_mb"]
    assert len(result.rows) == len(both) + len(kept) + 2
