"""The topic table: what is built is parsed, and nothing else is."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import messages
from schemas.examples import EXAMPLES
from schemas.roles import Role
from schemas.topics import (
    ANSWER,
    COMMAND_RECEIPT,
    LEVEL,
    RECEIPT,
    REPLY,
    REPORT,
    ROOT,
    SYNC,
    TOPICS,
    Topic,
    distinct,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-"
levels = st.text(ALPHABET, min_size=1, max_size=40)
topics = st.sampled_from(TOPICS)
BAD_LEVELS = [
    "",
    "a/b",
    "+",
    "#",
    "a+",
    "A",
    "é",
    "\uff41",
    "a b",
    "a_b",
    "a.b",
    "$share",
    "a\n",
    "\na",
    "a\0",
    "x" * 41,
    "²",
]


def names(topic: Topic[Any]) -> list[str]:
    return re.findall(r"\{(\w+)\}", topic.template)


@given(topic=topics, data=st.data())
def test_topic_that_is_built_parses_to_the_same_levels(topic: Topic[Any], data: Any) -> None:
    given_levels = {name: data.draw(levels) for name in names(topic)}

    built = topic.topic(**given_levels)

    assert topic.parse(built) == given_levels
    assert built.startswith(f"{ROOT}/")
    assert len(built) < 200


@given(topic=topics, text=st.text())
def test_no_arbitrary_text_parses_unless_it_builds_again(topic: Topic[Any], text: str) -> None:
    for candidate in (text, f"{ROOT}/{text}", topic.filter(**dict.fromkeys(names(topic), text))):
        parsed = topic.parse(candidate)
        if parsed is not None:
            assert topic.topic(**parsed) == candidate


@pytest.mark.parametrize("bad", BAD_LEVELS)
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.template)
def test_level_that_is_no_level_neither_builds_nor_parses(topic: Topic[Any], bad: str) -> None:
    for name in names(topic):
        given_levels = dict.fromkeys(names(topic), "ok") | {name: bad}
        with pytest.raises(ValueError, match=re.escape(LEVEL)):
            topic.topic(**given_levels)
        assert topic.parse(f"{ROOT}/{topic.template.format(**given_levels)}") is None


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.template)
def test_topic_with_something_before_or_after_it_is_another(topic: Topic[Any]) -> None:
    built = topic.topic(**dict.fromkeys(names(topic), "ok"))

    for other in (
        f"{built}/",
        f"/{built}",
        f"{built}/x",
        f"{built}\n",
        built.upper(),
        built.replace("v1", "v2"),
        built[:-1] + "+",
        built.replace("/", "//", 1),
    ):
        assert topic.parse(other) is None


def test_missing_and_unknown_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="needs the level 'user'"):
        REPORT.topic()
    with pytest.raises(ValueError, match="needs the level 'user'"):
        REPORT.topic(zone="gent")
    with pytest.raises(ValueError, match="zone"):
        REPORT.topic(user="ann", zone="gent")


def test_no_two_topics_overlap() -> None:
    for topic in TOPICS:
        built = topic.topic(**dict.fromkeys(names(topic), "ok"))
        assert [other.template for other in TOPICS if other.parse(built)] == [topic.template]


@given(topic=topics, data=st.data())
def test_filter_matches_what_it_should(topic: Topic[Any], data: Any) -> None:
    some = {name: data.draw(levels) for name in names(topic) if data.draw(st.booleans())}
    parts = topic.filter(**some).split("/")
    built = topic.topic(**(dict.fromkeys(names(topic), "x") | some)).split("/")

    assert len(parts) == len(built)
    assert all(part in ("+", level) for part, level in zip(parts, built, strict=True))
    assert parts.count("+") == len(names(topic)) - len(some)


def test_topics_are_distinct_sent_at_least_once_and_retained_where_the_design_says() -> None:
    assert len({topic.template for topic in TOPICS}) == len(TOPICS)
    assert {topic.qos for topic in TOPICS} == {1}
    assert {topic.name for topic in TOPICS if topic.retain} == {
        "incident",
        "service",
        "unattended",
    }


# -- routing that is declared ---------------------------------------------------------------------


def received(template: str, **declared: Any) -> Topic[Any]:
    return Topic(
        template,
        messages.Reply,
        Role.PARTICIPANT,
        Role.SERVICE,
        **{"receipt": RECEIPT} | declared,
    )


def test_every_message_of_a_device_or_desk_can_be_answered_and_the_answer_says_which_it_was() -> (
    None
):
    asked = [topic for topic in TOPICS if topic.sender is not Role.SERVICE]

    assert asked == [topic for topic in TOPICS if topic.is_received]
    for topic in asked:
        assert topic.receipt is not None
        assert topic.receipt.receiver is topic.sender
        assert topic.subject == topic.name
    assert len({(topic.receipt, topic.subject) for topic in asked}) == len(asked)
    assert {topic.subject for topic in TOPICS if topic not in asked} == {None}


@pytest.mark.parametrize("name", ["hello", "other"])
def test_a_topic_that_no_receipt_could_name_is_refused_when_it_is_declared(name: str) -> None:
    with pytest.raises(ValueError, match=f"u/{{user}}/up/{name}: receipts have no Subject"):
        received(f"u/{{user}}/up/{name}")


@pytest.mark.parametrize("receipt", [None, COMMAND_RECEIPT])
def test_a_topic_whose_sender_could_not_be_answered_is_refused_when_it_is_declared(
    receipt: Topic[Any] | None,
) -> None:
    with pytest.raises(ValueError, match="needs a receipt topic"):
        received("u/{user}/up/reply", receipt=receipt)


def test_a_topic_that_no_service_sends_or_receives_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValueError, match="neither its sender nor its receiver"):
        Topic("u/{user}/up/reply", messages.Reply, Role.PARTICIPANT, Role.POLICE_DESK)


@pytest.mark.parametrize("field", ["zone", "eta_s", "kind"])
def test_a_partition_that_the_payload_does_not_say_is_refused_when_it_is_declared(
    field: str,
) -> None:
    with pytest.raises(ValueError, match=rf"Reply\.{field} is .*: only a UUID or a Position"):
        received("u/{user}/up/reply", partition=field)


def test_two_topics_that_a_message_could_be_on_are_refused() -> None:
    either = received("u/{user}/{kind}/reply")

    assert distinct([REPLY, REPORT]) == (REPLY, REPORT)
    with pytest.raises(ValueError, match="may be one topic"):
        distinct([REPLY, either])


def test_two_topics_that_one_receipt_would_be_about_are_refused() -> None:
    with pytest.raises(ValueError, match="a receipt cannot tell"):
        distinct([REPLY, received("u/{user}/other/reply")])


def test_topics_that_have_only_some_levels_alike_are_told_apart() -> None:
    later = received("u/{user}/later/reply")

    assert not REPLY.overlaps(later)
    assert not REPLY.overlaps(received("u/{user}/up/more/reply"))
    assert later.parse_filtered(REPLY.topic(user="ann")) is None


@pytest.mark.parametrize("name", ["ann", "Ann", "a.b", "é", "a\n", ""])
def test_what_comes_by_a_filter_is_told_whatever_its_sender_is_called(name: str) -> None:
    assert REPLY.parse_filtered(f"{ROOT}/u/{name}/up/reply") == {"user": name}
    assert REPLY.parse_filtered(f"{ROOT}/u/{name}/x/up/reply") is None
    assert REPLY.parse_filtered(f"{ROOT}/u/{name}/up/report") is None
    assert re.fullmatch(REPLY.matcher, f"{ROOT}/u/{name}/up/reply")
    assert not re.fullmatch(REPLY.matcher, f"x{ROOT}/u/{name}/up/reply")
    assert not re.fullmatch(REPLY.matcher, f"{ROOT}/u/{name}/x/up/reply")


@pytest.mark.parametrize(
    ("topic", "example", "field"),
    [(REPORT, "report", "location"), (REPLY, "reply", "incident"), (ANSWER, "answer", "question")],
    ids=["report", "reply", "answer"],
)
def test_a_message_says_in_which_partition_it_is_handled(
    topic: Topic[Any], example: str, field: str
) -> None:
    assert topic.partition_key(EXAMPLES[example]) == getattr(EXAMPLES[example], field)
    assert SYNC.partition_key(EXAMPLES["sync"]) is None


def test_documents_name_the_service_at_its_end() -> None:
    assert REPORT.from_and_to == ("participant", "intake")
    assert RECEIPT.from_and_to == ("services", "participant")
