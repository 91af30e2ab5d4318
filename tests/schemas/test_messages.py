"""The contract of payloads: golden files, round trips, and what is refused.

After a change that is meant: `python -m tests.schemas.test_messages` writes the golden files; read
their diff. A change of one that was there is a change for every device: docs/protocol.md tells it.
"""

import inspect
import json
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, get_args
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import messages, taxonomy, topics
from schemas.codec import (
    MAX_PAYLOAD_BYTES,
    Decoder,
    FieldError,
    Invalid,
    encode,
    encode_within_limit,
)
from schemas.examples import AT, EXAMPLES, HERE, V5, V7
from schemas.validation_errors import Code

GOLDEN = Path(__file__).parent / "golden"
ON_THE_WIRE = {
    kind for topic in topics.TOPICS for kind in (get_args(topic.payload) or (topic.payload,))
}


def write(directory: Path) -> None:
    """Write a golden file for each example into `directory`, and delete all others there."""
    for path in directory.glob("*.json"):
        path.unlink()
    for name, example in EXAMPLES.items():
        (directory / f"{name}.json").write_bytes(encode(example) + b"\n")


@pytest.mark.parametrize("name", EXAMPLES)
def test_payload_encodes_to_its_golden_file_and_back(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes().strip()

    assert encode(EXAMPLES[name]) == golden
    assert Decoder(type(EXAMPLES[name])).decode(golden) == EXAMPLES[name]


def test_every_payload_of_the_topic_table_has_a_sample_and_no_golden_file_is_left_over() -> None:
    assert {type(sample) for sample in EXAMPLES.values()} == ON_THE_WIRE
    assert {path.stem for path in GOLDEN.iterdir()} == set(EXAMPLES)


def test_the_golden_files_are_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "gone.json").touch()
    write(tmp_path)

    texts, golden = (
        {path.name: path.read_text("utf-8") for path in each.iterdir()}
        for each in (tmp_path, GOLDEN)
    )
    assert texts == golden


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_optional_field_of_a_payload_is_in_a_sample(name: str) -> None:
    kind = type(EXAMPLES[name])
    told = {
        field
        for sample in EXAMPLES.values()
        if type(sample) is kind
        for field in msgspec.json.decode(encode(sample))
    }

    assert {field.encode_name for field in msgspec.structs.fields(kind)} <= told


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("command-")])
def test_command_topic_decodes_each_command_by_its_tag(name: str) -> None:
    assert topics.COMMAND.decode(encode(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize("kind", sorted(ON_THE_WIRE, key=str))
def test_payload_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf")), max_size=200)
POSITIONS = st.builds(
    messages.Position,
    st.floats(-90, 90),
    st.floats(-180, 180).filter(bool),
    st.floats(0, 10_000),
)


@given(
    report=st.builds(
        messages.Report,
        id=st.just(V7),
        category=st.text("abc-", max_size=40),
        location=POSITIONS,
        reporter_location=st.none() | POSITIONS,
        seen_at=st.datetimes(
            timezones=st.integers(-720, 840).map(lambda m: timezone(timedelta(minutes=m)))
        ),
        text=TEXTS,
        mode=st.sampled_from(messages.Mode),
    )
)
def test_report_round_trips(report: messages.Report) -> None:
    assert topics.REPORT.decode(encode(report)) == report


@pytest.mark.parametrize("lat", [0.0, -0.0])
@pytest.mark.parametrize("lon", [0.0, -0.0])
def test_null_island_is_no_position(lat: float, lon: float) -> None:
    with pytest.raises(FieldError, match="null_island"):
        messages.Position(lat, lon)


@pytest.mark.parametrize("place", [(0.0, 1e-9), (1e-9, 0.0), (90.0, 180.0), (-90.0, -180.0)])
def test_position_near_null_island_or_at_an_edge_is_one(place: tuple[float, float]) -> None:
    assert messages.Position(*place).lat == place[0]


@pytest.mark.parametrize("kind", [messages.Availability.ON_DUTY, messages.Availability.AVAILABLE])
def test_a_participant_who_takes_alerts_needs_a_location(kind: messages.Availability) -> None:
    with pytest.raises(FieldError, match=r"missing_field\|location"):
        messages.Presence(at=AT, availability=kind)


@pytest.mark.parametrize("identifier", [uuid4(), V5, UUID(int=0)])
def test_device_id_must_be_of_version_7(identifier: UUID) -> None:
    for make in (
        lambda: messages.Report(id=identifier, category="fire", location=HERE, seen_at=AT),
        lambda: messages.Reply(id=identifier, incident=V5, kind=messages.ReplyKind.SEEN),
        lambda: messages.GroupMessage(id=identifier, incident=V5, text="a"),
        lambda: messages.Answer(id=identifier, question=V5, text="a"),
        lambda: messages.Acknowledge(id=identifier, incident=V5, by="a"),
    ):
        with pytest.raises(FieldError, match="bad_id"):
            make()


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


if __name__ == "__main__":
    write(GOLDEN)
