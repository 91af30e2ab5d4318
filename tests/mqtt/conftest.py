"""Real MQTT brokers on free ports, each killed by its own process id."""

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
