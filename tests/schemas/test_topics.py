"""The topic table: what is built is parsed, and nothing else is."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import LEVEL, REPORT, ROOT, TOPICS, Topic

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


def test_authorisation_by_topic_alone_keeps_devices_to_their_own_branch() -> None:
    acl = (Path(__file__).parents[2] / "mosquitto.acl").read_text()

    assert "pattern write nabij/v1/u/%u/up/#" in acl
    assert "pattern read nabij/v1/u/%u/down/#" in acl
    for topic in TOPICS:
        if topic.sender == "participant":
            assert topic.template.startswith("u/{user}/up/")
        if topic.receiver in ("participant", "member"):
            assert topic.template.startswith("u/{user}/down/")
