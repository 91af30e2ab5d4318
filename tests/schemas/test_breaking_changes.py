"""Which changes between two small documents break those who send, and those who read."""

from typing import Any

import pytest

from schemas.compatibility import breaking_changes


def document(payload: dict[str, Any], action: str = "receive", **parts: Any) -> dict[str, Any]:
    return {
        "channels": {"c": {"address": "a/{x}/b", "messages": {"M": {"payload": payload}}}},
        "operations": {"o": {"action": action, "channel": {"$ref": "#/channels/c"}}},
        "components": {"schemas": parts},
    }


@pytest.mark.parametrize(
    ("limit", "old", "tighter", "wider"),
    [
        ("maximum", 5, 4, 6),
        ("maxLength", 5, 4, 6),
        ("maxItems", 5, 4, 6),
        ("maxProperties", 5, 4, 6),
        ("minimum", 5, 6, 4),
        ("minLength", 5, 6, 4),
        ("minItems", 5, 6, 4),
        ("pattern", "a", "b", "a"),
    ],
)
def test_a_limit_that_is_tighter_breaks_senders_and_a_wider_one_nobody(
    limit: str, old: Any, tighter: Any, wider: Any
) -> None:
    before, loose = ({"type": "string"} | more for more in ({limit: old}, {}))

    def changes(one: dict[str, Any], other: dict[str, Any], action: str = "receive") -> list[str]:
        return breaking_changes(document(one, action), document(other, action))

    after = {"type": "string", limit: tighter}
    assert changes(before, after) == [f"a/+/b: M has {limit} {tighter}, had {old}"]
    assert changes(loose, after) == [f"a/+/b: M has {limit} {tighter}, had none"]
    assert changes(before, {"type": "string", limit: wider}) == changes(before, before) == []
    assert changes(before, loose) == []
    assert changes(before, after, "send") == []


def test_a_reader_meets_no_value_or_type_that_it_does_not_know() -> None:
    few, more = {"enum": ["a"]}, {"enum": ["a", "b"]}
    assert breaking_changes(document(few, "send"), document(more, "send")) == [
        "a/+/b: M may be 'b' now"
    ]
    assert breaking_changes(document(few), document(more)) == []
    for action in ("send", "receive"):
        lost = breaking_changes(document(more, action), document(few, action))
        assert lost == ["a/+/b: M has no 'b' any more"]
    text_only, either = {"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}
    widened = ["a/+/b: M was string, is string or null"]
    assert breaking_changes(document(text_only, "send"), document(either, "send")) == widened
    assert breaking_changes(document(text_only), document(either)) == []
    narrowed = ["a/+/b: M was string or null, is string"]
    assert breaking_changes(document(either), document(text_only)) == narrowed
    assert breaking_changes(document(either, "send"), document(text_only, "send")) == []


def test_what_is_inside_is_compared_through_references_lists_and_maps() -> None:
    def nested(inner: dict[str, Any]) -> dict[str, Any]:
        listed = {"type": "array", "items": {"$ref": "#/components/schemas/P"}}
        mapped = {"type": "object", "additionalProperties": {"allOf": [inner]}}
        payload = {"type": "object", "properties": {"l": listed, "m": mapped}}
        return document(payload, P=inner)

    changed = breaking_changes(
        nested({"type": "string", "format": "uuid"}), nested({"type": "string"})
    )
    assert changed == [
        "a/+/b: M.l[] was string uuid, is string",
        "a/+/b: M.m.* was string uuid, is string",
    ]
    assert breaking_changes(nested({}), nested({})) == []
    assert breaking_changes(nested({}), nested({"type": "null"})) == [
        "a/+/b: M.l[] was anything, is null",
        "a/+/b: M.m.* was anything, is null",
    ]


def test_a_field_that_a_sender_must_give_or_a_reader_may_miss_breaks_them() -> None:
    free = {"type": "object", "properties": {"a": {}, "b": {}}}
    bound = free | {"required": ["a"]}
    assert breaking_changes(document(free), document(bound)) == ["a/+/b: M.a is needed now"]
    assert breaking_changes(document(bound), document(free)) == []
    gone = ["a/+/b: M.a may be left out now"]
    assert breaking_changes(document(bound, "send"), document(free, "send")) == gone
    assert breaking_changes(document(free, "send"), document(bound, "send")) == []
    without = {"type": "object", "properties": {"b": {}}}
    assert breaking_changes(document(bound, "send"), document(without, "send")) == [
        "a/+/b: M.a is gone"
    ]
