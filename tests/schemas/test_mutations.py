"""Thousands of broken messages: each is read as well formed or refused, and never more widely.

Mutations are made from a seed, many for each example of Hypothesis: 2,000 and more of each message.
"""

import difflib
import functools
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Invalid, encode, glance
from schemas.examples import AT, EXAMPLES
from schemas.messages import (
    TAKES_ALERTS,
    Ask,
    Inform,
    Outcome,
    Position,
    Presence,
    Receipt,
    Report,
    Subject,
)
from schemas.reasons import bare
from schemas.taxonomy import Audience
from schemas.topics import TOPICS, Topic
from schemas.validation_errors import MAX_FIELD

EXAMPLES_EACH, MUTATIONS = 50, 42
RECEIVED: dict[str, Topic[Any]] = {
    name: topic
    for name, value in EXAMPLES.items()
    for topic in TOPICS
    if topic.is_received and type(value) in bare(topic.payload)
}
NAMES = {
    topic.payload: [name for name, one in RECEIVED.items() if one.payload is topic.payload]
    for topic in RECEIVED.values()
}

Pairs = list[tuple[str, Any]]  # of an object: keys and values as they stand in JSON, or Pairs again

HOSTILE = (
    "null",
    "true",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1e309",
    "-1e309",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-400",
    "9" * 400,
    "0." + "3" * 400,
    '""',
    '" "',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"51.05"',
    '"5000"',
    '"1e309"',
    '"NaN"',
    '"police"',
    '"POLICE"',
    '"Police And Nearby"',
    '"nearby"',
    '"police_and_nearby"',
    '"everyone"',
    '"muted"',
    '"On-Duty"',
    '"away "',
    '"off"',
    "[]",
    "{}",
    "[null]",
    '{"lat": 0, "lon": -0.0}',
    '{"lat": 51, "lon": 3.7}',
    '{"": {"": [{}]}}',
    '"2026-03-01"',
    '"\\\\"',
    '"2026-03-01T12:00:60Z"',
    '"9999-12-31T23:59:59-23:59"',
    "1764000000",
    '"' + "x" * 3_000 + '"',
    "[" * 14 + "]" * 14,
    "[" * 40 + "]" * 40,
    "[" + "1," * 300 + "1]",
    '"a\u202eb\ufeff"',
    "'x'",
    "",
)


def pairs_of(value: Any) -> Any:
    """A message as pairs: so that a key may stand twice, and a value be none of JSON."""
    if isinstance(value, dict):
        return [(json.dumps(key), pairs_of(each)) for key, each in value.items()]
    return json.dumps(value)


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "{" + ", ".join(f"{key}: {text_of(each)}" for key, each in value) + "}"


def misspelt(key: str, chance: random.Random) -> str:
    name = json.loads(key)
    at = chance.randrange(len(name)) if name else 0
    return chance.choice(
        (
            json.dumps(name[:at] + name[at + 1 :]),
            json.dumps(name.title().replace("_", "")),
            json.dumps(name.upper()),
            json.dumps(name.partition("_")[0]),
            f'"\\u{ord(name[0]):04x}{json.dumps(name[1:])[1:-1]}"' if name else key,
        )
    )


def objects(value: Any) -> Iterator[Pairs]:
    if isinstance(value, list):
        yield value
        for _, each in value:
            yield from objects(each)


def mutate(message: Pairs, chance: random.Random) -> None:
    pairs = chance.choice([one for one in objects(message) if one] or [message])
    if not pairs:
        return
    at = chance.randrange(len(pairs))
    key, value = pairs[at]
    other = chance.choice(HOSTILE)
    changes: tuple[Callable[[], object], ...] = (
        lambda: pairs.pop(at),
        lambda: pairs.__setitem__(at, (key, other)),
        lambda: pairs.insert(chance.randint(0, len(pairs)), (key, other)),
        lambda: pairs.append((key, value)),
        lambda: pairs.__setitem__(at, (misspelt(key, chance), value)),
        lambda: pairs.append((misspelt(key, chance), other)),
        lambda: pairs.__setitem__(at, (key, json.dumps(text_of(value)))),  # a number as a string
        lambda: pairs.__setitem__(at, (key, text_of(value).strip('"'))),  # a string as a number
        lambda: pairs.__setitem__(at, (key, f"[{text_of(value)}]")),
        lambda: pairs.append((json.dumps(other), other)),
        lambda: pairs.append((key, [('"lat"', other), ('"lon"', "3.7"), ('"accuracy_m"', "9000")])),
    )
    chance.choice(changes)()


def mutations(names: list[str], seed: int) -> Iterator[str]:
    chance = random.Random(seed)
    for number in range(MUTATIONS):
        pairs = pairs_of(json.loads(encode(EXAMPLES[names[number % len(names)]])))
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            mutate(pairs, chance)
        text = text_of(pairs)
        if number % 10 == 0:
            text = chance.choice(
                (text[: chance.randrange(len(text) + 1)], f"[{text}]", text * 2, f"\ufeff{text}\0")
            )
        yield text


@pytest.mark.parametrize("names", NAMES.values(), ids=lambda names: names[0])
@settings(max_examples=EXAMPLES_EACH, deadline=None)
@given(seed=st.integers(0, 2**63))
def test_a_broken_message_is_read_as_well_formed_or_refused_and_restricts_no_less(
    names: list[str], seed: int
) -> None:
    topic = RECEIVED[names[0]]
    for text in mutations(names, seed):
        assert_read_or_refused(topic, text)


def assert_read_or_refused(topic: Topic[Any], text: str) -> None:
    payload = text.encode("utf-8", "surrogatepass")
    try:
        value, notes = topic.read(payload)
    except Invalid as error:
        glance(payload)
        assert_can_be_told(error)
        return
    assert topic.read(encode(value)) == (value, ()), text
    encode(Receipt(subject=Subject.OTHER, outcome=Outcome.ACCEPTED, at=AT, notes=notes))
    words = said(text)
    assert_restricts_no_less(value, words, text)
    for field in ("location", "reporter_location"):
        if (position := getattr(value, field, None)) is not None:
            assert_no_more_exact(position, words, text)


def assert_can_be_told(error: Invalid) -> None:
    receipt = Receipt(
        subject=Subject.OTHER,
        outcome=Outcome.REJECTED,
        at=AT,
        code=error.code,
        field=error.field,
        reason=error.reason,
        notes=error.notes,
    )
    assert len(encode(receipt)) < 2_400
    assert len(error.field.encode()) <= MAX_FIELD


# -- what the sender's words allow ----------------------------------------------------------------


def said(text: str) -> list[tuple[str, Any]]:
    """All pairs in a message, with objects as pairs again, by a reader of JSON that is not ours."""
    read = json.JSONDecoder(object_pairs_hook=tuple, strict=False, parse_int=float)
    return list(read.decode(text.removeprefix("\ufeff").rstrip("\0")))


def near(words: Any, field: str) -> list[Any]:
    """What is said under a name that is `field`, or much like it."""
    return [value for key, value in words if value is not None and is_near(key, field)]


@functools.cache
def is_near(key: str, field: str) -> bool:
    if plain(key) == plain(field):
        return True
    return len(key) <= 40 and difflib.SequenceMatcher(None, field, key.casefold()).ratio() >= 0.8


@functools.cache
def plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")


def folded(value: Any) -> Any:
    return (
        value.strip().casefold().replace("-", "_").replace(" ", "_")
        if isinstance(value, str)
        else value
    )


def assert_restricts_no_less(value: Any, words: list[tuple[str, Any]], text: str) -> None:
    if isinstance(value, Report):
        wide = all(folded(one) == "police_and_nearby" for one in near(words, "audience"))
        assert value.audience is Audience.POLICE or wide, text
    if isinstance(value, Presence):
        takes = all(folded(one) in [*TAKES_ALERTS] for one in near(words, "availability"))
        assert value.availability not in TAKES_ALERTS or takes, text
    if isinstance(value, Ask | Inform):
        others = [(key, one) for key, one in words if plain(key) != "reporters"]
        assert value.report is not None or not near(others, "report"), text


def assert_no_more_exact(position: Position, words: list[tuple[str, Any]], text: str) -> None:
    """The place is one that was said, with an uncertainty of at least any that was said with it."""
    meant = [one for _, one in words if isinstance(one, tuple) and is_place(one, position)]
    assert meant, text
    least = min(
        max((bounded(one) for one in near(place, "accuracy_m")), default=0.0) for place in meant
    )
    assert position.accuracy_m >= least, text


def is_place(words: Any, position: Position) -> bool:
    stated = [(key, value) for key, value in words if isinstance(value, int | float)]
    return all(
        any(plain(key) == axis and float(value) == getattr(position, axis) for key, value in stated)
        for axis in ("lat", "lon")
    )


def bounded(value: Any) -> float:
    """A number of metres, also as a string; what is none, or below 0, says nothing."""
    try:
        metres = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return 0.0 if math.isnan(metres) or metres < 0 else min(metres, 10_000.0)
