"""What a later version of Nabij sends costs a reader of today no message."""

import enum
import json
from typing import Any

import jsonschema_rs
import pytest

from schemas.cleaning import choices_of
from schemas.codec import encode
from schemas.contract import channel_of, json_schemas, payloads_of
from schemas.examples import examples_of
from schemas.messages import (
    AlertReason,
    EscalationKind,
    GroupEventKind,
    Mode,
    Outcome,
    Status,
    Subject,
)
from schemas.reasons import bare
from schemas.taxonomy import Audience, Priority, Urgency
from schemas.topics import TOPICS, Topic

SENT = [topic for topic in TOPICS if not topic.is_received]
SCHEMAS = json_schemas()["$defs"]
LATER = "zz-later"


@pytest.mark.parametrize("topic", SENT, ids=channel_of)
def test_a_value_and_a_field_of_a_later_version_leave_the_rest_of_a_message_as_it_is(
    topic: Topic[Any],
) -> None:
    (name,) = payloads_of(topic)
    validator = jsonschema_rs.validator_for({**json_schemas(), "$ref": f"#/$defs/{name}"})
    for value in examples_of(name).values():
        for field, lenient in choices_of(type(value)).items():
            later = {**_with_later_fields(json.loads(encode(value))), field: LATER}
            assert validator.is_valid(later), field
            read, notes = topic.read(json.dumps(later).encode())
            assert getattr(read, field) == lenient.unknown
            assert LATER in "".join(notes)  # kept as text, for a device to log
            known = json.loads(encode(read)) | {field: None}
            assert known == json.loads(encode(value)) | {field: None}


@pytest.mark.parametrize("topic", SENT, ids=channel_of)
def test_the_contract_says_of_each_choice_that_is_sent_how_a_later_value_is_read(
    topic: Topic[Any],
) -> None:
    (name,) = payloads_of(topic)
    for field, lenient in choices_of(topic.payload).items():
        assert not lenient.needed, f"{name}.{field} costs a reader the message: use may_grow"
        told = SCHEMAS[name]["properties"][field]["anyOf"][-1]
        assert told["type"] == "string"
        assert told["title"].endswith(
            f"read as `{lenient.unknown}`" if lenient.unknown else "given"
        )


@pytest.mark.parametrize(
    ("name", "field", "taken"),
    [
        ("Receipt", "outcome", Outcome.REJECTED),  # nothing is promised that nobody has read
        ("Receipt", "subject", Subject.OTHER),
        ("Alert", "reason", AlertReason.OTHER),
        ("Alert", "urgency", Urgency.URGENT),
        ("Alert", "mode", Mode.REAL),
        ("GroupEvent", "kind", GroupEventKind.OTHER),
        ("GroupEvent", "role", None),  # nobody is shown as the police who may not be
        ("Escalation", "kind", EscalationKind.OTHER),
        ("Escalation", "priority", Priority.P1),
        ("Escalation", "audience", Audience.POLICE),
        ("IncidentState", "status", Status.OPEN),
    ],
)
def test_a_later_value_is_read_as_what_harms_least(
    name: str, field: str, taken: enum.StrEnum | None
) -> None:
    topic = next(one for one in SENT if one.payload.__name__ == name)
    for value in examples_of(name).values():
        later = {**json.loads(encode(value)), field: LATER}
        assert getattr(topic.decode(json.dumps(later).encode()), field) is taken


def test_no_choice_that_nabij_receives_takes_the_word_for_a_later_value() -> None:
    received = [one for topic in TOPICS if topic not in SENT for one in bare(topic.payload)]
    for kind in received:
        assert not any(one.unknown for one in choices_of(kind).values())
        for field in choices_of(kind):
            hints = bare(kind.__annotations__[field])
            kinds = [one for one in hints if isinstance(one, type) and issubclass(one, enum.Enum)]
            assert all("other" not in [*one] for one in kinds), field


def _with_later_fields(value: Any) -> Any:
    """Return `value` with another field in each object in it."""
    if not isinstance(value, dict):
        return value
    return {**{key: _with_later_fields(each) for key, each in value.items()}, "zzz": [{}]}
