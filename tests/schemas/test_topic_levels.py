"""What may stand in a topic's levels, and what a topic says when it may not."""

from typing import Any

import pytest

from schemas import topics
from schemas.topics import ALERT, BRIEF, INCIDENT, REPORT, ROOT

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
