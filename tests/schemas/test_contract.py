"""The contract for machines is that of the code, and is what the standards say."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import schemas
from broker.core.policy import Policy
from broker.mqtt import Message
from broker.runtime.refusals import refusal_of
from schemas import taxonomy
from schemas.codec import encode
from schemas.contract import asyncapi, channel_of, json_schemas, payloads_of
from schemas.contract_page import documents
from schemas.examples import AT, EXAMPLES, examples_of
from schemas.messages import DeliveryReceipt
from schemas.taxonomy import default_policy_text
from schemas.topics import TOPICS, Topic
from schemas.validation_errors import Code, Invalid

DIRECTORY = Path(__file__).parents[2] / "docs" / "contract"
GOLDEN = Path(__file__).parent / "golden"


def test_what_is_checked_in_is_what_the_code_says() -> None:
    stale = [
        name
        for name, text in documents().items()
        if not (DIRECTORY / name).is_file() or (DIRECTORY / name).read_text("utf-8") != text
    ]
    assert not stale, "run `.venv/bin/nabij contract`, and commit docs/contract"


@pytest.fixture(scope="module")
def official(shared_data: Callable[[str], Path]) -> "jsonschema_rs.Validator":
    text = shared_data("conformance/asyncapi/3.1.0.json").read_text("utf-8")
    return jsonschema_rs.validator_for(json.loads(text))


def test_the_asyncapi_document_is_valid(official: "jsonschema_rs.Validator") -> None:
    assert [error.message for error in official.iter_errors(asyncapi())] == []


def test_the_official_schema_sees_what_is_wrong(official: "jsonschema_rs.Validator") -> None:
    broken = copy.deepcopy(asyncapi())
    next(iter(broken["operations"].values()))["action"] = "publish"
    assert not official.is_valid(broken)


def test_every_topic_is_a_channel_and_nothing_else_is() -> None:
    channels = asyncapi()["channels"]
    assert {each["address"] for each in channels.values()} == {
        f"nabij/v1/{topic.template}" for topic in TOPICS
    }
    assert len(channels) == len(TOPICS)
    for topic in TOPICS:
        assert list(channels[channel_of(topic)]["messages"]) == payloads_of(topic)
        assert set(channels[channel_of(topic)]["parameters"]) == {
            level[1:-1] for level in topic.template.split("/") if level.startswith("{")
        }


def test_nabij_receives_what_participants_and_desks_send() -> None:
    received = {
        each["channel"]["$ref"].removeprefix("#/channels/")
        for each in asyncapi()["operations"].values()
        if each["action"] == "receive"
    }
    assert received == {
        "u_up_report",
        "u_up_presence",
        "u_up_reply",
        "u_up_message",
        "u_up_answer",
        "u_up_sync",
        "u_up_receipt",
        "police_command",
        "police_up_receipt",
        "police_up_sync",
        "city_up_receipt",
        "city_up_sync",
    }


def test_the_official_schema_sees_a_wrong_binding(official: "jsonschema_rs.Validator") -> None:
    for wrong in ({"qos": 3}, {"retain": "yes"}):
        broken = asyncapi()
        broken["operations"]["receive_u_up_report"]["bindings"]["mqtt"] |= wrong
        assert not official.is_valid(broken)
    for wrong in ({"responseTopic": 7}, {"correlationData": "id"}):
        broken = asyncapi()
        message = broken["channels"]["u_up_report"]["messages"]["Report"]
        message["bindings"]["mqtt"] |= wrong
        assert not official.is_valid(broken)


def test_what_is_answered_names_the_topic_on_which_its_receipt_comes() -> None:
    document = asyncapi()
    for topic in TOPICS:
        levels = dict.fromkeys(re.findall(r"\{([a-z]+)\}", topic.template), "x")
        channel = document["channels"][channel_of(topic)]
        answered = [
            each["bindings"]["mqtt"]["responseTopic"]
            for each in channel["messages"].values()
            if "responseTopic" in each.get("bindings", {}).get("mqtt", {})
        ]
        if not topic.is_received or topic.payload is DeliveryReceipt:
            assert answered == []
            continue
        receipt = refusal_of(
            Message(topic.topic(**levels), b"{}"),
            topic,
            Invalid(Code.MISSING_FIELD, "$", "One is missing."),
            policy=Policy.parse(default_policy_text()),
            broker_index=0,
            now=AT,
        )
        assert receipt is not None
        assert {re.sub(r"\{[a-z]+\}", "x", each) for each in answered} == {receipt.topic}
        assert len(answered) == len(payloads_of(topic))
        reply = document["operations"][f"receive_{channel_of(topic)}"]["reply"]
        replied = reply["channel"]["$ref"].removeprefix("#/channels/")
        assert document["channels"][replied]["address"] == answered[0]


def test_every_message_has_examples_that_are_valid_and_that_the_codec_reads_unchanged() -> None:
    for topic in TOPICS:
        for name, message in asyncapi()["channels"][channel_of(topic)]["messages"].items():
            validator = _validator(name)
            assert message["examples"], name
            for example in message["examples"]:
                payload = example["payload"]
                assert [error.message for error in validator.iter_errors(payload)] == []
                read = topic.read(json.dumps(payload).encode())
                assert read == (EXAMPLES[example["name"]], ())


@pytest.mark.parametrize("topic", TOPICS, ids=channel_of)
def test_an_unknown_field_is_valid_and_ignored_in_both_directions(topic: Topic[Any]) -> None:
    for name in payloads_of(topic):
        for example, value in examples_of(name).items():
            payload = _with_unknown_fields(json.loads(encode(value)))
            assert _validator(name).is_valid(payload), example
            read, notes = topic.read(json.dumps(payload).encode())
            assert read == value
            assert not topic.is_received or "'qzx'" in "".join(notes)


def test_every_reference_leads_somewhere() -> None:
    for document in (asyncapi(), json_schemas()):
        for reference in _references(document):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
            assert found


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_the_golden_messages_are_valid_and_a_wrong_one_is_not(file: Path) -> None:
    name = type(EXAMPLES[file.stem]).__name__
    validator = _validator(name)
    message = json.loads(file.read_text("utf-8"))
    assert [error.message for error in validator.iter_errors(message)] == []
    needed = json_schemas()["$defs"][name].get("required", [])
    assert not validator.is_valid([])
    for field in needed:
        assert not validator.is_valid({key: each for key, each in message.items() if key != field})


def test_the_page_has_every_field_and_every_code() -> None:
    text = documents()["README.md"]
    for name, schema in json_schemas()["$defs"].items():
        if "enum" in schema:
            assert all(f"`{value}`" in text for value in schema["enum"]), name
        else:
            section = text.partition(f"### {name}\n")[2].partition("\n##")[0]
            assert all(f"| `{field}` |" in section for field in schema.get("properties", {})), name


def _validator(name: str) -> "jsonschema_rs.Validator":
    return jsonschema_rs.validator_for({**json_schemas(), "$ref": f"#/$defs/{name}"})


def _with_unknown_fields(payload: dict[str, Any]) -> dict[str, Any]:
    """Return `payload` with another field in it, and in each place in it."""
    positions = {key: {**each, "qzx": 1} for key, each in payload.items() if _is_position(each)}
    return {**payload, **positions, "qzx": [{}]}


def _is_position(value: Any) -> bool:
    return isinstance(value, dict) and "lat" in value


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for each in value for found in _references(each)]
    if not isinstance(value, dict):
        return []
    here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return here + [found for each in value.values() for found in _references(each)]


def test_the_contract_package_ships_its_policy() -> None:
    assert taxonomy.default_policy_text().startswith("#")
    assert schemas.__doc__
