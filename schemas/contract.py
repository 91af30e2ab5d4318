"""The contract for machines: AsyncAPI 3.1 and JSON Schema, made from the topics and payloads alone.

`nabij contract` writes them to `docs/contract/`, where they are checked in; a test compares. In
AsyncAPI `receive` and `send` are seen from Nabij. Of JSON Schema only what draft-07 and 2020-12
have in common is used, since AsyncAPI's own dialect is draft-07.
"""

import inspect
import json
import re
from typing import Any, get_args

import msgspec

from schemas.topics import LEVEL, ROOT, TOPICS, Topic

ASYNCAPI = "3.1.0"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
# Senders of what Nabij receives.
FROM_OUTSIDE = frozenset(("participant", "operations", "city desk"))

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_LEFT_OUT = frozenset(("discriminator",))  # AsyncAPI's is a name, msgspec's a mapping


def json_schemas() -> dict[str, Any]:
    """Return one JSON Schema with all payloads and what they consist of under `$defs`."""
    return {
        "$schema": JSON_SCHEMA,
        "title": "Payloads of Nabij",
        "$defs": _components("#/$defs/{name}"),
    }


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Nabij",
            "version": ROOT.rpartition("/v")[2],
            "description": (
                "A real-time alert broker for community safety, over MQTT 5 or 3.1.1. "
                "What a device and a desk can rely on is in docs/protocol.md. "
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
            "messages": {name: _message(name) for topic in TOPICS for name in payloads_of(topic)},
            "schemas": _components("#/components/schemas/{name}"),
        },
    }


def channel_of(topic: Topic[Any]) -> str:
    """Return a channel's name: the fixed levels of its topic, as `u_up_report`."""
    return "_".join(level for level in topic.template.split("/") if "{" not in level)


def payloads_of(topic: Topic[Any]) -> list[str]:
    """Return the names of the Structs on a topic: of a union several."""
    return [each.__name__ for each in get_args(topic.payload) or (topic.payload,)]


def _channel(topic: Topic[Any]) -> dict[str, Any]:
    return {
        "address": f"{ROOT}/{topic.template}",
        "description": f"From {topic.sender} to {topic.receiver}.",
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in payloads_of(topic)
        },
        "parameters": {
            name: {"description": f"One level of the topic: {LEVEL}"}
            for name in _PLACEHOLDER.findall(topic.template)
        },
    }


def _operation(topic: Topic[Any]) -> dict[str, Any]:
    channel = f"#/channels/{channel_of(topic)}"
    return {
        "action": _action(topic),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in payloads_of(topic)],
        "bindings": {"mqtt": {"qos": topic.qos, "retain": topic.retain, "bindingVersion": "0.2.0"}},
    }


def _action(topic: Topic[Any]) -> str:
    return "receive" if topic.sender in FROM_OUTSIDE else "send"


def _message(name: str) -> dict[str, Any]:
    return {"name": name, "payload": {"$ref": f"#/components/schemas/{name}"}}


def _components(reference: str) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        [topic.payload for topic in TOPICS], ref_template=reference
    )
    return {name: _plain(schema) for name, schema in sorted(components.items())}


def _plain(value: Any) -> Any:
    """Return a schema without what draft-07 does not know, its descriptions as paragraphs."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _plain(each) for key, each in value.items() if key not in _LEFT_OUT}
    if isinstance(plain.get("description"), str):
        plain["description"] = inspect.cleandoc(plain["description"])
    if "$ref" in plain and len(plain) > 1:  # draft-07 looks at nothing beside a $ref
        plain["allOf"] = [{"$ref": plain.pop("$ref")}]
    return plain


def written(document: dict[str, Any]) -> str:
    """Return a document as it is checked in."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
