"""The contract for machines: AsyncAPI 3.1 and JSON Schema, derived from topics and payloads.

`nabij contract` writes them to `docs/contract/`, where they are checked in; a test compares. In
AsyncAPI `receive` and `send` are seen from Nabij. Only what draft-07 and 2020-12 have in common is
used of JSON Schema: AsyncAPI's own dialect is draft-07.
"""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from schemas.cleaning import choices_of
from schemas.codec import encode
from schemas.examples import examples_of
from schemas.messages import DeliveryReceipt, Receipt
from schemas.topics import LEVEL, ROOT, TOPICS, Topic

VERSION = 2  # raise it with each change that breaks a device or desk (schemas/compatibility.py)
ASYNCAPI = "3.1.0"
MQTT_BINDING = "0.2.0"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
UNKNOWN = (
    "Nabij ignores unknown fields of what it receives, and names them in the receipt's `notes`; "
    "readers must ignore unknown fields of what Nabij sends, and must take a value of an enumeration "
    "that they do not know as its field says."
)

_LEFT_OUT = frozenset(("discriminator",))  # AsyncAPI's is a name, msgspec's a mapping


def json_schemas() -> dict[str, Any]:
    """Return one JSON Schema with all payloads and their parts under `$defs`."""
    return {
        "$schema": JSON_SCHEMA,
        "title": "Payloads of Nabij",
        "description": UNKNOWN,
        "$defs": _components("#/$defs/{name}"),
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Nabij",
            "version": str(VERSION),
            "description": (
                "A real-time alert broker for community safety, over MQTT 5 or 3.1.1. "
                f"What a device and a desk can rely on is in docs/protocol.md. {UNKNOWN} "
                "Nabij never replaces the emergency number."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel_of(topic): _channel(topic) for topic in TOPICS},
        "operations": {
            f"{_action(topic)}_{channel_of(topic)}": _operation(topic) for topic in TOPICS
        },
        "components": {
            "schemas": _components("#/components/schemas/{name}"),
        },
    }


def channel_of(topic: Topic[Any]) -> str:
    """Return a channel's name: the fixed levels of its topic, as `u_up_report`."""
    return "_".join(level for level in topic.template.split("/") if "{" not in level)


def payloads_of(topic: Topic[Any]) -> list[str]:
    """Return the names of the Structs on a topic; a union has several."""
    return [each.__name__ for each in topic.payloads]


def receipt_topic_of(topic: Topic[Any]) -> Topic[Any] | None:
    """Return the topic of the receipts that answer messages on `topic`, or None.

    A delivery receipt is answered only when it is refused, and no client waits for that.
    """
    return None if topic.payload is DeliveryReceipt else topic.receipt


def _channel(topic: Topic[Any]) -> dict[str, Any]:
    sender, receiver = topic.from_and_to
    return {
        "address": f"{ROOT}/{topic.template}",
        "description": f"From {sender} to {receiver}.",
        "messages": {name: _message(name, topic) for name in payloads_of(topic)},
        "parameters": {
            name: {"description": f"One level of the topic: {LEVEL}"} for name in topic.levels
        },
    }


def _operation(topic: Topic[Any]) -> dict[str, Any]:
    operation = {
        "action": _action(topic),
        **_channel_and_messages(topic),
        "bindings": _mqtt(qos=topic.qos, retain=topic.retain),
    }
    if receipts := receipt_topic_of(topic):
        operation["reply"] = _channel_and_messages(receipts)
    return operation


def _channel_and_messages(topic: Topic[Any]) -> dict[str, Any]:
    channel = f"#/channels/{channel_of(topic)}"
    return {
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in payloads_of(topic)],
    }


def _action(topic: Topic[Any]) -> str:
    return "receive" if topic.is_received else "send"


def _message(name: str, topic: Topic[Any]) -> dict[str, Any]:
    """Return a message as it is on this topic: where it is answered depends on the topic."""
    message = {
        "name": name,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [
            {"name": each, "payload": json.loads(encode(payload))}
            for each, payload in examples_of(name).items()
        ],
    }
    if receipts := receipt_topic_of(topic):
        message["bindings"] = _mqtt(
            responseTopic=f"{ROOT}/{receipts.template}",
            correlationData=_correlation(
                "The id of the message, or of one without an id any bytes."
            ),
        )
    elif topic.payload is Receipt:
        message["bindings"] = _mqtt(
            correlationData=_correlation("That of the message which this is the receipt of.")
        )
    return message


def _correlation(description: str) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "description": description}


def _mqtt(**binding: Any) -> dict[str, Any]:
    return {"mqtt": {**binding, "bindingVersion": MQTT_BINDING}}


def _components(reference: str) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        [topic.payload for topic in TOPICS], ref_template=reference
    )
    plain = {name: _plain(schema) for name, schema in sorted(components.items())}
    for kind in dict.fromkeys(_sent()):
        _open_enumerations(kind, plain[kind.__name__]["properties"])
    return plain


def _sent() -> Iterator[type[msgspec.Struct]]:
    for topic in TOPICS:
        if not topic.is_received:
            yield from topic.payloads


def _open_enumerations(kind: type[msgspec.Struct], properties: dict[str, Any]) -> None:
    """Note at each choice that it may get more values, and how readers read them."""
    for name, lenient in choices_of(kind).items():
        schema = dict(properties[name])
        default = {"default": schema.pop("default")} if "default" in schema else {}
        read_as = f"`{lenient.unknown}`" if lenient.unknown else "not given"
        later = {"type": "string", "title": f"a later value, read as {read_as}"}
        alternatives = schema.get("anyOf") or schema.get("allOf") or [schema]
        properties[name] = {"anyOf": [*alternatives, later], **default}


def _plain(value: Any) -> Any:
    """Return a schema without what draft-07 does not know, with descriptions as paragraphs."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _plain(each) for key, each in value.items() if key not in _LEFT_OUT}
    if "properties" in plain:
        plain["additionalProperties"] = True  # in both directions: see UNKNOWN
    if isinstance(plain.get("description"), str):
        plain["description"] = inspect.cleandoc(plain["description"])
    if "$ref" in plain and len(plain) > 1:  # draft-07 ignores everything beside a $ref
        plain["allOf"] = [{"$ref": plain.pop("$ref")}]
    return plain


def written(document: dict[str, Any]) -> str:
    """Return the text of a document as it is checked in."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
