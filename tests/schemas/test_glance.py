"""What can be read of a message that is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import taxonomy
from schemas.codec import MAX_DEPTH, MAX_PAYLOAD_BYTES, Glance, encode, glance
from schemas.examples import EXAMPLES, V5, V7
from schemas.taxonomy import Language


@pytest.mark.parametrize(
    ("payload", "language"),
    [
        (b'{"language": "fr-BE"', Language.FR),
        (b'{"language":"en","id":', Language.EN),
        (b'{"language": "xx"}', None),
        (b"", None),
        (b"[" * 9_000, None),
        (b"[5]", None),
        (b'{"language": ["fr"]}', None),
        (b'{"text": "' + b"x" * 20_000 + b'"}', None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_language_of_a_refused_report_is_read_if_it_can_be(
    payload: bytes, language: Language | None
) -> None:
    assert glance(payload).language is language


@given(payload=st.binary(max_size=300))
def test_anything_can_be_glanced_at(payload: bytes) -> None:
    glance(payload)


def test_what_is_refused_is_glanced_at_by_its_own_id() -> None:
    whole = {"by": {"id": str(V5)}, "id": str(V7), "category": "Fire", "x": 1}

    assert glance(json.dumps(whole).encode()) == (V7, None, "fire")
    assert glance(encode(EXAMPLES["report"])[:-1])[:2] == (V7, Language.FR)


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
