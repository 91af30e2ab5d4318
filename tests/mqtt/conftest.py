"""Real MQTT brokers on free ports, each killed by its own process id."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from nabij.local.edge_accounts import edge_account
from nabij.local.edge_config import EdgeAccount, EdgeConfig, EdgeListener
from nabij.local.embedded import MqttEngine, find_program
from nabij.local.managed_process import free_port
from schemas.roles import Role
from tests.conftest import missing
from tests.mqtt.brokers import ACCOUNT, BrokerProcess, StartMosquitto


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[StartMosquitto]:
    """A function that starts Mosquitto with further lines of configuration."""
    binary = find_program("mosquitto")
    if binary is None:
        missing("mosquitto on the PATH")
    started: list[BrokerProcess] = []

    def start(*lines: str, anonymous: bool = True) -> BrokerProcess:
        port = free_port()
        config = tmp_path / f"mosquitto-{port}.conf"
        config.write_text(
            "\n".join(
                [
                    f"listener {port} 127.0.0.1",
                    f"allow_anonymous {str(anonymous).lower()}",
                    "set_tcp_nodelay true",
                    "user root",  # as root, do not drop the right to read the test's own files
                    "max_inflight_messages 100",
                    "max_queued_messages 0",
                    *lines,
                    "",
                ]
            )
        )
        process = BrokerProcess([binary, "-c", str(config)], port)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def own_edge(tmp_path: Path) -> Iterator[BrokerProcess]:
    """Our own MQTT broker, with one account that may use every topic."""
    username, password = ACCOUNT
    known = edge_account(username, password, Role.SERVICE, None)
    anywhere = replace(known.grant, reads=("#",), writes=("#",))
    port = free_port()
    config = EdgeConfig(
        listeners=[EdgeListener("127.0.0.1", port)],
        directory=str(tmp_path / "journal"),
        accounts=[EdgeAccount(known.password_sha256, anywhere)],
    )
    file = tmp_path / "edge.json"
    file.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "nabij.local.edge_process", str(file)]
    process = BrokerProcess(command, port)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def mqtt_broker(mqtt_engine: MqttEngine, request: pytest.FixtureRequest) -> BrokerProcess:
    """The MQTT broker that was chosen, for this test alone."""
    if mqtt_engine is MqttEngine.MOSQUITTO:
        mosquitto: BrokerProcess = request.getfixturevalue("start_mosquitto")()
        return mosquitto
    edge: BrokerProcess = request.getfixturevalue("own_edge")
    return edge
