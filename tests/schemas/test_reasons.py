"""What the decoder says of a fault is explained in the words of JSON."""

from typing import Any
from uuid import UUID

import pytest

from schemas import messages, taxonomy
from schemas.messages.fields import Accuracy
from schemas.reasons import bare, explained
from schemas.validation_errors import Code, FieldError

SAID: list[tuple[str, Any, str]] = [
    (
        "Expected `int`, got `str` - at `$.a.b`",
        int,
        "wrong_type $.a.b Expected a whole number, got a string.",
    ),
    ("Expected `bool`, got `float`", bool, "wrong_type $ Expected true or false, got a number."),
    ("Expected `object`, got `array`", dict, "wrong_type $ Expected an object, got an array."),
    (
        "Expected `int | null`, got `str`",
        int,
        "wrong_type $ Expected a whole number or null, got a string.",
    ),
    ("Expected `widget`", int, "wrong_type $ Expected something else."),
    (
        "Expected `uuid`, got `int` - at `$.id`",
        UUID,
        "bad_id $.id Expected an id (a UUID as a string), got a whole number.",
    ),
    (
        "Expected `datetime | null`, got `NoneType`",
        int,
        "bad_time $ Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z) or null, got null.",
    ),
    ("Invalid UUID - at `$.id`", UUID, "bad_id $.id The id is no UUID."),
    (
        "Invalid RFC3339 encoded datetime",
        int,
        "bad_time $ Expected a time (RFC 3339 with an offset, as 2026-03-01T12:00:00Z).",
    ),
    (
        "Expected `datetime` with a timezone component",
        int,
        "bad_time $ The time has no offset: expected one as 2026-03-01T12:00:00Z.",
    ),
    ("Number out of range", float, "out_of_range $ The number is out of range."),
    (
        "Expected `str` of length <= 40",
        str,
        "text_too_long $ Expected a string of at most length 40.",
    ),
    (
        "Expected `array` of length <= 200",
        str,
        "text_too_long $ Expected an array of at most length 200.",
    ),
    (
        "Expected `str` of length >= 1",
        str,
        "out_of_range $ Expected a string of at least 1 character.",
    ),
    ("Expected `array` of length >= 1", str, "out_of_range $ Expected an array that is not empty."),
    (
        "Expected `str` matching regex 'x'",
        str,
        "out_of_range $ Expected lower case, with '-' in the place of a space.",
    ),
    ("Expected `float` >= -90.0", float, "out_of_range $ Expected a number of at least -90."),
    ("Expected `int` <= 86400", int, "out_of_range $ Expected a number of at most 86400."),
    ("Expected `float` <= 0.5", float, "out_of_range $ Expected a number of at most 0.5."),
    (
        "Object missing required field `id` - at `$.a`",
        dict,
        "missing_field $.a.id The field 'id' is missing.",
    ),
    ("Object missing required field `id`", dict, "missing_field $.id The field 'id' is missing."),
    ("Invalid enum value 'x'", int, "out_of_range $ The value is not allowed."),
    ("Invalid value 'Invalid UUID'", int, "out_of_range $ The value is not allowed."),
    ("Invalid enum value 5", taxonomy.Desk, "out_of_range $ Expected one of police, city, got 5."),
    ("bad_id|id|Not so. - at `$.x`", int, "bad_id $.x.id Not so."),
    ("null_island||Not | there.", int, "null_island $ Not | there."),
    ("no_code|id|Not so.", int, "wrong_type $ The value is not of the type that is expected."),
    ("bad_id|id", int, "wrong_type $ The value is not of the type that is expected."),
    (
        "Expected `str`, got `int` - at `key` in `$.groups`",
        str,
        "wrong_type $.groups Expected a string, got a whole number.",
    ),
    ("Expected `str`,\ngot more", str, "wrong_type $ Expected a string."),
]


@pytest.mark.parametrize(("message", "kind", "expected"), SAID, ids=[each[0] for each in SAID])
def test_each_word_of_the_decoder_is_explained_in_words_of_json(
    message: str, kind: Any, expected: str
) -> None:
    invalid = explained(message, kind)
    assert f"{invalid.code} {invalid.field} {invalid.reason}" == expected


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
