"""Payloads for the codec, and what every refusal has to be."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from schemas import topics
from schemas.codec import MAX_PAYLOAD_BYTES, Code, Invalid, encode
from schemas.examples import AT, EXAMPLES, V5, V7
from schemas.messages import Outcome, Receipt, Subject

REPORT = msgspec.json.decode(encode(EXAMPLES["report"]))


def refusal(topic: topics.Topic[Any], payload: bytes) -> Invalid:
    with pytest.raises(Invalid) as refused:
        topic.decode(payload)
    assert_explains(refused.value)
    return refused.value


def assert_explains(refused: Invalid) -> None:
    """Any sender can be told, whatever its software: the receipt encodes, and is short."""
    assert isinstance(refused.code, Code)
    assert refused.field.startswith("$")
    assert refused.reason[-1] in ".…"
    assert len(refused.reason) > 10
    receipt = Receipt(
        subject=Subject.REPORT,
        outcome=Outcome.REJECTED,
        at=AT,
        code=refused.code,
        field=refused.field,
        reason=refused.reason,
    )
    assert len(encode(receipt)) < MAX_PAYLOAD_BYTES


def report(**changed: Any) -> bytes:
    return json.dumps(REPORT | changed).encode()


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(
        [
            "a|b|c",
            "bad_id|x|y",
            "x - at `$.y`",
            "length <=",
            "\ud800",
            "Invalid UUID",
            "missing required field `z`",
            "2026-03-01T12:00:00",
            str(V7),
            str(V5),
        ]
    ),
)

values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
