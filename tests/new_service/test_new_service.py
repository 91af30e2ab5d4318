"""A service with a topic is declared, and everything that there is takes it up from that alone.

It is declared in a checkout of its own (`declaration.py`), as docs/architecture.md says. What that
checkout then knows is compared with what the repository does (`survey.py`); its `nabij up` runs on
a real MQTT broker and a real Redis.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from broker.mqtt import Connection, Endpoint, Message, PubAckReasonCode
from schemas.ids import new_id
from schemas.topics import ROOT
from tests.new_service.declaration import (
    DECLARED,
    NAME,
    REPOSITORY,
    SUBJECT,
    TEMPLATE,
    checkout,
    declare,
    environment_of,
    run_in,
)
from tests.new_service.survey import known

WITHIN_S = 30.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = checkout(tmp_path_factory.mktemp("checkout"))
    declare(tree)
    return tree


@pytest.fixture(scope="module")
def survey(tree: Path) -> Any:
    run = run_in(tree, "tests.new_service.survey")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


Gained = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def gained(survey: Any) -> Gained:
    """What the checkout knows and the repository does not; of what that knows it lacks nothing."""
    known_here = known()

    def of(what: str) -> list[str]:
        there, here = survey["known"][what], [*known_here[what]]
        assert [one for one in here if one not in there] == []
        return [one for one in there if one not in here]

    return of


def test_its_declaration_is_the_files_that_the_document_lists_and_at_most_six() -> None:
    document = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = document.partition("### A topic, with a service that handles it\n")[2]
    steps = re.findall(r"^\d\. (.*)$", section.partition("\n### ")[0], re.MULTILINE)
    named = [re.findall(r"`([\w./]+)`", step)[0] for step in steps]

    assert len(steps) == len(DECLARED) <= 6
    assert all(file.startswith(name) for name, file in zip(named, DECLARED, strict=True))


# -- what follows from the contract ----------------------------------------------------------------


def test_participants_are_given_the_right_to_it_and_no_other(gained: Gained) -> None:
    right = f"pattern write {ROOT}/u/%u/safe/#"
    assert gained("rights at the embedded MQTT broker") == [right]
    assert gained("mosquitto.acl") == [f"+ {right}"]


def test_the_readme_lacks_its_row_and_its_name(gained: Gained) -> None:
    row, names = [line for line in gained("README.md") if line.startswith("+ ")]
    assert row == f"+ | `{TEMPLATE}` | CheckIn | participant | {NAME} | 1 | |"
    assert names.startswith("+ services/ ")
    assert NAME in names.split()


def test_the_tests_of_the_topic_table_lack_its_flow(gained: Gained) -> None:
    assert gained("topics without a flow") == [TEMPLATE]


def test_the_contract_for_machines_has_its_channel_and_its_page_the_payload(gained: Gained) -> None:
    assert gained("channels") == [f"u_safe_{SUBJECT}"]
    assert gained("operations") == [f"receive_u_safe_{SUBJECT}"]
    assert "+ ### CheckIn" in gained("docs/contract/README.md")


def test_what_is_published_retained_on_it_will_be_cleared(gained: Gained) -> None:
    assert gained("retained messages that are cleared") == [f"{ROOT}/u/+/safe/#"]


# -- what follows from services.ALL ----------------------------------------------------------------


def test_it_is_supervised_and_offered_and_has_no_stream_since_it_reads_no_event(
    gained: Gained,
) -> None:
    assert gained("workers of `nabij up`") == [f"{NAME}=1"]
    assert gained("words of the shell") == [NAME]
    assert gained("readers of events") == []


def test_the_compose_file_lacks_its_container(gained: Gained) -> None:
    assert gained("docker-compose.yml") == [
        f"+   {NAME}:",
        "+     <<: *service",
        f"+     command: [up, --service, {NAME}]",
    ]


# -- the proof -------------------------------------------------------------------------------------


def test_chaos_kills_it_asks_it_for_answers_and_misses_its_topic(gained: Gained) -> None:
    assert gained("victims of chaos") == [NAME]
    assert gained("killed in turn") == [NAME]
    assert gained("asked for an answer by chaos") == [SUBJECT]
    assert gained("not exercised by chaos at first") == [
        f"{TEMPLATE}: never {what}" for what in ("sent", "rejected", "accepted")
    ]


def test_simulated_participants_err_on_it_and_it_is_missed_until_one_sends_it_right(
    survey: Any,
) -> None:
    erring, sent = survey["erring"], survey["sent"]
    assert f"{NAME}-1" in erring["workers"]
    assert erring["missing"] == [f"{TEMPLATE}: never accepted"]
    assert sent["missing"] == []
    assert erring["violations"] == sent["violations"] == []


# -- for real --------------------------------------------------------------------------------------


@pytest.fixture
def up(tree: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What `nabij up` of the checkout says when the new service is ready."""
    words = ("nabij.cli", "up", "--service", NAME, "--data-dir", str(tmp_path / "data"), "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=tree,
        env=environment_of(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()  # one line, or the end
        if not said:
            pytest.fail(process.communicate()[1][-2_000:])
        yield json.loads(said)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, log


async def test_a_device_with_the_right_is_answered_and_a_stranger_refused(
    up: dict[str, Any],
) -> None:
    assert up["services"] == [f"{NAME}-1"]
    assert _workers(up) == {f"{NAME}-1": "ready"}
    said = {"location": {"lat": 51.05, "lon": 3.72}, "id": str(new_id())}
    async with _device(up, "ann") as ann, _device(up, "bob") as bob:
        stranger = Message(f"{ROOT}/u/ann/safe/{SUBJECT}", json.dumps(said).encode())
        assert await bob.publish(stranger) is PubAckReasonCode.NOT_AUTHORIZED

        answer = await _answer(ann, "ann", said)
        assert (answer["subject"], answer["outcome"]) == (SUBJECT, "accepted")
        assert answer["id"] == said["id"]
        wrong = await _answer(ann, "ann", {**said, "location": {"lat": 91, "lon": 3.72}})
        assert (wrong["subject"], wrong["outcome"]) == (SUBJECT, "rejected")
        assert wrong["field"] == "$.location.lat"


def _workers(up: dict[str, Any]) -> Any:
    with urlopen(f"{up['http']}/readyz", timeout=WITHIN_S) as readiness:
        return json.load(readiness)["workers"]


async def _answer(device: Connection, user: str, said: dict[str, Any]) -> Any:
    """Say something, and wait for the receipt that comes next."""
    topic = f"{ROOT}/u/{user}/safe/{SUBJECT}"
    correlation = new_id().bytes
    await device.publish(Message(topic, json.dumps(said).encode(), correlation=correlation))
    async with asyncio.timeout(WITHIN_S):
        [delivery] = await device.receive(1)
    delivery.acknowledge()
    assert delivery.message.topic == f"{ROOT}/u/{user}/down/receipt"
    assert delivery.message.correlation == correlation
    return json.loads(delivery.message.payload)


def _device(up: dict[str, Any], user: str) -> Connection:
    url = f"mqtt://{user}:{up['accounts'][user]}@{up['mqtt']}"
    return Connection(
        Endpoint.from_url(url), client_id=f"{user}-1", subscriptions=[f"{ROOT}/u/{user}/down/#"]
    )
