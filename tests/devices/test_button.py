"""The panic button as its user has it: a program with three exit codes."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nabij.local.managed_process import free_port
from schemas import topics
from schemas.codec import Code
from schemas.messages import Outcome, Receipt, Subject

REPOSITORY = Path(__file__).parents[2]
NOT_CONFIRMED = "Not confirmed. Call 112 if it is urgent.\n"


async def press(broker_url: str, *more: str, password: str = "secret-of-ann") -> tuple[int, str]:
    code, output, _ = await pressed(broker_url, *more, password=password)
    return code, output


async def pressed(
    broker_url: str, *more: str, password: str = "secret-of-ann"
) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "devices.button", "--user", "ann", "--broker", broker_url),
        *("--lat", "51.0543", "--lon", "3.7217", *more),
        cwd=REPOSITORY,
        env={"NABIJ_DEVICE_PASSWORD": password},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.fixture
def url(broker: Any) -> str:
    return f"mqtt://{broker.host}:{broker.port}"


async def test_a_confirmed_press_exits_with_0_and_gives_the_advice(url: str, services: Any) -> None:
    services.answer = lambda message: Receipt(
        subject=Subject.REPORT,
        outcome=Outcome.ACCEPTED,
        at=datetime.now(UTC),
        id=topics.REPORT.decode(message.payload).id,
        advice="Bel 112.",
    )
    code, output = await press(url)
    assert code == 0
    assert output.startswith("Confirmed")
    assert "Bel 112." in output
    report = topics.REPORT.decode(services.received[0].payload)
    assert (report.category, report.location.lat) == ("threat", 51.0543)


async def test_a_rejected_press_exits_with_1_and_says_why(url: str, services: Any) -> None:
    services.answer = lambda _: Receipt(  # as when the id could not be read
        subject=Subject.REPORT,
        outcome=Outcome.REJECTED,
        at=datetime.now(UTC),
        code=Code.OUT_OF_RANGE,
        field="$.location.lat",
        reason="95 is no latitude.",
    )
    code, output = await press(url, "--lat", "95")
    assert code == 1
    assert "out_of_range at $.location.lat: 95 is no latitude." in output
    assert "112" in output


async def test_an_unconfirmed_press_exits_with_2_and_says_to_call_112(
    url: str, services: Any
) -> None:
    services.answer = lambda _: None
    why = f"connected to {url.removeprefix('mqtt://')}, but no receipt came\n"
    assert await pressed(url, "--timeout", "2") == (2, NOT_CONFIRMED, why)
    assert services.received


async def test_a_press_without_a_broker_is_not_confirmed() -> None:
    server = f"127.0.0.1:{free_port()}"
    told = await pressed(f"mqtt://{server}", "--timeout", "0.3")
    assert told == (2, NOT_CONFIRMED, f"no connection to {server}\n")


async def test_a_press_that_the_mqtt_broker_refuses_says_its_reason(url: str) -> None:
    code, output, errors = await pressed(url, "--timeout", "2", password="wrong")
    assert (code, output) == (2, NOT_CONFIRMED)
    reasons = ("Bad user name or password", "Not authorized")  # our own MQTT broker, Mosquitto
    server = url.removeprefix("mqtt://")
    assert errors in [f"the MQTT broker at {server} refused: {reason}\n" for reason in reasons]


@pytest.mark.parametrize(
    "arguments",
    [["--lat", "0", "--lon", "0"], ["--password-file", "/nowhere"], ["--user", "Not A User"]],
)
async def test_a_press_that_cannot_be_sent_says_so(url: str, arguments: list[str]) -> None:
    code, output = await press(url, *arguments)
    assert code == 2
    assert output.startswith("Not sent: ")
    assert "Call 112" in output


async def test_the_password_may_come_from_a_file(url: str, services: Any, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret-of-ann\n")
    code, _ = await press(url, "--password-file", str(file), password="wrong")
    assert code == 0
    assert len(services.received) == 1
