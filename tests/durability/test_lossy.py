"""Where the MQTT broker loses messages without a word, what nobody confirms is sent once more."""

import pytest

from broker.mqtt import Connection, ServerStatus
from broker.runtime import worker
from broker.runtime.config import Settings
from broker.store import alert_states
from services import alerting
from tests.services.system import Servers, running


async def test_an_alert_that_no_device_confirms_is_sent_once_more_and_not_a_third_time(
    own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(_: Settings, mqtt: Connection, *__: object) -> list[ServerStatus]:
        return [ServerStatus(None, mqtt, is_lossy=True)]

    monkeypatch.setattr(worker, "servers", lossy)
    monkeypatch.setattr(alert_states, "LOSSY_LOOK_MS", 300)
    monkeypatch.setattr(alerting, "LOSSY_TRIES", 2)
    async with running(own_servers) as system:
        ann = await system.connect("ann", "u/ann/down/receipt")
        bob = await system.connect("bob", "u/bob/down/#")
        incidents = []
        for _ in range(3):  # those that come later show that no third one of the first comes
            place = system.place()
            await system.be_at(bob, place)
            incidents.append((await system.report(ann, place))["incident"])
            await bob.expect("u/bob/down/alert", incident=incidents[-1], count=2)

        for incident in incidents:
            ids = [alert["id"] for alert in bob.on("u/bob/down/alert", incident=incident)]
            assert len(ids) == 2
            assert len(set(ids)) == 1
