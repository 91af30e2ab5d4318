"""`nabij up` for a city: ports that stay, devices over TLS, and what is wrong told in a sentence."""

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.errors import ConfigError
from broker.runtime import config
from devices.device_options import DeviceOptions
from devices.participant import Broker, Participant
from nabij.local.managed_process import HOST, free_port
from nabij.local.mqtt_listeners import check_certificate, check_ports
from schemas.ids import new_id
from schemas.messages import Outcome, Position, Report
from tests.cli.up_process import PATIENCE_S, Up, get
from tests.edge.sockets import certificates

KORENMARKT = Position(lat=51.0543, lon=3.7217)
PATIENT = DeviceOptions(receipt_timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S)
FILES = {"NABIJ_MQTT_CERTIFICATE": "certificate.pem", "NABIJ_MQTT_KEY": "key.pem"}


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def tls(tmp_path: Path, program: Callable[..., str]) -> ssl.SSLContext:
    """What a client trusts; the files of the server are in `tmp_path`."""
    return certificates(program("openssl"), tmp_path)[1]


def outside(directory: Path, port: int, **more: str) -> dict[str, str]:
    files = {name: str(directory / file) for name, file in FILES.items()}
    return {"NABIJ_MQTT_LISTEN": f"mqtts://0.0.0.0:{port}", **files, **more}


async def accepted(device: Participant) -> bool:
    now = datetime.now(UTC)
    report = Report(id=new_id(), category="fire", location=KORENMARKT, seen_at=now)
    return (await device.report(report)).outcome is Outcome.ACCEPTED


def add_account(directory: Path, name: str, password: str) -> None:
    path = directory / "accounts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: password}))


async def test_a_device_reports_from_outside_and_comes_back_to_the_same_ports_after_kill_9(
    start: Callable[..., Up], tls: ssl.SSLContext, tmp_path: Path
) -> None:
    port, metrics_port = free_port(), str(free_port())
    settings = outside(tmp_path, port, NABIJ_MQTT_METRICS_PORT=metrics_port)
    broker = Broker("127.0.0.1", port, tls)
    up = start("--service", "intake", **settings)
    said = await asyncio.to_thread(up.ready)
    assert said["mqtt_listen"] == settings["NABIJ_MQTT_LISTEN"]
    assert "nabij_edge_clients_connected" in get(said["mqtt_metrics"])[1]
    async with Participant("ann", said["accounts"]["ann"], broker, options=PATIENT) as ann:
        assert await accepted(ann)

        up.end(signal.SIGKILL)
        add_account(up.data_dir, "fien", "a-password-of-hers")
        add_account(up.data_dir, "desk-gnet", "a-password-of-nobody")
        up = start("--service", "intake", **settings)
        again = await asyncio.to_thread(up.ready)

        assert (again["mqtt"], again["redis"]) == (said["mqtt"], said["redis"])
        assert await accepted(ann)
        async with Participant("fien", "a-password-of-hers", broker, options=PATIENT) as fien:
            assert await accepted(fien)
    assert up.end() == 0
    assert up.process.stderr
    assert "of no known zone: desk-gnet;" in up.process.stderr.read()


def test_wrong_settings_end_it_before_anything_is_started(
    start: Callable[..., Up], tls: ssl.SSLContext, tmp_path: Path
) -> None:
    del tls
    with taken_port() as taken:
        up = start(**outside(tmp_path, taken, NABIJ_MQTT_PORT=str(free_port())))
        assert up.process.wait(PATIENCE_S) == 2
    assert up.process.stderr
    said = up.process.stderr.read()
    url = f"mqtts://0.0.0.0:{taken}"
    assert f"NABIJ_MQTT_LISTEN={url}: cannot listen on 0.0.0.0 port {taken}: Addr" in said
    assert "Traceback" not in said
    assert not (up.data_dir / "redis").exists()


def problems(check: Callable[[], Any]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        check()
    return refused.value.problems


@pytest.mark.parametrize("name", ["NABIJ_MQTT_PORT", "NABIJ_MQTT_METRICS_PORT"])
def test_a_port_that_is_taken_is_told_with_its_setting(name: str, tmp_path: Path) -> None:
    with taken_port() as taken:
        settings = config.load({name: str(taken)})
        (told,) = problems(lambda: check_ports(settings, tmp_path))
    assert (
        told == f"{name}={taken}: cannot listen on 127.0.0.1 port {taken}: Address already in use"
    )
    check_ports(settings, tmp_path)


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    settings = replace(config.load({}), mqtt_listen="mqtts://192.0.2.1:8883")
    (told,) = problems(lambda: check_ports(settings, tmp_path))
    assert told.endswith("cannot listen on 192.0.2.1 port 8883: Cannot assign requested address")


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [
        ("NABIJ_MQTT_CERTIFICATE", "key.pem", "has no certificate (PEM)"),
        ("NABIJ_MQTT_CERTIFICATE", "empty", "has no certificate (PEM)"),
        ("NABIJ_MQTT_KEY", "empty", "has no private key (PEM) that can be read without"),
        ("NABIJ_MQTT_KEY", "certificate.pem", "has no private key (PEM) that can be read without"),
        ("NABIJ_MQTT_KEY", "other/key.pem", "is not the key of NABIJ_MQTT_CERTIFICATE="),
    ],
)
def test_a_wrong_file_is_told_with_its_setting(  # noqa: PLR0917 - fixtures
    name: str, file: str, told: str, tls: ssl.SSLContext, tmp_path: Path, program: Any
) -> None:
    del tls
    (tmp_path / "empty").touch()
    (tmp_path / "other").mkdir()
    certificates(program("openssl"), tmp_path / "other")
    settings = config.load(outside(tmp_path, 8883, **{name: str(tmp_path / file)}))

    (said,) = problems(lambda: check_certificate(settings))

    assert said.startswith(f"{name}={tmp_path / file}: {told}")
