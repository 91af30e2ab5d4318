"""Each way to repair a value: what it is repaired to, and what the sender is told."""

from collections.abc import Callable
from typing import Any

import pytest

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

REPAIRS: list[tuple[Callable[[Any], Any], Any, Any]] = [
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


@pytest.mark.parametrize(("repair", "value", "expected"), REPAIRS)
def test_what_is_odd_is_read_as_it_was_meant(
    repair: Callable[[Any], Any], value: Any, expected: Any
) -> None:
    assert repair(value) == expected


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
