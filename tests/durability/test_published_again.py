"""After the loss of the MQTT broker one worker publishes all retained states again."""

import pytest
import structlog

from broker.mqtt import ServerStatus
from broker.mqtt.status import Told
from broker.store import Store
from services import routes
from tests.services.system import Servers, polled, running

TOLD = ("retained states published again", "kept by the MQTT broker")


async def republished(servers: Servers, *, workers: int = 1) -> int:
    """How many of the police workers that start publish all states again; there is one incident."""
    with structlog.testing.capture_logs() as logs:
        async with running(servers, workers=workers) as system:
            ann = await system.connect("ann")
            await system.report(ann, system.place())

            async def told() -> bool:
                return sum(line["event"] in TOLD for line in logs) == workers

            await polled(told)
    return sum(line["event"] == "retained states published again" for line in logs)


async def test_what_a_running_mqtt_broker_keeps_is_not_published_again(
    own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await republished(own_servers) == 1  # nothing is known of it yet

    async def long_ago(_: ServerStatus) -> Told:
        return Told(dropped=0, started_at_ms=1_000)

    monkeypatch.setattr(ServerStatus, "told", long_ago)
    assert await republished(own_servers) == 0
    async with Store(own_servers.redis_url, routes=routes()) as store:
        await store.mqtt_outages.still_restored(999)
    assert await republished(own_servers) == 1  # what was given all was another server
    assert await republished(own_servers) == 0


async def test_of_several_workers_one_publishes_again(own_servers: Servers) -> None:
    assert await republished(own_servers, workers=2) == 1


async def test_where_the_server_does_not_say_since_when_it_runs_each_start_publishes_again(
    own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(_: ServerStatus) -> Told:
        return Told(dropped=None, started_at_ms=None)

    monkeypatch.setattr(ServerStatus, "told", unknown)
    assert await republished(own_servers) == 1
    assert await republished(own_servers) == 1
