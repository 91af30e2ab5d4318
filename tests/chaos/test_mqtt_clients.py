"""The clients of chaos that watch the MQTT broker alone, while it is killed."""

import os
import signal
from pathlib import Path
from random import Random

import pytest

from broker.mqtt import Endpoint
from nabij.local.embedded import Account, EmbeddedMqtt, MqttEngine
from verify.chaos import mqtt_clients
from verify.chaos.chaos_log import Log, Tail
from verify.chaos.mqtt_clients import MqttClients
from verify.oracle.evidence import Evidence
from verify.oracle.judgement import Judgement
from verify.oracle.mqtt_judge import judge_mqtt


@pytest.fixture(autouse=True)
def has_journal(mqtt_engine: MqttEngine) -> None:
    if mqtt_engine is MqttEngine.MOSQUITTO:
        pytest.skip("Mosquitto acknowledges from memory")


async def test_of_an_mqtt_broker_that_never_comes_back_the_judge_tells(
    own_mqtt: EmbeddedMqtt,
    accounts: dict[str, Account],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not an error that ends the run before anything is judged."""
    evidence, judgement = Evidence(), Judgement()
    with Log(tmp_path / "mqtt.jsonl") as log:
        endpoint = Endpoint.from_url(own_mqtt.url_for(accounts["nabij"]))
        async with MqttClients(endpoint, log, Random(1)).watching() as publisher:
            for _ in range(5):
                await publisher.acknowledgement_then(lambda: None)
            monkeypatch.setattr(mqtt_clients, "_CONNECT_S", 0.5)
            monkeypatch.setattr(mqtt_clients, "_LAST_S", 0.5)
            await publisher.acknowledgement_then(lambda: os.kill(own_mqtt.pid, signal.SIGKILL))

    evidence.take_all(Tail(tmp_path / "mqtt.jsonl").entries())  # type: ignore[arg-type]
    judge_mqtt(evidence, judgement)

    assert len(evidence.acknowledged) >= 6
    assert judgement.lost  # the last, at least: one of the two was away
