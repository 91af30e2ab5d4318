"""Real MQTT brokers on free ports, each killed by its own process id."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabij.local.embedded import find_program
from nabij.local.managed_process import free_port
from tests.conftest import missing
from tests.mqtt.brokers import BrokerProcess, StartMosquitto


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
def mosquitto(start_mosquitto: StartMosquitto) -> BrokerProcess:
    return start_mosquitto()


_RUMQTTD = """
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
    [v5.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 100
    dynamic_filters = true
"""


@pytest.fixture
def rumqttd(tmp_path: Path) -> Iterator[BrokerProcess]:
    """The embedded default: rumqttd out of the iotcore wheel, MQTT 5 on its own listener."""
    port = free_port()
    config = tmp_path / "rumqttd.toml"
    config.write_text(_RUMQTTD.format(port=port))
    code = f"from iotcore import IotCoreBroker; IotCoreBroker(config_path={str(config)!r}).run_forever()"
    process = BrokerProcess([sys.executable, "-c", code], port)
    process.start()
    yield process
    process.kill()
