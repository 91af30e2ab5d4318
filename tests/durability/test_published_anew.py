"""After the loss of the MQTT broker everything is published anew, and only then."""

import pytest
import structlog

from broker.store import Store
from services import police
from tests.services.system import Servers, polled, running


async def anew(servers: Servers) -> bool:
    """Whether a police service that starts publishes everything anew; there is one incident."""
    with structlog.testing.capture_logs() as logs:
        async with running(servers) as system:
            ann = await system.connect("ann")
            await system.report(ann, system.place())

            async def told() -> bool:
                return any(line["event"] in ("published anew", "kept by the MQTT broker")
                           for line in logs)  # fmt: skip

            await polled(told)
    return any(line["event"] == "published anew" for line in logs)


async def test_what_a_running_mqtt_broker_keeps_is_not_published_anew(
    own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await anew(own_servers)  # nothing is known of it yet
    assert await anew(own_servers)  # it is young: it may be another one since
    monkeypatch.setattr(police, "_YOUNG_MS", -60_000)
    assert not await anew(own_servers)
    async with Store(own_servers.redis_url) as store:
        restored_to = await store.outages.restored_to()
        assert restored_to is not None
        await store.outages.restored(restored_to - 60_000)
    assert await anew(own_servers)  # what was restored was another server's memory
    assert not await anew(own_servers)
