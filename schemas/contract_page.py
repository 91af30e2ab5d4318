"""All documents of `docs/contract/`; the page for people is derived from the JSON Schemas."""

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.contract import UNKNOWN, VERSION, asyncapi, json_schemas, payloads_of, written
from schemas.topics import ROOT, TOPICS

_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "{} characters or more",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} of them",
    "pattern": "matches `{}`",
}


def documents() -> dict[str, str]:
    """Return the text of each document of `docs/contract/` by file name."""
    return {
        "asyncapi.json": written(asyncapi()),
        "schemas.json": written(json_schemas()),
        "README.md": page(),
    }


def page() -> str:
    """Return the page, in Markdown."""
    schemas = json_schemas()["$defs"]
    messages = list(dict.fromkeys(name for topic in TOPICS for name in payloads_of(topic)))
    others = [name for name in schemas if name not in messages]
    lines = [
        "# The contract, field by field",
        "",
        f"Version {VERSION}. Made from `schemas/` by `nabij contract`; do not edit it. The rules behind the fields are in",
        "[docs/protocol.md](../protocol.md). For machines: [asyncapi.json](asyncapi.json) (AsyncAPI 3.1)",
        "and [schemas.json](schemas.json) (JSON Schema 2020-12).",
        "",
        UNKNOWN,
        "",
        "## Messages",
    ]
    for name in messages:
        lines += ["", *_struct(name, schemas[name]), "", *_topics(name)]
    lines += ["", "## Parts of messages"]
    for name in others:
        if "enum" not in schemas[name]:
            lines += ["", *_struct(name, schemas[name])]
    lines += ["", "## Enumerations", "", "| name | values |", "|---|---|"]
    for name in others:
        if "enum" in schemas[name]:
            lines.append(f"| {name} | {', '.join(f'`{each}`' for each in schemas[name]['enum'])} |")
    return "\n".join(lines) + "\n"


def _struct(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if description := schema.get("description"):
        yield description
        yield ""
    yield "| field | type | needed | default | limits |"
    yield "|---|---|---|---|---|"
    needed = schema.get("required", ())
    for field, each in schema.get("properties", {}).items():
        cells = (
            f"`{field}`",
            _type(each),
            "yes" if field in needed else "",
            f"`{each['default']}`" if each.get("default") not in (None, "", [], {}) else "",
            "; ".join(_limits(each)),
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _topics(name: str) -> Iterator[str]:
    for topic in TOPICS:
        if name in payloads_of(topic):
            sender, receiver = topic.from_and_to
            retained = ", retained" if topic.retain else ""
            yield (
                f"On `{ROOT}/{topic.template}`, from {sender} to {receiver}, "
                f"QoS {topic.qos}{retained}."
            )


def _type(schema: Mapping[str, Any]) -> str:
    for alternatives in ("anyOf", "allOf"):
        if alternatives in schema:
            return " or ".join(_type(each) for each in schema[alternatives])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {})}"
    if schema.get("type") == "object":
        return f"object of {_type(schema.get('additionalProperties') or {})}"
    return str(schema.get("title") or schema.get("format") or schema.get("type") or "any")


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    for each in (schema, *schema.get("anyOf", ())):
        for key, words in _LIMITS.items():
            if key in each:
                yield words.format(each[key])
