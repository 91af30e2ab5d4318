"""Limits of the contract at their edges: topics, ids, reasons, what can be glanced at, what breaks."""

import inspect
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

import schemas
from schemas import ids, messages, taxonomy, topics
from schemas.codec import (
    MAX_DEPTH,
    MAX_PAYLOAD_BYTES,
    Decoder,
    Glance,
    Invalid,
    encode_within_limit,
    glance,
)
from schemas.compatibility import breaking_changes
from schemas.examples import AT, EXAMPLES, V5, V7
from schemas.lenient import (
    Ambiguous,
    always,
    choice,
    instant,
    language_tag,
    number,
    roughly,
    text,
    whole,
)
from schemas.messages.fields import Accuracy
from schemas.reasons import bare, explained
from schemas.topics import ALERT, BRIEF, INCIDENT, REPORT, ROOT
from schemas.validation_errors import Code, FieldError

FORBIDDEN = ["", "a/b", "+", "#", "A", "é", "a b", "a_b", "a\n", "x" * 41]
ONE_LEVEL = [topic for topic in topics.TOPICS if topic.template.count("{") == 1]


@pytest.mark.parametrize("level", FORBIDDEN)
@pytest.mark.parametrize("topic", [ALERT, BRIEF])
def test_a_fan_out_sends_nothing_to_a_level_that_is_none(
    topic: topics.Topic[Any], level: str
) -> None:
    address = topic.by("user")
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole text is compared
        address(level)
    assert str(refused.value) == f"topic level user={level!r} is not [a-z0-9-]{{1,40}}"


@pytest.mark.parametrize("topic", [one for one in ONE_LEVEL if not one.template.endswith("}")])
def test_topics_made_for_many_are_those_made_for_one(topic: topics.Topic[Any]) -> None:
    name = topic.template.partition("{")[2].partition("}")[0]
    for level in ("a", "0", "ann-2", "x" * 40):
        assert topic.by(name)(level) == topic.topic(**{name: level})


def test_a_topic_says_which_levels_it_lacks_or_does_not_know() -> None:
    for levels, why in (
        ({}, "topic police/{zone}/incident/{incident} needs the level 'zone'"),
        ({"zone": "a"}, "topic police/{zone}/incident/{incident} needs the level 'incident'"),
        (
            {"zone": "a", "incident": "b", "x": "c"},
            "topic police/{zone}/incident/{incident} has no such levels as all of ['zone', 'incident', 'x']",
        ),
        ({"zone": "A"}, "topic level zone='A' is not [a-z0-9-]{1,40}"),
    ):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole text is compared
            INCIDENT.topic(**levels)
        assert str(refused.value) == why


def test_a_topic_has_the_name_of_its_last_fixed_level_and_filters_by_what_is_given() -> None:
    assert (REPORT.name, INCIDENT.name) == ("report", "incident")
    assert (INCIDENT.filter(), INCIDENT.filter(zone="gent")) == (
        f"{ROOT}/police/+/incident/+",
        f"{ROOT}/police/gent/incident/+",
    )
    assert REPORT.parse(f"{ROOT}/u/ann/up/report") == {"user": "ann"}
    assert REPORT.parse(f"{ROOT}/u/ann/up/reply") is None
    assert ROOT == "nabij/v1"


def test_every_topic_of_the_module_is_in_the_table_once() -> None:
    defined = [each for each in vars(topics).values() if isinstance(each, topics.Topic)]
    assert len(defined) == len(topics.TOPICS)
    assert all(any(each is one for one in topics.TOPICS) for each in defined)


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [messages, taxonomy])
def test_every_payload_and_its_parts_are_frozen_and_named_by_keyword(module: Any) -> None:
    structs = [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and issubclass(each, msgspec.Struct)
        and each.__module__.startswith(module.__name__)
    ]
    assert len(structs) > 4
    for each in structs:
        assert each.__struct_config__.frozen, each
    positional = {"Position", "Names"}
    for each in structs:
        if each.__name__ not in positional and msgspec.structs.fields(each):
            with pytest.raises(TypeError):
                each(*range(len(msgspec.structs.fields(each))))


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_sent_leaves_out_what_is_as_usual_and_what_is_received_never_misses_it(
    name: str,
) -> None:
    kind = type(EXAMPLES[name])
    needed = {
        field.encode_name: getattr(EXAMPLES[name], field.name)
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    if kind.__name__ == "Presence":
        needed["location"] = EXAMPLES["presence"].location  # type: ignore[attr-defined]
    shown = msgspec.json.decode(msgspec.json.encode(kind(**needed)))
    optional = {field.encode_name for field in msgspec.structs.fields(kind)} - needed.keys()
    if kind.__struct_config__.omit_defaults:
        assert not optional & shown.keys()
    else:
        assert optional <= shown.keys()


def test_ids_are_made_from_what_docs_protocol_says() -> None:
    assert UUID("6e616269-6a00-5000-8000-6e6162696a00") == ids.NAMESPACE
    assert ids.said_id(V7) == ids._derived("said", V7)
    assert (
        len({ids.said_id(V7), ids.case_id(V7), ids.escalation_id(V7), ids.answer_escalation_id(V7)})
        == 4
    )
    assert ids.conversation_id(V7, 5) == ids.incident_id(V7, 5)
    assert ids.incident_id(V7) == ids.incident_id(V7, 0)
    assert ids.without_region(ids.incident_id(V7, 0xFFFF)) == ids.incident_id(V7, 0)


# -- reasons -------------------------------------------------------------------------------------

SAID: list[tuple[str, Any, tuple[str, str, str]]] = [
    (
        "Expected `int`, got `str` - at `$.a.b`",
        int,
        ("wrong_type", "$.a.b", "Expected a whole number, got a string."),
    ),
    (
        "Expected `bool`, got `float`",
        bool,
        ("wrong_type", "$", "Expected true or false, got a number."),
    ),
    (
        "Expected `object`, got `array`",
        dict,
        ("wrong_type", "$", "Expected an object, got an array."),
    ),
    (
        "Expected `int | null`, got `str`",
        int,
        ("wrong_type", "$", "Expected a whole number or null, got a string."),
    ),
    ("Expected `widget`", int, ("wrong_type", "$", "Expected something else.")),
    (
        "Expected `uuid`, got `int` - at `$.id`",
        UUID,
        ("bad_id", "$.id", "Expected an id (a UUID as a string), got a whole number."),
    ),
    (
        "Expected `datetime | null`, got `NoneType`",
        int,
        (
            "bad_time",
            "$",
            "Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z) or null, got null.",
        ),
    ),
    ("Invalid UUID - at `$.id`", UUID, ("bad_id", "$.id", "The id is no UUID.")),
    (
        "Invalid RFC3339 encoded datetime",
        int,
        ("bad_time", "$", "Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z)."),
    ),
    (
        "Expected `datetime` with a timezone component",
        int,
        ("bad_time", "$", "The time has no offset: expected one as 2026-03-01T12:00:00Z."),
    ),
    ("Number out of range", float, ("out_of_range", "$", "The number is out of range.")),
    (
        "Expected `str` of length <= 40",
        str,
        ("text_too_long", "$", "Expected a string of at most length 40."),
    ),
    (
        "Expected `array` of length <= 200",
        str,
        ("text_too_long", "$", "Expected an array of at most length 200."),
    ),
    (
        "Expected `str` of length >= 1",
        str,
        ("out_of_range", "$", "Expected a string of at least 1 character."),
    ),
    (
        "Expected `array` of length >= 1",
        str,
        ("out_of_range", "$", "Expected an array that is not empty."),
    ),
    (
        "Expected `str` matching regex 'x'",
        str,
        ("out_of_range", "$", "Expected lower case, with '-' in the place of a space."),
    ),
    (
        "Expected `float` >= -90.0",
        float,
        ("out_of_range", "$", "Expected a number of at least -90."),
    ),
    ("Expected `int` <= 86400", int, ("out_of_range", "$", "Expected a number of at most 86400.")),
    ("Expected `float` <= 0.5", float, ("out_of_range", "$", "Expected a number of at most 0.5.")),
    (
        "Object missing required field `id` - at `$.a`",
        dict,
        ("missing_field", "$.a.id", "The field 'id' is missing."),
    ),
    (
        "Object missing required field `id`",
        dict,
        ("missing_field", "$.id", "The field 'id' is missing."),
    ),
    ("Invalid enum value 'x'", int, ("out_of_range", "$", "The value is not allowed.")),
    ("Invalid value 'Invalid UUID'", int, ("out_of_range", "$", "The value is not allowed.")),
    (
        "Invalid enum value 5",
        taxonomy.Desk,
        ("out_of_range", "$", "Expected one of police, city, got 5."),
    ),
    ("bad_id|id|Not so. - at `$.x`", int, ("bad_id", "$.x.id", "Not so.")),
    ("null_island||Not | there.", int, ("null_island", "$", "Not | there.")),
    (
        "no_code|id|Not so.",
        int,
        ("wrong_type", "$", "The value is not of the type that is expected."),
    ),
    ("bad_id|id", int, ("wrong_type", "$", "The value is not of the type that is expected.")),
    (
        "Expected `str`, got `int` - at `key` in `$.groups`",
        str,
        ("wrong_type", "$.groups", "Expected a string, got a whole number."),
    ),
    ("Expected `str`,\ngot more", str, ("wrong_type", "$", "Expected a string.")),
]


@pytest.mark.parametrize(("message", "kind", "expected"), SAID, ids=[each[0] for each in SAID])
def test_each_word_of_the_decoder_is_explained_in_words_of_json(
    message: str, kind: Any, expected: tuple[str, str, str]
) -> None:
    invalid = explained(message, kind)
    assert (invalid.code.value, invalid.field, invalid.reason) == expected


def test_what_may_stand_at_a_place_is_named_also_inside_and_for_a_union() -> None:
    told = explained("Invalid enum value 'x' - at `$.status`", messages.PoliceCommand)
    assert told.reason == "Expected one of open, acknowledged, assigned, on_scene, closed, got 'x'."
    told = explained("Invalid value 'x' - at `$.command`", messages.PoliceCommand)
    assert (
        told.reason == "Expected one of acknowledge, assign, status, ask, inform, close, got 'x'."
    )
    told = explained("Invalid enum value 'x' - at `$.names.nl`", messages.Alert)
    assert told.reason == "The value is not allowed."
    assert bare(int | None) == [int, type(None)]
    assert bare(messages.Report) == [messages.Report]
    assert bare(Accuracy) == [float]


def test_a_field_error_carries_its_three_parts() -> None:
    assert str(FieldError(Code.BAD_ID, "id", "No.")) == "bad_id|id|No."


# -- reading leniently ---------------------------------------------------------------------------

MENDED: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (number(10), 10, None),
    (number(10), 10.5, (10, "10.5 was bounded to 10")),
    (number(10), True, None),
    (number(10), "11", (10, "'11' was read as 10")),
    (number(10), float("nan"), None),
    (whole(10), 11, (10, "11 was bounded to 10")),
    (whole(10), 2.5, (2, "2.5 was read as 2")),
    (whole(10), 3, None),
    (whole(10), float("-inf"), None),
    (whole(10), "3", (3, "'3' was read as 3")),
    (choice(["on_duty"]), "On-Duty", ("on_duty", "'On-Duty' was read as 'on_duty'")),
    (choice(["on_duty"]), "on_duty", None),
    (choice(["on_duty"]), "off", None),
    (choice(["on_duty"]), 5, None),
    (
        choice(["on_duty"]),
        " ON\u200e  DUTY ",
        ("on_duty", "' ON\u200e  DUTY ' was read as 'on_duty'"),
    ),
    (language_tag(["nl"]), "nl", None),
    (language_tag(["nl"]), "NL-be", ("nl", "'NL-be' was read as 'nl'")),
    (language_tag(["nl"]), "nl.UTF-8", ("nl", "'nl.UTF-8' was read as 'nl'")),
    (language_tag(["nl"]), "nlx", None),
    (language_tag(["nl"]), None, None),
    (instant, "2026-03-01T12:00:00Z", None),
    (instant, 5, None),
    (instant, "2026-03-01T12:00:00.5+01:00", None),
    (instant, "2026-03-01T12:00:00", None),
    (instant, "x", None),
    (
        instant,
        "2026-03-01 12:00:00Z",
        (
            "2026-03-01T12:00:00+00:00",
            "'2026-03-01 12:00:00Z' was read as 2026-03-01T12:00:00+00:00",
        ),
    ),
    (
        instant,
        " 2026-03-01T12:00:60Z ",
        (
            "2026-03-01T12:00:59+00:00",
            "' 2026-03-01T12:00:60Z ' was read as 2026-03-01T12:00:59+00:00",
        ),
    ),
    (text(3), "abc", None),
    (text(3), "abcd", ("abc", "of its 4 characters the first 3 were kept")),
    (text(3), 5, None),
    (text(9), "a\r\nb", ("a\nb", r"its line breaks were made \n")),
    (text(9), "\x00a\x01", ("a", "2 control characters or direction marks were left out")),
    (text(9), Ambiguous(("a", 5, "b")), ("a\nb", "it stood more than once, and was joined")),
    (
        text(2),
        "\r\x00abc",
        (
            "\na",
            r"its line breaks were made \n; 1 control characters or direction marks were left out; of its 4 characters the first 2 were kept",
        ),
    ),
]


@pytest.mark.parametrize(("mend", "value", "expected"), MENDED)
def test_what_is_odd_is_read_as_it_was_meant(
    mend: Callable[[Any], Any], value: Any, expected: Any
) -> None:
    assert mend(value) == expected


def test_a_time_that_cannot_be_read_may_be_guessed() -> None:
    noon = "2026-03-01T12:00:00+00:00"
    for value in (
        "2026-03-01T12:00",
        " 2026-03-01 13:00+01:00 ",
        1_772_366_400,
        1_772_366_400_000,
        1_772_366_400.0,
    ):
        found = roughly(value)
        assert found is not None
        assert found.isoformat() == noon
    assert roughly(Ambiguous(("x", "2026-03-02T12:00", "2026-03-01T12:00"))) == roughly(noon)
    assert roughly(Ambiguous(("x", 5.5e300))) is None
    for value in (None, "soon", True, [], 1e300, float("nan")):
        assert roughly(value) is None
    assert always(5)({}) == 5


# -- at a glance ---------------------------------------------------------------------------------


def test_what_is_cut_off_or_broken_is_glanced_at_by_what_stands_first() -> None:
    whole_message = (
        b'{"id":"%s","language":"fr_BE","category":"Big Fire","id":"x"' % str(V7).encode()
    )
    seen = Glance(V7, taxonomy.Language.FR, "big-fire")
    assert glance(whole_message) == seen
    assert glance(whole_message + b',"more":"' + b"x" * MAX_PAYLOAD_BYTES) == seen
    late = b'{"more":"' + b"x" * MAX_PAYLOAD_BYTES + b'",' + whole_message[1:]
    assert glance(late) == Glance()
    assert glance(b"[" * (MAX_DEPTH + 1) + whole_message) == seen
    assert glance(b'{"id" : "%s", "language":5' % str(V7).encode()) == Glance(id=V7)
    assert glance(b'{"category":"' + b"x" * 61 + b'"') == Glance()
    assert glance(b"[]") == glance(b"") == Glance(None, None, None)
    assert glance(b'{"id":"\\ud800","category":"\\ud800"}').id is None


def test_the_largest_payload_is_sent_and_one_byte_more_is_not() -> None:
    said = messages.GroupMessage(id=V7, incident=V5, text="")
    room = MAX_PAYLOAD_BYTES - len(encode_within_limit(said))
    full = msgspec.structs.replace(said, text="x" * room)
    assert len(encode_within_limit(full)) == MAX_PAYLOAD_BYTES == 16_384
    with pytest.raises(Invalid) as refused:
        encode_within_limit(msgspec.structs.replace(said, text="x" * (room + 1)))
    assert (refused.value.code, refused.value.field) == (Code.PAYLOAD_TOO_LARGE, "$")
    assert refused.value.reason == "The payload has 16385 bytes; at most 16384 are allowed."


def test_what_devices_are_sent_is_read_strictly() -> None:
    alert = json.loads(msgspec.json.encode(EXAMPLES["alert"]))
    with pytest.raises(Invalid, match="radius_m"):
        Decoder(messages.Alert).decode(json.dumps(alert | {"radius_m": "far"}).encode())
    assert Decoder(messages.Alert).read(json.dumps(alert).encode()) == (EXAMPLES["alert"], ())
    assert EXAMPLES["alert"].seen_at == AT  # type: ignore[attr-defined]


# -- what breaks ---------------------------------------------------------------------------------


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


def test_the_contract_package_ships_its_policy() -> None:
    assert taxonomy.default_policy_text().startswith("#")
    assert schemas.__doc__
