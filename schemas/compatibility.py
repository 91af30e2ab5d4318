"""Which changes of the contract break existing devices and desks.

Nabij must still accept everything that an existing sender may send. An existing reader must still
find everything that it relies on. A new optional field, a new message or topic, and a new value of
what Nabij receives break neither; nor does a new value of what it sends, if the old contract says
how to read later values.
"""

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_Json = Mapping[str, Any]
_CHOICE = "one of some values"
_LEVEL = re.compile(r"\{[^}]+\}")
_TIGHTER = {
    "maximum": operator.lt,
    "maxLength": operator.lt,
    "maxItems": operator.lt,
    "maxProperties": operator.lt,
    "minimum": operator.gt,
    "minLength": operator.gt,
    "minItems": operator.gt,
    "pattern": operator.ne,
}


def unannounced_changes(before: _Json, after: _Json) -> list[str]:
    """Return the breaking changes between two AsyncAPI documents, unless the version was raised."""
    is_raised = int(after["info"]["version"]) > int(before["info"]["version"])
    return [] if is_raised else breaking_changes(before, after)


def breaking_changes(before: _Json, after: _Json) -> list[str]:
    """Return each breaking change between two AsyncAPI documents as a sentence with its place."""
    return sorted(set(_of_operations(before, after)))


def _of_operations(before: _Json, after: _Json) -> Iterator[str]:
    now = _messages_by_operation(after)
    for operation, messages in _messages_by_operation(before).items():
        action, address = operation
        if operation not in now:
            yield f"{address}: Nabij does not {action} on it any more"
            continue
        comparison = _Comparison(before, after, is_received=action == "receive")
        for name, payload in messages.items():
            if name in now[operation]:
                yield from comparison.of(payload, now[operation][name], f"{address}: {name}")
            else:
                yield f"{address}: {name} is gone"


def _messages_by_operation(document: _Json) -> dict[tuple[str, str], dict[str, _Json]]:
    """Return the payloads' schemas by name, of each action on each topic filter."""
    found = {}
    for operation in document["operations"].values():
        channel = _at(document, operation["channel"]["$ref"])
        filter_ = _LEVEL.sub("+", channel["address"])
        found[operation["action"], filter_] = {
            name: message["payload"] for name, message in channel["messages"].items()
        }
    return found


def _at(document: _Json, reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


@dataclass(frozen=True)
class _Comparison:
    """Compares the schemas of what Nabij receives, or sends, in two documents."""

    before: _Json
    after: _Json
    is_received: bool

    def of(self, old: _Json, new: _Json, where: str) -> Iterator[str]:
        """Yield what breaks between two schemas; `where` is the path to them."""
        were, are = dict(_kinds(old, self.before)), dict(_kinds(new, self.after))
        if were.keys() - are.keys() if self.is_received else are.keys() - were.keys():
            yield f"{where} was {' or '.join(were)}, is {' or '.join(are)}"
        for kind in were.keys() & are.keys():
            yield from self._of_one_kind(were[kind], are[kind], where)
        if not self.is_received and "string" not in were:  # closed: see `schemas/contract.py`
            yield from _new_values(were.get(_CHOICE, {}), are.get(_CHOICE, {}), where)

    def _of_one_kind(self, old: _Json, new: _Json, where: str) -> Iterator[str]:
        for value in old.get("enum", ()):
            if value not in new["enum"]:
                yield f"{where} has no '{value}' any more"
        if self.is_received:
            for limit, is_tighter in _TIGHTER.items():
                if limit in new and (limit not in old or is_tighter(new[limit], old[limit])):
                    yield f"{where} has {limit} {new[limit]}, had {old.get(limit, 'none')}"
        yield from self._of_fields(old, new, where)
        if "items" in old and "items" in new:
            yield from self.of(old["items"], new["items"], f"{where}[]")
        old_values, new_values = old.get("additionalProperties"), new.get("additionalProperties")
        if isinstance(old_values, dict) and isinstance(new_values, dict):
            yield from self.of(old_values, new_values, f"{where}.*")

    def _of_fields(self, old: _Json, new: _Json, where: str) -> Iterator[str]:
        fields = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name in fields:
                yield from self.of(schema, fields[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is gone"
        needed, was_needed = set(new.get("required", ())), set(old.get("required", ()))
        if self.is_received:
            for name in needed - was_needed:
                yield f"{where}.{name} is needed now"
        else:
            for name in (was_needed - needed) & fields.keys():
                yield f"{where}.{name} may be left out now"


def _new_values(old: _Json, new: _Json, where: str) -> Iterator[str]:
    for value in new.get("enum", ()):
        if old and value not in old["enum"]:
            yield f"{where} may be '{value}' now"


def _kinds(schema: _Json, document: _Json) -> Iterator[tuple[str, _Json]]:
    """Yield the types that a value may have, by name: `string uuid`, `null`."""
    if "$ref" in schema:
        yield from _kinds(_at(document, schema["$ref"]), document)
    elif alternatives := schema.get("anyOf") or schema.get("allOf"):
        for each in alternatives:
            yield from _kinds(each, document)
    elif "enum" in schema:
        yield _CHOICE, schema
    else:
        yield " ".join(filter(None, (schema.get("type", "anything"), schema.get("format")))), schema
