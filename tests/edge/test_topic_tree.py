"""The tree of topics, and `covers`, against the definition written as a regular expression."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from broker.edge.topic_filters import covers, is_topic_filter
from broker.edge.topic_tree import TopicTree

LEVELS = ("", "a", "b", "$s")
levels = st.sampled_from(LEVELS)
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = (
    st.lists(st.sampled_from((*LEVELS, "+", "#")), min_size=1, max_size=4)
    .map("/".join)
    .filter(is_topic_filter)
)


def matches(pattern: str, topic: str) -> bool:
    """Section 4.7, to the letter."""
    if topic.startswith("$") and pattern[0] in "+#":
        return False
    expression = re.escape(pattern).replace(r"\+", "[^/]*")
    expression = re.sub(r"/?\\#$", lambda found: "(/.*)?" if "/" in found[0] else ".*", expression)
    return re.fullmatch(expression, topic) is not None


@given(st.lists(st.tuples(filters, st.integers(0, 3), st.booleans()), max_size=30), topics)
def test_a_topic_finds_the_filters_that_match_it(
    changes: list[tuple[str, int, bool]], topic: str
) -> None:
    tree: TopicTree[tuple[str, int]] = TopicTree()
    kept: set[tuple[str, int]] = set()
    for pattern, key, is_put in changes:
        if is_put:
            tree.put(pattern, key, (pattern, key))
            kept.add((pattern, key))
        else:
            removed = tree.remove(pattern, key)
            assert removed == ((pattern, key) if (pattern, key) in kept else None)
            kept.discard((pattern, key))
    found = tree.matching(topic)
    assert sorted(found) == sorted(one for one in kept if matches(one[0], topic))
    assert sorted(tree.values()) == sorted(kept)
    assert len(tree) == len(kept)


@given(st.sets(topics, max_size=20), filters)
def test_a_filter_finds_the_topics_that_it_matches(kept: set[str], pattern: str) -> None:
    tree: TopicTree[str] = TopicTree()
    for topic in kept:
        tree.put(topic, None, topic)
    assert sorted(tree.matched_by(pattern)) == sorted(one for one in kept if matches(pattern, one))


@given(st.sets(filters, max_size=20))
def test_a_tree_from_which_all_is_removed_is_empty(kept: set[str]) -> None:
    tree: TopicTree[str] = TopicTree()
    for pattern in kept:
        tree.put(pattern, 1, pattern)
    for pattern in kept:
        tree.remove(pattern, 1)
    assert (len(tree), tree._root.children) == (0, {})


def paths(names: tuple[str, ...], depth: int) -> list[str]:
    lengths = range(1, depth + 1)
    return ["/".join(one) for size in lengths for one in itertools.product(names, repeat=size)]


def test_a_right_covers_a_filter_only_if_it_matches_every_topic_that_the_filter_matches() -> None:
    """All filters of three levels, and all topics of four, where `z` stands for any other level."""
    every_topic = [one for one in paths(("a", "", "$s", "z"), 4) if one]
    every_filter = [one for one in paths(("a", "", "$s", "+", "#"), 3) if is_topic_filter(one)]
    matched = {
        one: sum(matches(one, topic) << at for at, topic in enumerate(every_topic))
        for one in every_filter
    }
    assert len(every_filter) > 100
    for right, pattern in itertools.product(every_filter, repeat=2):
        is_within = not matched[pattern] & ~matched[right]
        if covers(right, pattern):
            assert is_within, f"{right} does not match all of {pattern}"
        elif is_within:  # allowed all the same would be: several `+` before a `#`, for a `#` sooner
            assert pattern.endswith("#"), f"{right} matches all of {pattern}"
            assert re.search(r"\+/(\+/)*#$", right), f"{right} matches all of {pattern}"
