"""The example in Node.js, as a device maker runs it; `.ci/run` installs what it needs."""

import asyncio
import json
import os
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.services.system import Servers, System

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "node"


@pytest.fixture
def node(program: Callable[..., str]) -> str:
    if not (EXAMPLE / "node_modules").is_dir():
        missing("packages of examples/node (npm install there)")
    return program("node")


async def run(*words: str | Path, password: str = "") -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        cwd=EXAMPLE,
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "NABIJ_PASSWORD": password},
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode(), errors.decode()


async def test_a_participant_in_node_reports_and_hears_its_receipt(
    node: str, servers: Servers, system: System
) -> None:
    mqtt = servers.mqtt
    lat, lon = system.place()
    words = (node, "report.mjs", f"mqtt://{mqtt.host}:{mqtt.port}", "ann")
    password = servers.accounts["ann"].password
    before_ms = time.time() * 1000
    status, output, errors = await run(
        *words, "fight", str(lat), str(lon), "Twee mannen vechten", password=password
    )
    receipt = json.loads(output)
    assert (status, receipt["outcome"], receipt["merge"]) == (0, "accepted", "opened"), errors
    assert before_ms - 1_000 < int(receipt["id"].replace("-", "")[:12], 16) <= time.time() * 1000
    status, output, _ = await run(*words, "zeehond", str(lat), str(lon), password=password)
    assert (status, json.loads(output)["code"]) == (1, "unknown_category")


async def test_the_participant_in_node_takes_a_code_that_it_does_not_know(
    node: str, servers: Servers, system: System
) -> None:
    """It was written before that code, and is told what it can be told all the same."""
    assert system.settings
    mqtt = servers.mqtt
    words = (node, "report.mjs", f"mqtt://{mqtt.host}:{mqtt.port}", "ann", "fight", "95", "3.7")
    status, output, errors = await run(*words, password=servers.accounts["ann"].password)
    receipt = json.loads(output)
    assert (status, receipt["outcome"], errors) == (1, "rejected", "")
    assert (receipt["code"], receipt["code_as_sent"]) == ("other", "out_of_range")
    assert "at most 90" in receipt["reason"]


async def test_the_official_parser_finds_nothing_wrong_with_the_contract(node: str) -> None:
    contract = REPOSITORY / "docs" / "contract" / "asyncapi.json"
    status, output, _ = await run(node, "check_contract.mjs", contract)
    assert status == 0, output


async def test_the_official_parser_sees_a_parameter_that_the_address_lacks(
    node: str, tmp_path: Path
) -> None:
    text = (REPOSITORY / "docs" / "contract" / "asyncapi.json").read_text("utf-8")
    broken = tmp_path / "broken.json"
    broken.write_text(text.replace("nabij/v1/u/{user}/up/report", "nabij/v1/u/x/up/report"))
    status, output, _ = await run(node, "check_contract.mjs", broken)
    assert status == 1
    assert "u_up_report" in output
