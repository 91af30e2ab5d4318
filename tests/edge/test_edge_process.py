"""The process of our own MQTT broker: what it answers, and how it starts and ends."""

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mqtt5
import msgspec
import pytest

from broker.edge.accounts import Grant
from nabij.local.edge_config import EdgeAccount, EdgeConfig, EdgeListener, hashed
from nabij.local.managed_process import HOST, free_port

ANN = EdgeAccount(hashed(b"secret"), Grant(name="ann", reads=("#",), writes=("#",)))
CONNECT = mqtt5.ConnectPacket("c", username="ann", password=b"secret").write()
DEADLINE_S = 20


@contextmanager
def started(config: EdgeConfig, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the process with this configuration."""
    file = directory / "edge.json"
    file.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "nabij.local.edge_process", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connected(port: int, process: subprocess.Popen[str]) -> socket.socket:
    """Connect as ann as soon as it listens."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError):
            client = socket.create_connection((HOST, port), timeout=DEADLINE_S)
            client.sendall(CONNECT)
            assert client.recv(100)[:4:3] == b"\x20\0"
            return client
    raise AssertionError(process.communicate())


@pytest.fixture
def config(tmp_path: Path) -> EdgeConfig:
    return EdgeConfig(
        listeners=[EdgeListener(HOST, free_port())],
        directory=str(tmp_path / "journal"),
        accounts=[ANN],
        metrics_port=free_port(),
    )


def test_prometheus_reads_what_it_does(config: EdgeConfig, tmp_path: Path) -> None:
    with started(config, tmp_path) as process:
        with connected(config.listeners[0].port, process) as client:
            client.sendall(mqtt5.PublishPacket("a", b"x", qos=mqtt5.QoS(1), packet_id=1).write())
            assert client.recv(100)[:1] == b"\x40"
            metrics = http.client.HTTPConnection(HOST, config.metrics_port, timeout=DEADLINE_S)
            metrics.request("GET", "/metrics")
            lines = metrics.getresponse().read().decode().splitlines()
            metrics.request("GET", "/")
            assert metrics.getresponse().status == 404
        samples = dict(line.split() for line in lines if not line.startswith("#"))
        assert samples["nabij_edge_clients_connected"] == "1"
        assert int(samples["nabij_edge_messages_received_total"]) >= 1
        types = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
        assert types == [*samples]


def test_a_sigterm_in_the_middle_of_work_ends_it_without_a_word(
    config: EdgeConfig, tmp_path: Path
) -> None:
    with (
        started(config, tmp_path) as process,
        connected(config.listeners[0].port, process) as client,
    ):
        client.sendall(mqtt5.SubscribePacket(1, [mqtt5.TopicFilter("a")]).write())
        client.sendall(mqtt5.PublishPacket("a", b"x" * 1000).write() * 1000)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE_S) == ("", "")
        assert process.returncode == 0


def test_a_port_that_is_taken_is_said_in_a_sentence(config: EdgeConfig, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        listeners = [*config.listeners, EdgeListener(HOST, port)]
        with started(msgspec.structs.replace(config, listeners=listeners), tmp_path) as process:
            said = process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 1
    assert f"{HOST}:{port}" in said
    assert "in use" in said
    assert "Traceback" not in said
